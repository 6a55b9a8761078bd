"""Annotated VCFs: what was there stays to the byte, what is added is what the store holds."""

import gzip
import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest
from conftest import TINY_CONFIG
from scored import KINDS, RECORDS, STATUSES, score, write_variants

from scbasset_ism.errors import ExportError
from scbasset_ism.exporting import ExportOptions, export
from scbasset_ism.genome import Genome
from scbasset_ism.merging import merge
from scbasset_ism.model import Scbasset, random_model
from scbasset_ism.reader import Scores, open_scores

IDS = ["scbasset_B_cell", "scbasset_T_NK", "scbasset_status_2"]
HEADER = '##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n##FILTER=<ID=q10,Description="x">'


def with_fields(vcf: Path) -> None:
    """Give the records QUAL, FILTER, INFO, FORMAT and two samples, as files in the wild have."""
    lines = vcf.read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if line.startswith("#CHROM"))
    for i in range(number, len(lines)):
        columns = lines[i].split("\t")
        if i == number:
            columns += ["FORMAT", "one", "two"]
        else:
            alts = columns[4].count(",") + 1
            columns[5:8] = ["30.50", "q10", f"AF={','.join(['0.10'] * alts)};DB"]
            columns += ["GT", "0/1", "./."]
        lines[i] = "\t".join(columns)
    lines[number:number] = ['##FORMAT=<ID=GT,Number=1,Type=String,Description="x">']
    lines[number:number] = ['##INFO=<ID=DB,Number=0,Type=Flag,Description="x">']
    vcf.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, tiny_fasta: Path, tiny_sequences: dict[str, str]
) -> Scores:
    folder = tmp_path_factory.mktemp("scores")
    vcf = write_variants(folder / "v.vcf", tiny_sequences, header=HEADER)
    with_fields(vcf)
    return score(vcf, Genome(tiny_fasta), random_model(TINY_CONFIG))


def records(path: Path) -> list[str]:
    """Lines of the records of a VCF."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return [line.rstrip("\n") for line in file if not line.startswith("#")]


def without_ours(line: str, prefix: str = "scbasset_") -> str:
    """A record's line without the fields that were added."""
    columns = line.split("\t")
    kept = [field for field in columns[7].split(";") if not field.startswith(prefix)]
    columns[7] = ";".join(kept) or "."
    return "\t".join(columns)


def info(path: Path) -> list[dict[str, tuple[object, ...]]]:
    """Our fields of every record, as htslib reads them."""
    with pysam.VariantFile(str(path)) as file:
        return [{k: r.info[k] for k in r.info if k.startswith("scbasset")} for r in file]


def expected(store: Scores) -> list[dict[str, tuple[object, ...]]]:
    """Our fields as the store has them: None where an ALT has no score."""
    means, variants = store.group_mean("kind"), store.variants()
    found = []
    for _, rows in variants.reset_index().groupby("variant_record"):
        if rows["variant_alt"].tolist() == ["."]:
            found.append({})
            continue
        fields: dict[str, tuple[object, ...]] = {"scbasset_status": tuple(rows["status"])}
        if "SCORED" in fields["scbasset_status"]:
            for name, column in zip(IDS, means, strict=True):
                values = means[column].to_numpy()[rows.index].tolist()
                fields[name] = tuple(None if np.isnan(value) else value for value in values)
        found.append(fields)
    return found


@pytest.mark.parametrize("ending", [".vcf.gz", ".bcf"])
def test_what_is_added_is_what_the_store_holds(ending: str, store: Scores, tmp_path: Path) -> None:
    out = tmp_path / f"x{ending}"
    counts = export(store.path, out, options=ExportOptions(by="kind"))
    assert counts == {s: STATUSES.count(s) for s in STATUSES}
    assert info(out) == expected(store)
    assert info(out)[5]["scbasset_status"] == ("SYMBOLIC", "SCORED", "SPANNING_DELETION")
    assert info(out)[5]["scbasset_T_NK"][::2] == (None, None)
    assert info(out) != expected(store)[::-1]
    with pysam.VariantFile(str(out)) as file:
        declared = {name: file.header.info[name] for name in ["scbasset_status", *IDS]}
        assert {field.number for field in declared.values()} == {"A"}
        assert "cells with kind 'T/NK' (1)" in declared["scbasset_T_NK"].description
        assert [record.id for record in file.fetch("2", 1499, 1500)] == ["del2"]  # by the index


def test_the_records_stay_to_the_byte(store: Scores, tmp_path: Path) -> None:
    original, out = Path(store.path).parent / "v.vcf", tmp_path / "x.vcf.gz"
    export(store.path, out, options=ExportOptions(by="kind"))
    assert [without_ours(line) for line in records(out)] == records(original)
    assert records(out)[6] == records(original)[6]  # without ALT
    assert records(out) != records(original)
    with gzip.open(out, "rt") as file:
        header = [line for line in file if line.startswith("#")]
    before = [line for line in original.read_text().splitlines(keepends=True) if line[0] == "#"]
    assert [line for line in header if "scbasset" not in line] == before


def test_a_bcf_has_the_records_of_the_vcf(store: Scores, tmp_path: Path) -> None:
    for ending in (".vcf.gz", ".bcf"):
        export(store.path, tmp_path / f"x{ending}", options=ExportOptions(by="kind"))
    text, binary = (pysam.bcftools.view("-H", str(tmp_path / f"x{e}")) for e in (".vcf.gz", ".bcf"))
    assert text == binary
    assert "DB;scbasset_status=SYMBOLIC,SCORED,SPANNING_DELETION" in binary
    assert "END=" not in binary
    assert not (tmp_path / "records.vcf.gz").exists()


@pytest.mark.parametrize("ending", [".vcf.gz", ".bcf", ".gz"])
def test_other_originals(
    ending: str, store: Scores, tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    plain, vcf = Path(store.path).parent / "v.vcf", tmp_path / f"v{ending}"
    if ending == ".gz":
        vcf.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        kind = "-Ob" if ending == ".bcf" else "-Oz"
        pysam.bcftools.view("--no-version", kind, "-o", str(vcf), str(plain), catch_stdout=False)
    again = score(vcf, tiny_genome, tiny_model)
    for out in ("x.vcf.gz", "x.bcf"):
        export(again.path, tmp_path / out, options=ExportOptions(by="kind"))
        assert info(tmp_path / out) == expected(again)
    kept = [without_ours(line) for line in records(tmp_path / "x.vcf.gz")]
    assert kept == (
        records(plain) if ending == ".gz" else pysam.bcftools.view("-H", str(vcf)).splitlines()
    )


def test_lines_that_are_not_as_expected(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    """Line ends of Windows, other bytes than UTF-8, zeros, and what the header does not define."""
    vcf = write_variants(tmp_path / "v.vcf", tiny_sequences, *RECORDS[1:3])
    text = vcf.read_bytes().replace(b"##contig=<ID=9,length=100>\n", b"")
    lines = text.replace(b"##contig=<ID=1,length=6000>\n", b"").splitlines()
    lines[-1] = lines[-1].removesuffix(b".\t.\t.") + b"7\tlow\tNOTE=caf\xe9;N=3"
    lines[-2] = lines[-2].replace(b"\t1001\t", b"\t01001\t").removesuffix(b".")
    vcf.write_bytes(b"\r\n".join(lines) + b"\r\n")
    store = score(vcf, tiny_genome, tiny_model)
    export(store.path, tmp_path / "x.vcf.gz", options=ExportOptions(by="kind"))
    *_, first, last = gzip.decompress((tmp_path / "x.vcf.gz").read_bytes()).splitlines()
    assert first.startswith(lines[-2] + b"scbasset_status=SCORED;scbasset_B_cell=")
    assert last.startswith(lines[-1] + b";scbasset_status=SCORED;scbasset_B_cell=")
    assert b"\r" not in gzip.decompress((tmp_path / "x.vcf.gz").read_bytes())
    export(store.path, tmp_path / "x.bcf", options=ExportOptions(by="kind"))
    assert info(tmp_path / "x.bcf") == expected(store)
    with pysam.VariantFile(str(tmp_path / "x.bcf")) as file:
        assert [[*record.filter] for record in file] == [[], ["low"]]


def test_records_outside_the_region_stay_bare(
    store: Scores, tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    vcf = Path(shutil.copy(Path(store.path).parent / "v.vcf", tmp_path))
    part = score(vcf, tiny_genome, tiny_model, region="1:1050-1500")
    counts = export(part.path, tmp_path / "x.vcf.gz", options=ExportOptions(by="kind"))
    assert sum(counts.values()) == len(part) == 6
    found = info(tmp_path / "x.vcf.gz")
    assert found[:2] == [{}, {}]
    assert found[2:6] == expected(part)
    assert found[6:] == [{}] * 6
    assert [without_ours(line) for line in records(tmp_path / "x.vcf.gz")] == records(vcf)


def test_a_merged_store_annotates_each_of_its_files(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    stores = []
    for name, chosen in (("a", RECORDS[:3]), ("b", RECORDS[4:6])):
        (tmp_path / name).mkdir()
        vcf = write_variants(tmp_path / name / f"{name}.vcf", tiny_sequences, *chosen)
        stores.append(score(vcf, tiny_genome, tiny_model).path)
    merge(stores, tmp_path / "all.zarr")
    with pytest.raises(ExportError, match=r"holds the rows of 2 files.*choose one with --vcf"):
        export(tmp_path / "all.zarr", tmp_path / "x.vcf.gz")
    for name, own in zip("ab", stores, strict=True):
        vcf, out = tmp_path / name / f"{name}.vcf", tmp_path / f"{name}.vcf.gz"
        export(tmp_path / "all.zarr", out, options=ExportOptions(by="kind", vcf=vcf))
        assert info(out) == expected(open_scores(own))


def test_only_the_original_is_annotated(
    store: Scores, tmp_path: Path, tiny_sequences: dict[str, str]
) -> None:
    out, other = tmp_path / "x.vcf.gz", tmp_path / "other.vcf"
    write_variants(other, tiny_sequences)
    with pytest.raises(ExportError, match=r"other.vcf is not the file that was scored: its sha256"):
        export(store.path, out, options=ExportOptions(vcf=other))
    with pytest.raises(ExportError, match=r"none.vcf can't be read: No such file"):
        export(store.path, out, options=ExportOptions(vcf=tmp_path / "none.vcf"))
    moved = Path(shutil.copy(Path(store.path).parent / "v.vcf", tmp_path / "moved.vcf"))
    export(store.path, out, options=ExportOptions(by="kind", vcf=moved))
    assert info(out) == expected(store)


def test_an_original_that_is_gone_or_no_vcf(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    table, base = tmp_path / "v.tsv", tiny_sequences["1"][1000].upper()
    table.write_text(f"chrom\tpos\tref\talt\n1\t1001\t{base}\t{'C' if base == 'A' else 'A'}\n")
    store = score(table, tiny_genome, tiny_model)
    with pytest.raises(ExportError, match=r"v.tsv is no VCF"):
        export(store.path, tmp_path / "x.vcf.gz")
    table.unlink()
    with pytest.raises(ExportError, match=r"v.tsv, which is no file here: .*--vcf"):
        export(store.path, tmp_path / "x.vcf.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scores.zarr"]


def test_an_annotated_vcf_can_be_annotated_again(
    store: Scores, tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    export(store.path, tmp_path / "x.vcf.gz", options=ExportOptions(by="kind"))
    again = score(tmp_path / "x.vcf.gz", tiny_genome, tiny_model)
    with pytest.raises(ExportError, match=r"field scbasset_\w+: choose another --prefix"):
        export(again.path, tmp_path / "y.vcf.gz")
    options = ExportOptions(prefix="more", overwrite=True)
    with pytest.raises(ExportError, match=r"x.vcf.gz is the VCF that was scored"):
        export(again.path, tmp_path / "x.vcf.gz", options=options)
    export(again.path, tmp_path / "y.vcf.gz", options=ExportOptions(prefix="more"))
    kept = [without_ours(line, "more_") for line in records(tmp_path / "y.vcf.gz")]
    assert kept == records(tmp_path / "x.vcf.gz")
    for prefix in ("1x", "a b", "", "a;b", "a%s"):
        with pytest.raises(ExportError, match="must be letters"):
            export(again.path, tmp_path / "z.vcf.gz", options=ExportOptions(prefix=prefix))


def test_records_out_of_order_keep_it_and_have_no_index(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    vcf = write_variants(tmp_path / "v.vcf", tiny_sequences, *RECORDS[2::-1])
    store = score(vcf, tiny_genome, tiny_model)
    for ending in (".vcf.gz", ".bcf"):
        with caplog.at_level(logging.WARNING):
            export(store.path, tmp_path / f"x{ending}", options=ExportOptions(by="kind"))
        assert f"x{ending} has no index" in caplog.text
        assert info(tmp_path / f"x{ending}") == expected(store)
    assert not [*tmp_path.glob("*.tbi"), *tmp_path.glob("*.csi")]


def test_names_are_quoted_in_the_header(store: Scores, tmp_path: Path) -> None:
    labels = ['a "b" \\c', "ä\tö", "ä ö", "ä ö", None]
    out = tmp_path / "x.bcf"
    export(store.path, out, options=ExportOptions(by=labels))
    with pysam.VariantFile(str(out)) as file:
        added = [name for name in file.header.info if name.startswith("scbasset")]
    assert added == ["scbasset_status", "scbasset_a__b___c", "scbasset____", "scbasset_____2"]
    assert len(KINDS) == len(labels)


def test_the_binary_of_bcftools_reads_it(store: Scores, tmp_path: Path) -> None:
    if shutil.which("bcftools") is None:
        pytest.skip("bcftools is not installed (Debian: apt-get install bcftools)")
    for ending in (".vcf.gz", ".bcf"):
        export(store.path, tmp_path / f"x{ending}", options=ExportOptions(by="kind"))
        command = ["bcftools", "query", "-r", "1:1001", "-f", "%scbasset_status"]
        out = subprocess.run(
            [*command, str(tmp_path / f"x{ending}")], capture_output=True, text=True, check=True
        )
        assert out.stdout.strip() == "SCORED"
        assert not out.stderr
