"""From credible sets to the cells where a trait's variants act.

For the credible variants v of a trait, with PIP p, the sign s of the effect of ALT on the trait,
and delta logits d, a cell's scores are

    signed    sum over v of p s d     does the trait-raising allele open (+) or close (-) it?
    unsigned  sum over v of p |d|     how much do they change it, whichever way?

The signed score is W times one bottleneck, the sum of p s (h_alt - h_ref). A group's score is the
mean over its cells. Both are compared with draws of matched controls (see `controls`).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism import controls
from scbasset_ism.calibration import Background, effect_size, size_factor
from scbasset_ism.controls import Doubles, Null
from scbasset_ism.credible import MIN_PIP, EffectAllele, read_credible_sets
from scbasset_ism.errors import CredibleSetError
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.groups import Groups
from scbasset_ism.orientation import orient
from scbasset_ism.reader import Scores, read_rows

log = logging.getLogger(__name__)

FLANK = 250_000  # bases on either side of a locus whose variants may be controls
WINDOW = 1344  # bases whose GC is matched


@dataclass(frozen=True)
class FinemapOptions:
    """How credible sets are read and compared.

    Attributes:
        min_pip: Of a credible variant, where a file does not say which are.
        effect_allele: See `read_credible_sets`.
        draws: Of matched controls.
        seed: Of the draws.
    """

    min_pip: float = MIN_PIP
    effect_allele: EffectAllele | None = None
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 <= self.min_pip <= 1:
            raise CredibleSetError(
                f"draws {self.draws} and least PIP {self.min_pip}: at least 1 draw, and a PIP "
                "between 0 and 1"
            )


@dataclass(frozen=True)
class Units:
    """Cells, and groups of cells behind them: whatever gets a score.

    Attributes:
        cell_weight: W, (cells, bottleneck).
        groups: None where there are none.
    """

    cell_weight: Floats
    groups: Groups | None

    @cached_property
    def weight(self) -> Floats:
        """Rows of W and means of them, (units, bottleneck) float32."""
        if self.groups is None:
            return self.cell_weight
        return np.concatenate([self.cell_weight, self.groups.mean_weight(self.cell_weight)])

    def size(self, delta: Floats) -> Floats:
        """Give |delta logit| in cells and its mean in groups, (variants, units) float32."""
        cells = np.abs(delta @ self.cell_weight.T)
        if self.groups is None:
            return cells
        return np.concatenate([cells, cells @ self.groups.members.T], axis=1)


@dataclass(frozen=True)
class TraitScores:
    """What a trait's credible variants do.

    Attributes:
        trait: Its name.
        variants: The credible variants that are used, one row each: `row` of the store, `pip`,
            `sign` (of the effect of ALT; 0 where there is none), and more.
        bottleneck: Whose product with W is the signed score, (bottleneck) float64.
        signed: (units) float64; NaN where no effect has a sign.
        unsigned: (units) float64.
        n_controls: Variants that could stand in.
        matched_on: What the controls are matched on.
        signed_null: Two-sided; None where there are too few controls, or no effect has a sign.
        unsigned_null: One-sided; None where there are too few controls.
    """

    trait: str
    variants: pd.DataFrame
    bottleneck: Doubles
    signed: Doubles
    unsigned: Doubles
    n_controls: int
    matched_on: tuple[str, ...] = ()
    signed_null: Null | None = None
    unsigned_null: Null | None = None


@dataclass(frozen=True)
class Finemap:
    """The result for all traits.

    Attributes:
        scores: The store.
        units: Its cells and groups.
        alleles: All rows of the files, with `row` of the store, `orientation`, `is_ambiguous` and
            `is_used`.
        traits: In the order of the files.
        background: To calibrate with.
        options: How it was made.
    """

    scores: Scores
    units: Units
    alleles: pd.DataFrame
    traits: list[TraitScores]
    background: Background | None = None
    options: FinemapOptions = field(default_factory=FinemapOptions)


def finemap(
    scores: Scores,
    credible_sets: Sequence[str | Path] | pd.DataFrame,
    genome: Genome,
    *,
    groups: Groups | None = None,
    background: Background | None = None,
    options: FinemapOptions | None = None,
) -> Finemap:
    """Score every cell for every trait of some credible sets.

    Args:
        scores: Has the credible variants, and others of the same loci, which are the controls.
        credible_sets: Files, or what `read_credible_sets` gives.
        genome: Where the GC of windows is read.
        groups: Of cells, which get scores too.
        background: To calibrate the effects of single variants with.
        options: How.

    Raises:
        CredibleSetError: A file can't be read, or none of its variants is in the store.
    """
    options = options or FinemapOptions()
    if isinstance(credible_sets, pd.DataFrame):
        table = credible_sets
    else:
        table = pd.concat(
            [
                read_credible_sets(
                    path, effect_allele=options.effect_allele, min_pip=options.min_pip
                )
                for path in credible_sets
            ],
            ignore_index=True,
        )
    table = table.join(orient(table, scores))
    _tell(table)
    used = table[table["is_used"] & table["is_credible"]]
    if used.empty:
        raise CredibleSetError(
            f"none of the {len(table):,} rows is a credible variant with a score in {scores.path}: "
            "was it scored on the same assembly, and from these variants?"
        )
    units = Units(scores.cell_weight, groups)
    pool = Pool(scores, table, genome)
    _check_genome(scores, genome)
    traits = []
    for number, (trait, rows) in enumerate(used.groupby("trait", sort=False)):
        rng = np.random.default_rng([options.seed, number])
        variants = _combined(rows)
        traits.append(
            _score(str(trait), variants, pool, units=units, n_draws=options.draws, rng=rng)
        )
    return Finemap(scores, units, table, traits, background, options)


def _check_genome(scores: Scores, genome: Genome) -> None:
    """Refuse a genome whose contigs that were read are not those of the store."""
    known = scores.attributes.get("genome", {}).get("contig_md5", {})
    for contig, md5 in genome.md5s.items():
        if known.get(contig, md5) != md5:
            raise CredibleSetError(
                f"{genome.path} has another {contig} than {scores.path} was written with: give "
                "its --genome"
            )


def _tell(table: pd.DataFrame) -> None:
    """Count what became of the alleles."""
    counts = table["orientation"].value_counts()
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    log.info("alleles of %s rows: %s", f"{len(table):,}", told)
    if n_ambiguous := int(table["is_ambiguous"].sum()):
        n_left = int((table["is_ambiguous"] & ~table["is_used"] & (table["row"] >= 0)).sum())
        log.info(
            "%s rows are A/T or C/G SNVs; %s are left out%s",
            f"{n_ambiguous:,}",
            f"{n_left:,}",
            "" if n_left else ", since no row is of the other strand",
        )


def _combined(rows: pd.DataFrame) -> pd.DataFrame:
    """Give one row to every variant of a trait.

    One that is in several credible sets has the PIP `1 - product of (1 - PIP)`, as SuSiE has it
    (Wang et al. 2020), and the rest of its most likely one.
    """
    best = rows.sort_values("pip", ascending=False, kind="stable").drop_duplicates("row")
    left = (1 - rows["pip"]).groupby(rows["row"]).prod()
    turned = np.where(best["orientation"] == "SWAPPED", -1.0, 1.0)
    sign = np.sign(best["beta"].fillna(0)) * turned
    return best.assign(pip=1 - left[best["row"]].to_numpy(), sign=sign).reset_index(drop=True)


class Pool:
    """The variants of a store that may be controls, and what they are matched on.

    Args:
        scores: The store.
        table: Rows of credible sets with their rows in the store.
        genome: Where the GC of windows is read.
    """

    def __init__(self, scores: Scores, table: pd.DataFrame, genome: Genome) -> None:
        self._scores, self._genome, self._table = scores, genome, table
        self._factor = size_factor(scores.cell_weight)
        rows = scores.rows()
        self._chrom, self._pos = rows["chrom"].astype(str), rows["variant_position"]
        credible = table.loc[table["is_credible"], "row"]
        self._may_be = (rows["status"] == "SCORED").to_numpy()
        self._may_be[credible[credible >= 0]] = False
        matched = table[table["row"] >= 0].drop_duplicates("row")
        self._maf = matched.set_index("row")["maf"]
        self._known_gc = self._read_gc(np.flatnonzero(self._inside(table)))

    def controls(self, trait: str) -> NDArray[np.int64]:
        """Number the variants of a trait's loci that are credible for no trait."""
        own = self._table[self._table["trait"] == trait]
        return np.flatnonzero(self._inside(own) & self._may_be)

    def _inside(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Tell which variants of the store lie in loci, (variants) bool."""
        inside = np.zeros(len(self._may_be), dtype=bool)
        known = table[table["row"] >= 0]
        for _, locus in known.groupby(["trait", "locus", "chrom"]):
            rows = locus["row"].to_numpy()
            place = self._pos.iloc[rows]
            near = self._pos.between(place.min() - FLANK, place.max() + FLANK)
            inside |= (near & (self._chrom == self._chrom.iloc[rows[0]])).to_numpy()
        return inside

    def features(self, rows: NDArray[np.int64], delta: Floats) -> pd.DataFrame:
        """Give what variants are matched on, (variants, features): size, gc, maf."""
        return pd.DataFrame(
            {
                "size": effect_size(delta, self._factor),
                "gc": self._known_gc[rows].to_numpy(),
                "maf": self._maf.reindex(rows).to_numpy(),
            }
        )

    def deltas(self, rows: NDArray[np.int64]) -> Floats:
        """Read delta_bottleneck, (rows, bottleneck) float32."""
        return read_rows(self._scores.delta_bottleneck, rows)

    def _read_gc(self, rows: NDArray[np.int64]) -> pd.Series:
        """Read the share of G and C among the known bases around variants, by row.

        Contig by contig, since the genome keeps one in memory.
        """
        shares = dict[int, float]()
        chroms = self._chrom.iloc[rows].to_numpy()
        for row, name in sorted(zip(rows.tolist(), chroms, strict=True), key=lambda x: x[1]):
            chrom = self._genome.resolve(name)
            if chrom is None:
                raise CredibleSetError(
                    f"{self._genome.path} has no contig {name}: give the --genome that the store "
                    "was written with"
                )
            start = int(self._pos.iloc[row]) - 1 - WINDOW // 2
            counts = np.bincount(self._genome.codes(chrom, start, start + WINDOW), minlength=5)
            known = counts[:4].sum()
            shares[row] = counts[1:3].sum() / known if known else 0.5
        return pd.Series(shares, dtype=np.float64)


def _score(
    trait: str,
    variants: pd.DataFrame,
    pool: Pool,
    *,
    units: Units,
    n_draws: int,
    rng: np.random.Generator,
) -> TraitScores:
    """Score a trait in every unit, and draw its null."""
    rows = variants["row"].to_numpy(dtype=np.int64)
    delta = pool.deltas(rows)
    pip = variants["pip"].to_numpy(dtype=np.float64)
    sign = variants["sign"].to_numpy(dtype=np.float64)
    bottleneck = (pip * sign) @ delta.astype(np.float64)
    signed = units.weight @ bottleneck if sign.any() else np.full(len(units.weight), np.nan)
    unsigned = pip @ units.size(delta).astype(np.float64)
    numbers = pool.controls(trait)
    plain = TraitScores(trait, variants, bottleneck, signed, unsigned, len(numbers))
    others = pool.deltas(numbers)
    features = [pool.features(rows, delta), pool.features(numbers, others)]
    matched = ["size", "gc"]
    if features[0]["maf"].notna().all() and features[1]["maf"].notna().sum() >= controls.LEAST:
        matched.append("maf")
        known = features[1]["maf"].notna().to_numpy()
        others, features[1] = others[known], features[1][known]
    usable = (features[1]["size"] > 0).to_numpy()  # a control without any effect has no pattern
    others, features[1] = others[usable], features[1][usable]
    if len(others) < controls.LEAST:
        log.info(
            "%s: %s controls in its loci, fewer than %s, so neither z nor p: score more variants "
            "of the loci into the store",
            trait,
            f"{len(others):,}",
            controls.LEAST,
        )
        return plain
    drawn = controls.draw(
        controls.nearest_controls(features[0][matched], features[1][matched]), n_draws, rng
    )
    pattern = others / features[1]["size"].to_numpy()[:, None]
    size = pip * features[0]["size"].to_numpy()
    unsigned_draws = controls.drawn_scores(drawn, size, lambda some: units.size(pattern[some]))
    signed_draws = controls.drawn_scores(drawn, size * sign, lambda some: pattern[some])
    return TraitScores(
        trait,
        variants,
        bottleneck,
        signed,
        unsigned,
        len(others),
        tuple(matched),
        controls.compare(signed, signed_draws @ units.weight.T, two_sided=True)
        if sign.any()
        else None,
        controls.compare(unsigned, unsigned_draws, two_sided=False),
    )
