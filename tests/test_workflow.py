"""The workflow runs on the demo, in parts; one that was killed goes on and ends with the same."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_CONFIG, write_vcf

from scbasset_ism import demo
from scbasset_ism.checkpoint import save_checkpoint
from scbasset_ism.model import random_model
from scbasset_ism.reader import open_scores

ROOT = Path(__file__).parents[1]
SNAKEMAKE = shutil.which("snakemake") or shutil.which(
    "snakemake", path=str(Path(sys.executable).parent)
)
pytestmark = pytest.mark.skipif(SNAKEMAKE is None, reason="needs the extra `workflow`")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the workflow, with `scbasset-ism` of this interpreter in the path."""
    shutil.copytree(ROOT / "workflows" / "finemapping", tmp_path / "w")
    program = tmp_path / "bin" / "scbasset-ism"
    program.parent.mkdir()
    code = "from scbasset_ism.cli import main; main()"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "w"


def start(folder, *args):
    command = [str(SNAKEMAKE), "--cores", "2", *args]
    with (folder / "snakemake.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stderr=log, stdout=log, start_new_session=True)


def test_the_demo_in_four_parts(folder):
    demo.copy_inputs(folder / "scbasset-ism-demo")
    assert start(folder).wait() == 0, (folder / "snakemake.log").read_text()[-3000:]
    results = folder / "results"
    names = {path.name for path in results.iterdir()}
    assert {"report.html", "exports", "finemap", "strongest.tsv"} <= names
    assert len(list((results / "parts").iterdir())) == 4
    assert {"scores.tsv.gz", "scores.vcf.gz"} <= {
        path.name for path in (results / "exports").iterdir()
    }
    scores = open_scores(results / "scores.zarr")
    assert scores.attributes["counts"]["SCORED"] == len(scores) == 307
    page = (results / "report.html").read_text()
    assert "made_up_trait_2" in page
    assert page.count("<figure") == 12
    assert len(page) < 5e6


def test_a_part_that_was_killed_goes_on(folder, tiny_fasta, tiny_sequences):
    bases = tiny_sequences["1"].upper()
    snvs = [
        f"1 {pos} . {bases[pos - 1]} {alt}"
        for pos in range(1, 6001)
        for alt in "ACGT"
        if bases[pos - 1] in "ACGT" and alt != bases[pos - 1]
    ]
    vcf = write_vcf(folder / "v.vcf", *snvs)
    save_checkpoint(random_model(TINY_CONFIG), folder / "model")
    (folder / "config" / "config.yaml").write_text(
        f"genome: {tiny_fasta}\nmodel: model\nvariants: [{vcf}]\ngroups: kind\nparts: 2\n"
    )
    process = start(folder, "results/scores.done")
    markers = folder / "results" / "scores.zarr.progress"
    while process.poll() is None and not markers.exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "results" / "scores.done").exists()
    subprocess.run([str(SNAKEMAKE), "--unlock"], cwd=folder, check=True, capture_output=True)
    again = start(folder, "results/scores.done", "--rerun-incomplete")
    assert again.wait() == 0, (folder / "snakemake.log").read_text()[-3000:]
    inputs = ["results/variants.vcf.gz", "--genome", str(tiny_fasta), "--model", "model"]
    same = ["--layout", "factored", "--threads", "2"]  # more threads, other last digits
    command = ["scbasset-ism", "score", *inputs, *same, "-o", "want.zarr"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    want = open_scores(folder / "want.zarr")
    found = open_scores(folder / "results" / "scores.zarr")
    assert len(found) == len(snvs) > 16_384  # rows of a shard: either part has one
    np.testing.assert_array_equal(found.delta_bottleneck[:], want.delta_bottleneck[:])


def test_a_wrong_config_is_refused_at_once(folder):
    config = folder / "config" / "config.yaml"
    config.write_text(config.read_text().replace("parts: 4", "parts: none"))
    assert start(folder).wait() != 0
    assert "parts" in (folder / "snakemake.log").read_text()
    assert not (folder / "results").exists()
