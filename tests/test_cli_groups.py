"""The commands that ask groups of cells: what they print, and one sentence for what is wrong."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import write_vcf
from fake_scores import FINGERPRINT, write_scores

from scbasset_ism.checkpoint import save_checkpoint
from scbasset_ism.cli import main
from scbasset_ism.model import Scbasset
from scbasset_ism.reader import open_scores

Run = Callable[..., Result]
RNG = np.random.default_rng(1)
WEIGHT = RNG.normal(size=(6, 3))
CELLS = pd.DataFrame(
    {"type": list("aabbbb"), "time": np.arange(6.0)},
    index=pd.Index([f"c{i}" for i in range(6)], dtype=object, name="cell_id"),
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs commands beside a store, a background and another model's background."""
    monkeypatch.chdir(tmp_path)
    delta = RNG.normal(size=(4, 3))
    delta[1] = np.nan
    write_scores(tmp_path / "s.zarr", delta, WEIGHT, cells=CELLS)
    common = RNG.normal(size=(150, 3))
    write_scores(tmp_path / "b.zarr", common, WEIGHT, cells=CELLS)
    other = FINGERPRINT | {"model weights": "other"}
    write_scores(tmp_path / "o.zarr", common, WEIGHT, cells=CELLS, fingerprint=other)
    return lambda *args: CliRunner().invoke(main, args)


def table_of(result: Result) -> pd.DataFrame:
    assert result.exit_code == 0, result.output
    return pd.read_csv(io.StringIO(result.stdout), sep="\t")


def test_groups_to_standard_output(run: Run) -> None:
    result = run("groups", "s.zarr", "--by", "type")
    table = table_of(result)
    assert table["row"].tolist() == [0, 0, 2, 2, 3, 3]
    assert set(table["group"]) == {"a", "b"}
    assert "z" not in table
    assert "1 rows of s.zarr have no score" in result.stderr


def test_groups_to_a_file(run: Run, tmp_path: Path) -> None:
    options = ("--by", "type", "--background", "b.zarr", "--top", "1", "-q")
    result = run("groups", "s.zarr", *options, "-o", "out/t.parquet")
    assert (result.exit_code, result.output) == (0, "")
    table = pd.read_parquet(tmp_path / "out/t.parquet")
    assert table["rank"].tolist() == [1, 1, 1]
    assert table["percentile"].between(-100, 100).all()
    np.testing.assert_array_equal(np.sign(table["z"]), np.sign(table["mean"]))


def test_an_axis_and_a_query(run: Run) -> None:
    table = table_of(run("groups", "s.zarr", "--axis", "time", "--query", "type == 'b'"))
    assert table["n_cells"].tolist() == [4, 4, 4]
    alone = table_of(run("groups", "s.zarr", "--query", "type == 'b'"))
    assert alone["group"].unique().tolist() == ["type == 'b'"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        pytest.param((), 2, "which cells?", id="nothing"),
        pytest.param(("--by", "type", "--axis", "time"), 2, "which cells?", id="both"),
        pytest.param(("--axis", "time", "--top", "1"), 2, "--top is of groups", id="top-of-axis"),
        pytest.param(("--by", "tissue"), 1, "no column 'tissue'", id="column"),
        pytest.param(("--axis", "type"), 1, "holds no numbers", id="axis"),
        pytest.param(("--query", "type =="), 1, "no query of their columns", id="query"),
        pytest.param(("--by", "type", "--background", "o.zarr"), 1, "another model", id="model"),
        pytest.param(("--by", "type", "--background", "no.zarr"), 1, "not a store", id="no-store"),
    ],
)
def test_what_is_wrong(run: Run, options: tuple[str, ...], code: int, words: str) -> None:
    result = run("groups", "s.zarr", *options)
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert result.output.strip().splitlines()[-1].startswith("Error: ")
    assert words in result.output


def test_calibrate_a_store(run: Run) -> None:
    result = run("calibrate", "b.zarr", "--by", "type")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["50%", "90%", "95%", "99%", "99.9%"]
    assert [line[:20].strip() for line in lines[1:]] == [
        "mean of all cells",
        "largest of 6 cells",
        "type: a",
        "type: b",
        "largest of 2 groups",
    ]


def test_calibrate_variants_and_score_with_them(
    run: Run, tmp_path: Path, tiny_fasta: Path, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    save_checkpoint(tiny_model, tmp_path / "model")
    bases = tiny_sequences["2"]
    records = [f"2 {p} . {bases[p - 1]} {bases[p - 1]}A" for p in range(1000, 1100)]
    write_vcf(tmp_path / "common.vcf", *records)
    options = ("--genome", str(tiny_fasta), "--model", "model")
    result = run("calibrate", "common.vcf", *options)
    assert result.exit_code == 0, result.output
    assert "100 SCORED" in result.stderr
    assert open_scores(tmp_path / "common.zarr").attributes["layout"] == "factored"
    assert run("calibrate", "common.zarr").stdout == result.stdout
    write_vcf(tmp_path / "v.vcf", *records[:2])
    assert run("score", "v.vcf", *options, "--background", "common.zarr").exit_code == 0
    assert "delta_logit_rms_percentile" in open_scores(tmp_path / "v.zarr").variants()
    wrong = run("score", "v.vcf", *options, "--background", "b.zarr", "-o", "w.zarr")
    assert wrong.exit_code == 1
    assert "another model" in wrong.output
