"""`train` and `evaluate` as commands: from files to a model that scores."""

import inspect
import json
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from scipy import io, sparse

from scbasset_ism import cli_train
from scbasset_ism.checkpoint import load_model
from scbasset_ism.cli import main
from scbasset_ism.recipe import Recipe

SMALL = ("--epochs", "2", "--channels", "6", "--bottleneck", "3", "--batch-size", "16", "-q")


@pytest.fixture
def folder(tmp_path: Path, tiny_fasta: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Peaks of the tiny genome as BED, Matrix Market and a table of cells."""
    rng = np.random.default_rng(0)
    peaks = pd.DataFrame({"chrom": "chr1", "start": np.arange(60) * 90})
    monkeypatch.chdir(tmp_path)
    peaks.assign(stop=peaks["start"] + 80).to_csv("peaks.bed", sep="\t", header=False, index=False)
    io.mmwrite("counts.mtx", sparse.coo_array((rng.random((60, 4)) < 0.4).astype(int)))
    Path("cells.tsv").write_text("barcode\ttype\na\tT\nb\tT\nc\tB\nd\tB\n")
    monkeypatch.setenv("SCBASSET_ISM_GENOME", str(tiny_fasta))
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(main, args)


DATA = ("peaks.bed", "--matrix", "counts.mtx", "--barcodes", "cells.tsv")
TRAIN = ("train", *DATA, "-o", "model", "--split", "random", *SMALL)


def test_from_files_to_scores(folder: Path) -> None:
    result = run(*TRAIN)
    assert result.exit_code == 0, result.output
    assert list(load_model("model").cells["type"]) == list("TTBB")
    result = run("evaluate", *DATA, "--model", "model", "--json", "-q")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["peaks"], found["cells"], found["cells_ranked"]) == (60, 4, 4)
    assert 0 <= found["cells_auroc"] <= 1
    result = run("evaluate", *DATA, "--model", "model", "--rc", "-q")
    assert "cells auroc" in result.stdout
    result = run("score", "1:1000:A:C", "1:1001:A:C", "--model", "model", "-o", "s.zarr", "-q")
    assert result.exit_code in (0, 1)
    assert "Traceback" not in result.output


def test_a_head_over_a_trunk(folder: Path) -> None:
    assert run(*TRAIN).exit_code == 0
    head = ("--init", "model", "--freeze", "trunk", "-o", "head")
    result = run("train", *DATA, "--split", "random", *SMALL, *head)
    assert result.exit_code == 0, result.output
    assert (load_model("head").dense.weight == load_model("model").dense.weight).all()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--resume",), 1, "no interrupted training"),
        (("--resume", "--overwrite"), 2, "give one of them"),
        (("--freeze", "trunk"), 1, "--init"),
        (("--init", "nothing"), 1, "there is no model nothing"),
        (("--test-regions", "peaks.bed"), 2, "--split random goes without"),
        (("--genome", "nothing.fa"), 1, "nothing.fa"),
    ],
    ids=["resume", "resume and overwrite", "freeze", "init", "regions", "genome"],
)
def test_what_goes_wrong_is_one_sentence(
    folder: Path, args: tuple[str, ...], code: int, words: str
) -> None:
    result = run(*TRAIN, *args)
    assert result.exit_code == code
    assert words in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_the_defaults_are_the_recipes() -> None:
    recipe = inspect.signature(Recipe).parameters
    options = {p.name: p.default for p in cli_train.train.params if isinstance(p, click.Option)}
    shared = {name: p.default for name, p in recipe.items() if name != "freeze_trunk"}
    assert {name: options[name] for name in shared} == shared
