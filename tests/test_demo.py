"""The packaged model, genome and variants belong together, and the demo runs on them anywhere."""

import logging
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from scbasset_ism import demo, vcf
from scbasset_ism.cells import read_cells
from scbasset_ism.checkpoint import DEMO_DATA, load_model
from scbasset_ism.cli import main
from scbasset_ism.errors import ScbassetError
from scbasset_ism.genome import Genome
from scbasset_ism.reader import open_scores
from scbasset_ism.variants import Status

FIRST, LAST = 55_900_001, 57_700_000  # known bases of chr20, 1-based
N_CELLS = 164


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    demo.copy_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def genome(inputs: Path) -> Genome:
    return Genome(inputs / demo.GENOME)


@pytest.fixture(scope="module")
def records(inputs: Path, genome: Genome) -> list[vcf.Record]:
    return list(vcf.read(inputs / demo.VARIANTS, genome))


def is_example(record: vcf.Record) -> bool:
    return record.id.startswith("example_")


def call(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def test_the_genome_is_a_slice_at_true_coordinates(genome: Genome) -> None:
    assert genome.contigs == {"20": 63_025_520}
    known = genome.text("20", FIRST - 1, LAST)
    assert "N" not in known
    # The first codons of TUBB1 (MREIV), and rs737092.
    assert genome.text("20", 57_594_577, 57_594_592) == "ATGCGTGAAATTGTC"
    assert genome.text("20", 55_990_404, 55_990_405) == "T"
    for start, stop in [(0, FIRST - 1), (LAST, 63_025_520)]:
        assert set(genome.text("20", start, stop)) == {"N"}


def test_real_variants_are_scored_with_their_whole_window(records: list[vcf.Record]) -> None:
    real = [record for record in records if not is_example(record)]
    assert len(real) > 300
    assert {record.status for record in real} == {Status.SCORED}
    assert all(FIRST + 672 <= record.pos <= LAST - 672 - 1 for record in real)
    kinds = Counter(len(record.alt) - len(record.ref) for record in real)
    assert kinds[0] > 250
    assert sum(kinds[n] for n in kinds if n > 0) >= 5
    assert sum(kinds[n] for n in kinds if n < 0) >= 5
    assert any(record.alt_index > 1 for record in real)
    assert any(len(record.ref) == len(record.alt) > 1 for record in real)
    known = {record.id: record for record in real}
    assert (known["rs737092"].pos, known["rs737092"].alt) == (55_990_405, "C")


def test_examples_show_every_status_that_a_file_can_cause(records: list[vcf.Record]) -> None:
    examples = [record for record in records if is_example(record)]
    never = {Status.SCORED, Status.FAILED, Status.INCOMPLETE}
    assert {record.status for record in examples} == {*Status} - never


def test_examples_are_marked(inputs: Path) -> None:
    lines = (inputs / demo.VARIANTS).read_text().splitlines()
    fields = [line.split("\t") for line in lines if not line.startswith("#")]
    assert all(
        (f[2].startswith("example_"), f[7]) in [(True, "EXAMPLE"), (False, ".")] for f in fields
    )
    assert [(f[0], int(f[1])) for f in fields] == sorted((f[0], int(f[1])) for f in fields)


def test_what_is_packaged_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in DEMO_DATA.rglob("*") if path.is_file()}
    assert sizes["model.safetensors"] < 6e6
    assert sizes["genome.fa.gz"] < 7e5
    assert sum(sizes.values()) < 7e6


def test_cells_are_named() -> None:
    cells = read_cells(DEMO_DATA / "model" / "cells.tsv", N_CELLS)
    assert list(cells) == ["name", "tissue", "source"]
    assert cells["name"].is_unique
    assert not cells.isna().any(axis=None)
    assert (cells == cells.apply(lambda column: column.str.strip())).all(axis=None)
    assert cells["source"].value_counts().to_dict() == {"ENCODE": 125, "Roadmap": 39}
    assert cells["tissue"].nunique() < 25
    assert cells.loc["UwdukeK562"].tolist() == [
        "K562 (chronic myeloid leukemia)",
        "blood",
        "ENCODE",
    ]


def test_the_model_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()  # a folder of this name does not stand in for it
    with caplog.at_level(logging.WARNING):
        model = load_model("demo")
    (line,) = caplog.messages
    for words in ("bulk DNase-seq", "164", "hg19", "chr20, chr22 and chrX", "single cells"):
        assert words in line
    assert model.config.n_cells == N_CELLS
    assert model.provenance["source"] == "demo"
    cells = pd.read_csv(DEMO_DATA / "model" / "cells.tsv", sep="\t", index_col="cell_id")
    pd.testing.assert_frame_equal(model.cells, cells)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("demo")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "scbasset-ism-demo"
    assert {path.suffix for path in folder.iterdir()} == {
        ".gz",
        ".fai",
        ".gzi",
        ".vcf",
        ".zarr",
        ".svg",
        ".html",
    }
    scores = open_scores(folder / "scores.zarr")
    assert scores.attributes["counts"]["SCORED"] == len(scores) - 10
    for words in (
        "the demo model: bulk DNase-seq",
        "2 REF_MISMATCH",
        "scores.zarr",
        "--model demo",
    ):
        assert words in result.output
    rows = result.stdout.split("\n\n", maxsplit=1)[0].splitlines()
    assert len(rows) == 1 + 8 * 3
    assert max(map(len, rows)) <= 100
    first = scores.strongest(1, 1).iloc[0]
    about = scores.variants().iloc[first["row"]]
    for text in (about["variant_id"], f"{first['delta_logit']:+.2f}"):
        assert text in rows[1].split()
    assert scores.cells.loc[first["cell_id"], "tissue"] in rows[1]
    picture = ET.parse(folder / "ism.svg").getroot()
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}path"))) > 200
    for store in ("scores.zarr", "ism.zarr"):
        assert call("verify", str(folder / store)).exit_code == 0


def test_without_a_score_there_is_no_picture(tmp_path: Path) -> None:
    demo.copy_inputs(tmp_path)
    lines = (tmp_path / "variants.vcf").read_text().splitlines()
    kept = [line for line in lines if line.startswith("#") or "<DEL>" in line]
    (tmp_path / "variants.vcf").write_text("\n".join(kept) + "\n")
    result = call("demo", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "ism.svg").exists()


def test_without_the_extra_there_is_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scbasset_ism.figures", None)
    result = call("demo", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "pip install 'scbasset-ism[plot]'" in result.output
    assert (tmp_path / "ism.zarr").exists()


def test_the_files_of_the_folder_are_scored_again(tmp_path: Path) -> None:
    demo.copy_inputs(tmp_path)
    lines = (tmp_path / demo.VARIANTS).read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.startswith("#") or "\trs737092\t" in line]
    (tmp_path / demo.VARIANTS).write_text("".join(kept))
    for _ in range(2):
        scores = demo.run(tmp_path)
        assert scores.variants().index.tolist() == ["20:55990405:T:C"]
        assert len(demo.table(scores).splitlines()) == 4


def test_the_folder_is_enough_for_score(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inputs)
    result = call("score", "variants.vcf", "--model", "demo", "-o", "again.zarr", "--quiet")
    assert result.exit_code == 0, result.output
    assert result.output.startswith("the demo model: ")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ScbassetError, match=r"can't be written .*: name another folder"):
            demo.run(path)


def test_long_names_leave_the_table_narrow() -> None:
    lines = [demo._HEAD, ("rs1", "20:1", "A>C", "-0.10", "x" * 90, "kidney and bladder")]
    table = demo._aligned(lines)
    assert max(map(len, table)) == 100
    assert table[1].endswith("xxx...  kidney and bladder")
