"""Tables are read again by pandas, pyarrow, tabix and bcftools, and hold what the store holds."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pysam.bcftools
import pytest
from conftest import TINY_CONFIG
from pyarrow import parquet
from scored import KINDS, STATUSES, score, values_of, write_variants

from scbasset_ism import columns, export_annotations, export_tables, outputs
from scbasset_ism.errors import ExportError, StoreError
from scbasset_ism.exporting import FORMATS, ExportOptions, export
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset, random_model
from scbasset_ism.reader import Scores

HEAD = ["chrom", "pos", "ref", "alt", "id", "status"]
GROUPS = ["B cell", "T/NK", "status_2"]  # the last is `status` in the table of the cells


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, tiny_fasta: Path, tiny_sequences: dict[str, str]
) -> Scores:
    vcf = write_variants(tmp_path_factory.mktemp("scores") / "v.vcf", tiny_sequences)
    return score(vcf, Genome(tiny_fasta), random_model(TINY_CONFIG))


def read_tsv(path: Path, missing: str = "NA") -> pd.DataFrame:
    return pd.read_csv(
        path,
        sep="\t",
        dtype={"chrom": str, "#chrom": str},
        keep_default_na=False,
        na_values={name: missing for name in [*GROUPS, *(f"cell-{i}" for i in range(5)), "mean"]},
        float_precision="round_trip",
        compression="gzip" if path.suffix != ".tsv" else None,
    )


def check(table: pd.DataFrame, store: Scores) -> None:
    """Compare a table with the store's own answers."""
    variants, means = store.variants(), store.group_mean("kind")
    assert list(table) == [*HEAD, *GROUPS]
    assert table["chrom"].tolist() == variants["chrom"].tolist()
    for name in ("ref", "alt", "id"):
        assert table[name].tolist() == variants[f"variant_{name}"].tolist()
    assert table["pos"].tolist() == variants["variant_position"].tolist()
    assert table["status"].tolist() == STATUSES
    np.testing.assert_array_equal(values_of(table, GROUPS), means.to_numpy())
    assert (table[GROUPS[0]].notna() == (table["status"] == "SCORED")).all()
    assert np.nanmin(np.abs(values_of(table, GROUPS))) > 1e-4
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(values_of(table, GROUPS[::-1]), means.to_numpy())


def test_tsv(store: Scores, tmp_path: Path) -> None:
    counts = export(store.path, tmp_path / "x.tsv", options=ExportOptions(by="kind"))
    assert counts == pd.Series(STATUSES).value_counts().to_dict()
    check(read_tsv(tmp_path / "x.tsv"), store)


def test_parquet(store: Scores, tmp_path: Path) -> None:
    export(store.path, tmp_path / "x.parquet", options=ExportOptions(by="kind"))
    check(pd.read_parquet(tmp_path / "x.parquet"), store)
    table = parquet.read_table(tmp_path / "x.parquet")
    assert str(table.schema.field("B cell").type) == "float"
    assert table["B cell"].null_count == len(STATUSES) - STATUSES.count("SCORED")


@pytest.mark.parametrize("ending", [".tsv.gz", ".tsv.bgz"])
def test_tsv_with_an_index(ending: str, store: Scores, tmp_path: Path) -> None:
    out = tmp_path / f"x{ending}"
    export(store.path, out, options=ExportOptions(by="kind"))
    table = read_tsv(out, missing=".").rename(columns={"#chrom": "chrom"})
    check(table, store)
    with pysam.TabixFile(str(out)) as file:
        assert file.header == ["\t".join(["#chrom", *HEAD[1:], *GROUPS])]
        assert file.contigs == ["1", "2", "9"]
        found = [row.split("\t") for row in file.fetch("1", 1499, 1600)]
    assert [(row[1], row[3], row[5]) for row in found] == [
        ("1500", "<DEL>", "SYMBOLIC"),
        ("1500", table["alt"][6], "SCORED"),
        ("1500", "*", "SPANNING_DELETION"),
        ("1600", ".", "MISSING_ALT"),
    ]
    assert found[0][6:] == [".", ".", "."]


def test_the_binary_of_tabix_reads_it(store: Scores, tmp_path: Path) -> None:
    if shutil.which("tabix") is None:
        pytest.skip("tabix is not installed (Debian: apt-get install tabix)")
    export(store.path, tmp_path / "x.tsv.gz", options=ExportOptions(by="kind"))
    command = ["tabix", str(tmp_path / "x.tsv.gz"), "2:1500-1500"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split("\t")[:2] == ["2", "1500"]


def test_bcftools_annotates_with_it(store: Scores, tmp_path: Path) -> None:
    out, header = tmp_path / "x.tsv.gz", tmp_path / "header.txt"
    export(store.path, out, options=ExportOptions(cells=["cell-1"]))
    header.write_text('##INFO=<ID=CELL,Number=A,Type=Float,Description="x">\n')
    names = "CHROM,POS,REF,ALT,-,-,CELL"
    arguments = [
        "-a",
        str(out),
        "-c",
        names,
        "-h",
        str(header),
        str(Path(store.path).parent / "v.vcf"),
    ]
    annotated = tmp_path / "annotated.vcf"
    annotated.write_text(pysam.bcftools.annotate(*arguments))
    expected = store.delta_logit[:, [1]][:, 0]
    with pysam.VariantFile(str(annotated)) as file:
        found = {record.id: record.info.get("CELL") for record in file}
    for row, name in ((0, "edge"), (1, "snv"), (4, "ins"), (11, "del2")):
        assert found[name] == pytest.approx((float(expected[row]),), rel=1e-5)
    assert found["off"] is None


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (ExportOptions(), ["mean"]),
        (ExportOptions(cells=["cell-3", "cell-0"]), ["cell-3", "cell-0"]),
        (ExportOptions(cells=[4]), ["cell-4"]),
        (ExportOptions(by="cell_id"), [f"cell-{i}" for i in range(5)]),
    ],
    ids=["mean", "ids", "number", "every-cell"],
)
def test_cells(options: ExportOptions, names: list[str], store: Scores, tmp_path: Path) -> None:
    export(store.path, tmp_path / "x.tsv", options=options)
    table = read_tsv(tmp_path / "x.tsv")
    assert list(table) == [*HEAD, *names]
    dense = pd.DataFrame(store.delta_logit[:, :], columns=store.cells.index)
    dense["mean"] = dense.mean(axis=1)
    np.testing.assert_allclose(table[names], dense[names], rtol=1e-5, atol=1e-7)


def test_labels_of_the_caller(store: Scores, tmp_path: Path) -> None:
    export(store.path, tmp_path / "x.tsv", options=ExportOptions(by=[2, 1, 2, 1, 1]))
    table = pd.read_csv(tmp_path / "x.tsv", sep="\t", float_precision="round_trip")
    means = store.group_mean([2, 1, 2, 1, 1])
    np.testing.assert_array_equal(values_of(table, ["1", "2"]), means.to_numpy())


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz"])
def test_small_blocks_give_the_same(
    ending: str, store: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(store.path, tmp_path / f"whole{ending}", options=ExportOptions(by="kind"))
    monkeypatch.setattr(columns, "TABLE_ROWS", 4)
    monkeypatch.setattr(export_tables, "TEXT_VALUES", 9)
    export(store.path, tmp_path / f"cut{ending}", options=ExportOptions(by="kind"))
    missing = "NA" if ending == ".tsv" else "."
    whole, cut = (read_tsv(tmp_path / f"{name}{ending}", missing) for name in ("whole", "cut"))
    # Products of fewer rows may round otherwise in the last digit.
    pd.testing.assert_frame_equal(whole, cut, rtol=1e-5)


@pytest.mark.parametrize("n_rows", [1, 3, 4, 5, 14])
def test_blocks_hold_every_row_once(
    n_rows: int, store: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = columns.choose_columns(store, "kind")
    monkeypatch.setattr(columns, "TABLE_ROWS", 4)
    for first in range(14 - n_rows + 1):
        rows = range(first, first + n_rows)
        found = [*columns.blocks(store, chosen, rows, most=6)]
        assert max(len(block.table) for block in found) <= 2
        expected = store.row_names[first : first + n_rows].tolist()
        assert [name for block in found for name in block.table.index] == expected
        values = np.concatenate([block.values for block in found])
        means = store.group_mean("kind", slice(first, first + n_rows)).to_numpy()
        np.testing.assert_allclose(values, means, rtol=1e-5)


@pytest.mark.parametrize("ending", [".tsv", ".tsv.gz", ".parquet", ".vcf.gz", ".bcf"])
def test_a_store_without_rows(
    ending: str,
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
) -> None:
    vcf = tmp_path / "none.vcf"
    vcf.write_text(
        "##fileformat=VCFv4.2\n##contig=<ID=1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    )
    empty, out = score(vcf, tiny_genome, tiny_model), tmp_path / f"x{ending}"
    assert export(empty.path, out, options=ExportOptions(by="kind")) == {}
    if ending == ".parquet":
        assert list(pd.read_parquet(out)) == [*HEAD, *GROUPS]
    elif ".tsv" in ending:
        assert len(read_tsv(out)) == 0
    else:
        with pysam.VariantFile(str(out)) as file:
            assert [*file] == []


def test_tabix_needs_sorted_rows(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    records = ["1 1100 b {1100} {1100!}", "1 1001 a {1001} {1001!}"]
    score(write_variants(tmp_path / "v.vcf", tiny_sequences, *records), tiny_genome, tiny_model)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ExportError, match="1:1001 comes after 1:1100"):
        export(tmp_path / "scores.zarr", tmp_path / "x.tsv.gz")
    assert sorted(tmp_path.iterdir()) == before
    export(tmp_path / "scores.zarr", tmp_path / "x.tsv")
    order = [
        "2 1100 b {2:1100} {2:1100!}",
        "1 1001 a {1001} {1001!}",
        "2 1200 c {2:1200} {2:1200!}",
    ]
    score(write_variants(tmp_path / "v.vcf", tiny_sequences, *order[:2]), tiny_genome, tiny_model)
    export(tmp_path / "scores.zarr", tmp_path / "x.tsv.gz")
    score(write_variants(tmp_path / "v.vcf", tiny_sequences, *order), tiny_genome, tiny_model)
    with pytest.raises(ExportError, match="2:1200 comes after 1:1001"):
        export(tmp_path / "scores.zarr", tmp_path / "y.tsv.gz")


def test_a_file_is_replaced_on_demand(store: Scores, tmp_path: Path) -> None:
    out = tmp_path / "x.tsv.gz"
    export(store.path, out)
    before = out.read_bytes()
    with pytest.raises(ExportError, match=r"x.tsv.gz exists: .*--overwrite"):
        export(store.path, out, options=ExportOptions(by="kind"))
    assert out.read_bytes() == before
    export(store.path, out, options=ExportOptions(by="kind", overwrite=True))
    assert out.read_bytes() != before
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(ExportError, match="is no file"):
        export(store.path, tmp_path / "folder.tsv", options=ExportOptions(overwrite=True))


def test_an_old_index_goes_with_its_file(store: Scores, tmp_path: Path) -> None:
    out = tmp_path / "x"
    for name in ("x", "x.tbi", "x.csi"):
        (tmp_path / name).write_text("old")
    with outputs.written(out, overwrite=True) as path:
        path.write_text("new")
        path.with_name("x.csi").write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.glob("x*")} == {"x": "new", "x.csi": "new"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_is_left(
    error: BaseException, store: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(export_tables, "_lines", lambda *_, **__: (_ for _ in ()).throw(error))
    expected = ExportError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"No space left|^$"):
        export(store.path, tmp_path / "x.tsv")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.txt", ExportOptions(), r"x.txt: what shall it be\? Names may end in .tsv"),
        ("x.tsv", ExportOptions(bim="b.bim"), "--bim belongs to .annot.gz and"),
        ("x.bcf", ExportOptions(allow_missing=True), "--allow-missing belongs to"),
        ("x.parquet", ExportOptions(vcf="v.vcf"), "--vcf belongs to .vcf.gz and .bcf"),
        ("x.annot.gz", ExportOptions(prefix="p"), "--prefix belongs to"),
        ("x.annot.gz", ExportOptions(), "give it with --bim"),
        ("x.tsv", ExportOptions(by="kind", cells=["cell-0"]), "one of --by and --cells"),
        ("x.tsv", ExportOptions(by=[""] * 5), "empty labels"),
        ("x.tsv", ExportOptions(cells=[]), "no cells are named"),
        ("no/x.tsv", ExportOptions(), "can't be written: No such file"),
    ],
)
def test_wrong_options(
    name: str, options: ExportOptions, message: str, store: Scores, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(store.path, tmp_path / name, options=options)


@pytest.mark.parametrize("options", [ExportOptions(by="x"), ExportOptions(cells=["x"])])
def test_unknown_columns_and_cells(options: ExportOptions, store: Scores, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'x'"):
        export(store.path, tmp_path / "x.tsv", options=options)


def test_parquet_without_pyarrow(
    store: Scores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ExportError, match=r"scbasset-ism\[parquet\]"):
        export(store.path, tmp_path / "x.parquet")


def test_the_docstring_names_every_format() -> None:
    assert export.__doc__ is not None
    assert all(ending in export.__doc__ for ending in FORMATS)
    assert len(KINDS) == 5
    assert export_annotations.NOT_IN_STORE in export.__doc__
