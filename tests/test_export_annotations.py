"""Annotations have the rows of the .bim, in its order, and absolute deltas of the right rows."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import TINY_CONFIG
from scored import score, values_of, write_variants

from scbasset_ism import export_annotations
from scbasset_ism.errors import ExportError
from scbasset_ism.export_annotations import match, read_bim
from scbasset_ism.exporting import ExportOptions, export
from scbasset_ism.genome import Genome
from scbasset_ism.model import random_model
from scbasset_ism.reader import Scores

NAMES = ["B_cell", "T_NK", "status"]
SCORED = [0, 1, 2, 3, 4, 6, 10, 11]  # rows of the store


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, tiny_fasta: Path, tiny_sequences: dict[str, str]
) -> Scores:
    vcf = write_variants(tmp_path_factory.mktemp("scores") / "v.vcf", tiny_sequences)
    return score(vcf, Genome(tiny_fasta), random_model(TINY_CONFIG))


def write_bim(path: Path, store: Scores, rows: list[int], chrom: str = "{}") -> Path:
    """A .bim of some rows of a store, every other one with the alleles the other way around."""
    variants = store.variants()
    lines = []
    for i, row in enumerate(rows):
        one = variants.iloc[row]
        alleles = [one["variant_alt"], one["variant_ref"].lower()][:: 1 if i % 2 else -1]
        place = chrom.format(one["chrom"]), f"name{row}", f"0.{row}", one["variant_position"]
        lines.append("\t".join(map(str, [*place, *alleles])) + "\n")
    path.write_text("".join(lines))
    return path


def read(path: Path) -> pd.DataFrame:
    """As the tools do: white space between, or Parquet."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    return pd.read_csv(path, sep=r"\s+", dtype={"CM": str}, float_precision="round_trip")


@pytest.mark.parametrize("ending", [".annot.gz", ".annot.parquet"])
@pytest.mark.parametrize("rows", [SCORED, SCORED[::-1], [6, 6, 0]], ids=["all", "back", "twice"])
def test_rows_and_values(ending: str, rows: list[int], store: Scores, tmp_path: Path) -> None:
    bim, out = write_bim(tmp_path / "x.bim", store, rows), tmp_path / f"x{ending}"
    assert export(store.path, out, options=ExportOptions(by="kind", bim=bim)) == {
        "SCORED": len(rows)
    }
    table, own = read(out), read_bim(bim)
    head = ["CHR", "BP", "SNP", *(["CM"] if ending == ".annot.gz" else ["A1", "A2"])]
    assert list(table) == [*head, *NAMES]
    for name in head:
        assert table[name].astype(str).tolist() == own[name].astype(str).tolist()
    assert table["CHR"].dtype == table["BP"].dtype == np.int64
    means = store.group_mean("kind").to_numpy()
    assert (means[SCORED] < 0).any()
    means = means[rows]
    np.testing.assert_allclose(values_of(table, NAMES), np.abs(means), rtol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(values_of(table, NAMES), np.abs(means[::-1]), rtol=1e-5)


def test_rows_without_a_score(store: Scores, tmp_path: Path) -> None:
    bim = write_bim(tmp_path / "x.bim", store, [0, 9, 1])
    with bim.open("a") as file:
        file.write("1 new 0 77 A C\n1 other-alleles 0 3 AC ACC\n")
    out = tmp_path / "x.annot.gz"
    message = (
        r"3 of 5 rows have no score in .*\(1 NON_ACGT, 2 NOT_IN_STORE\), the first is name9 at "
        r"1:1601 [ACGTR]/[acgtR]: score them too, or let them be 0 with --allow-missing"
    )
    with pytest.raises(ExportError, match=message):
        export(store.path, out, options=ExportOptions(by="kind", bim=bim))
    assert not out.exists()
    counts = export(store.path, out, options=ExportOptions(by="kind", bim=bim, allow_missing=True))
    assert counts == {"SCORED": 2, "NOT_IN_STORE": 2, "NON_ACGT": 1}
    values = values_of(read(out), NAMES)
    assert (values[[1, 3, 4]] == 0).all()
    assert (values[[0, 2]] > 0).all()


@pytest.mark.parametrize("ending", [".annot.gz", ".annot.parquet"])
def test_another_assembly_is_no_matter_of_missing_rows(
    ending: str, store: Scores, tmp_path: Path
) -> None:
    bim = write_bim(tmp_path / "x.bim", store, SCORED, chrom="7{}")
    options = ExportOptions(by="kind", bim=bim, allow_missing=True)
    with pytest.raises(ExportError, match=r"8 of 8 rows .* is it of another assembly\?"):
        export(store.path, tmp_path / f"x{ending}", options=options)


def test_names_of_contigs(store: Scores, tmp_path: Path) -> None:
    bim = write_bim(tmp_path / "x.bim", store, SCORED, chrom="chr{}")
    out = tmp_path / "x.annot.parquet"
    export(store.path, out, options=ExportOptions(by="kind", bim=bim))
    assert read(out)["CHR"].tolist() == ["chr1"] * 7 + ["chr2"]
    assert match(read_bim(bim), store)[0].tolist() == SCORED


def test_plink_numbers_some_contigs(
    tmp_path: Path, tiny_fasta: Path, tiny_sequences: dict[str, str]
) -> None:
    vcf = write_variants(tmp_path / "v.vcf", tiny_sequences, "MT 100 m {100} {100!}")
    store = score(vcf, Genome(tiny_fasta), random_model(TINY_CONFIG))
    bim = write_bim(tmp_path / "x.bim", store, [0])
    bim.write_text(bim.read_text().replace("MT", "26", 1))
    assert match(read_bim(bim), store)[0].tolist() == [0]


def test_a_row_with_a_score_is_preferred(
    tmp_path: Path, tiny_fasta: Path, tiny_sequences: dict[str, str]
) -> None:
    records = ["1 1001 wrong {1001!} {1001}", "1 1001 a {1001} {1001!}", "1 1001 b {1001} {1001!}"]
    store = score(
        write_variants(tmp_path / "v.vcf", tiny_sequences, *records, *RIGHT),
        Genome(tiny_fasta),
        random_model(TINY_CONFIG),
    )
    bim = read_bim(write_bim(tmp_path / "x.bim", store, [0]))
    assert [part.tolist() for part in match(bim, store)] == [[1], ["SCORED"]]


RIGHT = [f"1 {i} r{i} {{{i}}} {{{i}!}}" for i in range(1100, 1120)]  # a tenth may mismatch


def test_small_blocks_give_the_same(
    store: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bim = write_bim(tmp_path / "x.bim", store, SCORED[::-1])
    for name, rows, values in (("whole", 1 << 14, 1 << 19), ("cut", 3, 7)):
        monkeypatch.setattr(export_annotations, "TABLE_ROWS", rows)
        monkeypatch.setattr(export_annotations, "TEXT_VALUES", values)
        for ending in (".annot.gz", ".annot.parquet"):
            out = tmp_path / f"{name}{ending}"
            export(store.path, out, options=ExportOptions(by="kind", bim=bim))
    for ending in (".annot.gz", ".annot.parquet"):
        whole, cut = (read(tmp_path / f"{name}{ending}") for name in ("whole", "cut"))
        pd.testing.assert_frame_equal(whole, cut, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No columns to parse"),
        ("1 a 0 5 A\n", "it has 5 columns"),
        ("1 a 0 x A C\n", "invalid literal"),
        ("1 a 0 5 A C\n1 a 0 5 A C 7\n", "Expected 6 fields"),
        (None, "No such file"),
    ],
    ids=["empty", "five", "text", "ragged", "gone"],
)
def test_files_that_are_no_bim(
    text: str | None, message: str, store: Scores, tmp_path: Path
) -> None:
    bim = tmp_path / "x.bim"
    if text is not None:
        bim.write_text(text)
    with pytest.raises(ExportError, match=rf"x.bim can't be read as a .bim.*{message}"):
        export(store.path, tmp_path / "x.annot.gz", options=ExportOptions(bim=bim))


def test_the_text_is_gzip_with_tabs(store: Scores, tmp_path: Path) -> None:
    bim = write_bim(tmp_path / "x.bim", store, [0])
    export(store.path, tmp_path / "x.annot.gz", options=ExportOptions(bim=bim))
    header, row = gzip.decompress((tmp_path / "x.annot.gz").read_bytes()).decode().splitlines()
    assert header == "CHR\tBP\tSNP\tCM\tmean"
    assert row.startswith("1\t3\tname0\t0.0\t0.")
