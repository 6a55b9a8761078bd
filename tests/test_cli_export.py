"""`export` as a command: options, what it prints, and how it fails."""

import gzip
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import TINY_CONFIG
from scored import STATUSES, score, write_variants

from scbasset_ism.cli import main
from scbasset_ism.genome import Genome
from scbasset_ism.model import random_model


@pytest.fixture
def store(
    tmp_path: Path,
    tiny_fasta: Path,
    tiny_sequences: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    vcf = write_variants(tmp_path / "v.vcf", tiny_sequences)
    monkeypatch.chdir(tmp_path)
    score(vcf, Genome(tiny_fasta), random_model(TINY_CONFIG))
    return "scores.zarr"


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["export", *args])


def test_counts_are_printed(store: str) -> None:
    result = run(store, "-o", "x.tsv", "--by", "kind")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[0] == [str(STATUSES.count("SCORED")), "SCORED"]
    assert lines[-1] == [str(len(STATUSES)), "rows", "in", "x.tsv"]
    assert run(store, "-o", "y.tsv", "-q").output == ""


def test_cells_are_ids_or_a_file_of_them(store: str) -> None:
    Path("ids.txt").write_text("cell-3\n\ncell-1\n")
    for name, cells in (("x", "cell-3, cell-1"), ("y", "ids.txt")):
        assert run(store, "-o", f"{name}.tsv", "--cells", cells).exit_code == 0
    assert Path("x.tsv").read_text() == Path("y.tsv").read_text()
    assert list(pd.read_csv("x.tsv", sep="\t"))[-2:] == ["cell-3", "cell-1"]


def test_every_option_arrives(store: str, tmp_path: Path) -> None:
    Path("v.vcf").rename("moved.vcf")
    arguments = ("--vcf", "moved.vcf", "--prefix", "mine", "--by", "kind")
    assert run(store, "-o", "x.vcf.gz", *arguments).exit_code == 0
    assert "mine_B_cell=" in gzip.decompress(Path("x.vcf.gz").read_bytes()).decode()
    again = run(store, "-o", "x.vcf.gz", *arguments)
    assert again.exit_code == 1
    assert again.output.startswith("Error: x.vcf.gz exists")
    assert run(store, "-o", "x.vcf.gz", "--overwrite", *arguments).exit_code == 0
    rows = [line.split("\t") for line in Path("moved.vcf").read_text().splitlines()]
    chosen = [row for row in rows if row[0] == "1" and row[2] in {"snv", "letters"}]
    Path("x.bim").write_text("".join(f"1 {r[2]} 0 {r[1]} {r[4]} {r[3]}\n" for r in chosen))
    result = run(store, "-o", "x.annot.gz", "--bim", "x.bim")
    assert result.exit_code == 1
    assert "--allow-missing" in result.output
    assert run(store, "-o", "x.annot.gz", "--bim", "x.bim", "--allow-missing").exit_code == 0
    assert pd.read_csv("x.annot.gz", sep="\t")["mean"].eq(0).tolist() == [False, True]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["-o", "x.txt"], 1, "Names may end in"),
        (["-o", "x.tsv", "--by", "no"], 1, "no column 'no'; they have 'kind'"),
        (["-o", "x.tsv", "--cells", "a"], 1, "0 cells named 'a'"),
        ([], 2, "Missing option"),
    ],
)
def test_wrong_input(args: list[str], code: int, message: str, store: str) -> None:
    result = run(store, *args)
    assert (result.exit_code, message in result.output) == (code, True), result.output
    assert not list(Path().glob("*x.t*"))


def test_other_stores_are_refused(store: str) -> None:
    result = run("nothing.zarr", "-o", "x.tsv")
    assert result.exit_code == 1
    assert result.output == "Error: nothing.zarr is not a store of scbasset-ism\n"


def test_an_interrupt_leaves_nothing(store: str) -> None:
    """Ctrl-C comes while the lines of a block are written."""
    code = (
        "import os, signal\n"
        "from scbasset_ism import export_tables\n"
        "from scbasset_ism.cli import main\n"
        "def stop(*_, **__):\n"
        "    print(*sorted(os.listdir()))\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "export_tables._lines = stop\n"
        f"main(['export', {store!r}, '-o', 'x.tsv'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert ".x.tsv." in done.stdout
    assert sorted(map(str, Path().iterdir())) == ["scores.zarr", "v.vcf"]
    assert "Traceback" not in done.stderr
