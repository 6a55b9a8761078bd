"""Files of credible sets: one row per trait, locus and variant, whoever wrote them.

Tables of SuSiE, FINEMAP, FinnGen and Open Targets, and VCFs whose INFO holds the same. The effect
allele is the one that `beta` is of; nothing is known here of the store's alleles.
"""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pysam

from scbasset_ism.errors import CredibleSetError
from scbasset_ism.genome import is_gzip, quiet_htslib

EffectAllele = Literal["allele1", "allele2"]

COLUMNS = ("trait", "locus", "chrom", "pos", "other", "effect", "pip", "beta", "maf", "is_credible")
MIN_PIP = 0.01  # of a credible variant, where a file does not say which are
GAP = 500_000  # bases between variants of different loci, where a file does not name them

_VARIANT = r"^(.+?)[:_](\d+)[:_](\w+)[:_](\w+)$"  # 1_154119580_C_A, chr1:154119580:C:A

# What a column means, by its name in lower case; the first that a file has is taken.
_NAMES: dict[str, tuple[str, ...]] = {
    "trait": ("trait", "phenotype", "pheno", "study_id", "studyid"),
    "locus": ("region", "locus_id", "studylocusid", "locus", "region_id"),
    "set": ("cs", "cs_id", "csid", "credible_set", "cs_index"),
    "in_set": ("is95credibleset", "is95_credset"),
    "variant": ("v", "variantid", "variant_id", "variant"),
    "chrom": ("chromosome", "chrom", "chr", "tag_chrom"),
    "pos": ("position", "pos", "bp", "base_pair_location", "tag_pos"),
    "effect": ("effect_allele", "ea", "alt", "tag_alt", "a1"),
    "other": ("other_allele", "non_effect_allele", "nea", "oa", "ref", "tag_ref", "a2"),
    "pip": (
        "pip",
        "prob",
        "pp",
        "posteriorprobability",
        "posterior_prob",
        "postprob",
        "cs_specific_prob",
    ),
    "beta": ("beta", "tag_beta", "z", "zscore"),
    "maf": ("maf", "eaf", "af", "freq", "effect_allele_frequency"),
}
_INFO: dict[str, tuple[str, ...]] = {
    "trait": ("TRAITS", "TRAIT", "PHENOTYPE"),
    "locus": ("REGION", "LOCUS"),
    "set": ("CS", "CREDIBLE_SET"),
    "pip": ("PIP", "PP"),
    "beta": ("BETA", "Z"),
    "maf": ("MAF", "AF"),
}


def read_credible_sets(
    path: str | Path,
    *,
    effect_allele: EffectAllele | None = None,
    min_pip: float = MIN_PIP,
) -> pd.DataFrame:
    """Read a file of credible sets.

    A file that says which variants are in a credible set is believed (FinnGen's and SuSiE's `cs`
    above 0, Open Targets' `is95CredibleSet`); else those with a PIP of `min_pip` are. The others
    are kept: they may serve as controls.

    Args:
        path: A VCF or BCF; a table with tabs, commas or spaces, plain or gzip; Parquet, or JSON
            with a line a row. Without a column for the trait, the file's name is the trait.
        effect_allele: Which of the columns allele1 and allele2 the effect is of, where a table
            calls them so and is not FinnGen's (there it is allele2, the alternate).
        min_pip: See above.

    Returns:
        One row per trait, locus and variant: `trait`, `locus`, `chrom`, `pos` (1-based), `other`
        and `effect` (alleles, upper case), `pip`, `beta` and `maf` (float64, NaN where unknown),
        `is_credible`.

    Raises:
        CredibleSetError: It can't be read, or lacks what is needed.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(1 << 10)
    except OSError as error:
        raise CredibleSetError(f"{path} can't be read: {error.strerror}") from None
    try:
        if head.startswith(b"PAR1"):
            table = _parquet(path)
        elif head.startswith(b"{"):
            table = pd.read_json(path, lines=True)
        elif found := _info_of_vcf(path):
            table = pd.DataFrame(found)
        else:
            table = _text(path, head)
    except (OSError, ValueError, EOFError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CredibleSetError(f"{path} can't be read as credible sets: {reason}") from None
    return _standardize(_exploded(table), path, effect_allele, min_pip)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise CredibleSetError(
            f"{path} is Parquet, which needs pyarrow: pip install 'scbasset-ism[parquet]'"
        ) from None


def _text(path: Path, head: bytes) -> pd.DataFrame:
    """Read a table whose separator is what stands in its first line."""
    packed: Literal["gzip"] | None = "gzip" if is_gzip(head) else None
    with gzip.open(path, "rt") if packed else path.open() as file:
        line = file.readline()
    if not line.strip():
        raise ValueError("it is empty")
    separator = "\t" if "\t" in line else "," if "," in line else r"\s+"
    return pd.read_csv(
        path,
        sep=separator,
        compression=packed,
        float_precision="round_trip",
        dtype={name: str for name in line.replace(",", " ").split() if "chr" in name.lower()},
    )


def _exploded(table: pd.DataFrame) -> pd.DataFrame:
    """Give a row to every variant of a list of records, as Open Targets has them in `locus`."""
    if "locus" not in table or not isinstance(table["locus"].iloc[0], list | np.ndarray):
        return table
    long = table.explode("locus", ignore_index=True).dropna(subset="locus")
    records = pd.DataFrame(list(long["locus"]), index=long.index)
    own = long.drop(columns=["locus", *(name for name in long if name in records)])
    return own.join(records)


def _info_of_vcf(path: Path) -> list[dict[str, Any]] | None:
    """Read a VCF's INFO, a row for every trait; None where the file is no VCF."""
    with quiet_htslib():
        try:
            file = pysam.VariantFile(str(path), drop_samples=True)
        except (OSError, ValueError):
            return None
        with file:
            known = file.header.info
            named = {
                role: name
                for role, names in _INFO.items()
                if (name := next((n for n in names if n in known), None))
            }
            if "pip" not in named:
                raise CredibleSetError(f"{path} has no {' or '.join(_INFO['pip'])} in its INFO")
            by_allele = {role for role, name in named.items() if known[name].number == "A"}
            return [row for record in file for row in _rows_of_record(record, named, by_allele)]


def _rows_of_record(
    record: pysam.VariantRecord, named: Mapping[str, str], by_allele: set[str]
) -> Iterator[dict[str, Any]]:
    """Give a row for every ALT and trait of a record."""
    place = f"{record.chrom}:{record.pos}"
    for number, alt in enumerate(record.alts or ()):
        values: dict[str, tuple[Any, ...]] = {}
        for role, name in named.items():
            value = record.info.get(name)
            several = value if isinstance(value, tuple) else (value,)
            values[role] = several[number : number + 1] if role in by_allele else several
        n_traits = len(values["pip"])
        if n_traits > 1 and len(record.alts or ()) > 1:
            raise CredibleSetError(
                f"{place} has several ALTs and {n_traits} values of {named['pip']}: "
                "split it first (bcftools norm -m-)"
            )
        for role, several in values.items():
            if len(several) not in {1, n_traits}:
                raise CredibleSetError(
                    f"{place} has {n_traits} values of {named['pip']} and {len(several)} of "
                    f"{named[role]}"
                )
        for i in range(n_traits):
            own = {role: v[i if len(v) == n_traits else 0] for role, v in values.items()}
            yield {
                "chrom": record.chrom,
                "pos": record.pos,
                "ref": record.ref,
                "alt": alt,
                **{_NAMES[role][0]: value for role, value in own.items()},
            }


def _standardize(
    table: pd.DataFrame, path: Path, effect_allele: EffectAllele | None, min_pip: float
) -> pd.DataFrame:
    """Give a table the columns of all, whatever it calls them."""
    table = table.rename(columns=lambda name: str(name).strip().lstrip("#").lower())
    column = {
        role: name
        for role, names in _NAMES.items()
        if (name := next((n for n in names if n in table), None))
    }
    if "effect" not in column and {"allele1", "allele2"} <= set(table):
        is_finngen = {"trait", "region", "v"} <= set(table)
        chosen = effect_allele or ("allele2" if is_finngen else None)
        if chosen is None:
            raise CredibleSetError(
                f"{path}: which of allele1 and allele2 is the effect of? FINEMAP keeps what it "
                "was given, so say --effect-allele allele1 or allele2"
            )
        other = "allele1" if chosen == "allele2" else "allele2"
        column |= {"effect": chosen, "other": other}
    found = pd.DataFrame(index=table.index)
    for role in ("chrom", "pos", "other", "effect"):
        if role in column:
            found[role] = table[column[role]]
    if not {"chrom", "pos", "other", "effect"} <= set(found) and "variant" in column:
        texts = table[column["variant"]].astype(str)
        found[["chrom", "pos", "other", "effect"]] = texts.str.extract(_VARIANT)
    missing = [role for role in ("chrom", "pos", "other", "effect") if role not in found]
    if "pip" not in column:
        missing.append("pip")
    if missing:
        raise CredibleSetError(
            f"{path} has no column for {', '.join(missing)}; it has {', '.join(map(str, table))}"
        )
    found["chrom"] = found["chrom"].astype(str)
    for role in ("other", "effect"):
        found[role] = found[role].astype(str).str.upper()
    for role in ("pos", "pip", "beta", "maf"):
        given = table[column[role]] if role in column else pd.Series(np.nan, index=table.index)
        found[role] = _numbers(found["pos"] if role == "pos" else given, path, role)
    _check(found, path)
    found["pos"] = found["pos"].astype(np.int64)
    found["maf"] = np.minimum(found["maf"], 1 - found["maf"])
    found["trait"] = table[column["trait"]].astype(str) if "trait" in column else _stem(path)
    found["is_credible"] = _in_credible_set(table, column, found["pip"] >= min_pip)
    found["locus"] = _loci(table, column, found)
    return found.reindex(columns=list(COLUMNS)).reset_index(drop=True)


def _stem(path: Path) -> str:
    """Name a trait after its file."""
    return path.name.split(".")[0]


def _numbers(values: pd.Series, path: Path, what: str) -> pd.Series:
    """Read numbers; nothing for empty cells and NA."""
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
    wrong = numbers.isna() & values.notna() & ~values.astype(str).isin({"", ".", "NA", "nan"})
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise CredibleSetError(f"{path}, row {row + 1}: {what} {values.iloc[row]!r} is no number")
    return numbers


def _check(found: pd.DataFrame, path: Path) -> None:
    wrong = ~(found["pos"] >= 1) | ~found["pip"].between(0, 1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise CredibleSetError(
            f"{path}, row {row + 1}: position {found['pos'].iloc[row]} and PIP "
            f"{found['pip'].iloc[row]}; positions start at 1, and a PIP lies between 0 and 1"
        )


def _in_credible_set(
    table: pd.DataFrame, column: Mapping[str, str], by_pip: pd.Series
) -> pd.Series:
    """Tell which rows are in a credible set, (rows) bool."""
    if "set" in column:
        values = table[column["set"]]
        numbers = pd.to_numeric(values, errors="coerce")
        named = values.notna() & ~values.astype(str).isin({"", ".", "NA", "nan"})
        return pd.Series(np.where(numbers.notna(), numbers > 0, named), index=table.index)
    if "in_set" in column:
        return table[column["in_set"]].astype(str).str.lower().isin({"true", "1"})
    return by_pip


def _loci(table: pd.DataFrame, column: Mapping[str, str], found: pd.DataFrame) -> pd.Series:
    """Name the locus of every row: the file's region and set, else what lies together."""
    parts = [table[column[role]].astype(str) for role in ("locus", "set") if role in column]
    if parts:
        return parts[0] if len(parts) == 1 else parts[0] + ":" + parts[1]
    names = pd.Series("", index=found.index)
    for (_, chrom), rows in found.sort_values("pos").groupby(["trait", "chrom"], sort=False):
        number = (rows["pos"].diff() > GAP).cumsum()
        first = rows["pos"].groupby(number).transform("min")
        names[rows.index] = str(chrom) + ":" + first.astype(str)
    return names
