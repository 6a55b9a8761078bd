"""The command line: what it prints, where it writes, and one sentence for what goes wrong."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import random_dna, write_fasta, write_vcf
from fake_job import contents

from scbasset_ism import store
from scbasset_ism.attributions import open_attributions
from scbasset_ism.checkpoint import save_checkpoint
from scbasset_ism.cli import main
from scbasset_ism.model import Scbasset
from scbasset_ism.reader import open_predictions, open_scores
from scbasset_ism.saturations import open_saturations

Run = Callable[..., Result]


@pytest.fixture
def folder(
    tmp_path: Path,
    tiny_fasta: Path,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder with a model and a VCF; the genome is named by the environment."""
    save_checkpoint(tiny_model, tmp_path / "model")
    alleles = [(pos, tiny_sequences["1"][pos - 1].upper()) for pos in (1000, 1500)]
    records = [f"1 {pos} . {ref} {'C' if ref != 'C' else 'T'},<DEL>" for pos, ref in alleles]
    write_vcf(tmp_path / "v.vcf", *records, header=f"##reference=file://{tiny_fasta}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCBASSET_ISM_GENOME", str(tiny_fasta))
    monkeypatch.setenv("SCBASSET_ISM_MODEL", str(tmp_path / "model"))
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    def call(*args: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(main, args, input=stdin)

    return call


def fails(result: Result, code: int = 1) -> str:
    """The one sentence of a run that failed; no traceback."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    sentence = result.output.strip().splitlines()[-1]
    assert sentence.startswith("Error: ")
    return sentence


class TestScore:
    def test_with_nothing_but_a_vcf(self, run: Run, folder: Path) -> None:
        result = run("score", "v.vcf")
        assert result.exit_code == 0, result.output
        assert "2 SCORED" in result.output
        assert "2 SYMBOLIC" in result.output
        assert "genome: " in result.output
        assert len(open_scores(folder / "v.zarr")) == 4

    def test_the_genome_of_the_vcf(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SCBASSET_ISM_GENOME")
        result = run("score", "v.vcf")
        assert result.exit_code == 0, result.output
        assert "tiny.fa" in result.output

    def test_no_genome(self, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SCBASSET_ISM_GENOME")
        write_vcf(folder / "w.vcf", header="##reference=ftp://somewhere/hg19.fa")
        sentence = fails(run("score", "w.vcf"), code=2)
        assert "give --genome" in sentence
        assert "the VCF names ftp://somewhere/hg19.fa" in sentence

    def test_standard_input_and_variants_as_text(self, run: Run, folder: Path) -> None:
        vcf = (folder / "v.vcf").read_bytes()
        piped = run("score", "-", "-o", "piped.zarr", "--quiet", stdin=vcf)
        assert piped.exit_code == 0, piped.output
        assert piped.output == ""
        run("score", "v.vcf")
        table = open_scores(folder / "v.zarr").variants()
        texts = [name for name in table.index if "<" not in name]
        typed = run("score", *texts, "-o", "typed.zarr")
        assert typed.exit_code == 0, typed.output
        for name in texts:
            assert (
                open_scores(folder / "piped.zarr")
                .variant(name)
                .equals(open_scores(folder / "typed.zarr").variant(name))
            )

    def test_options_reach_the_store(self, run: Run, folder: Path) -> None:
        (folder / "p.bed").write_text("1\t900\t1100\tp\n")
        result = run(
            *("score", "v.vcf", "--layout", "factored", "--rc", "--shifts", "2", "--threads", "1"),
            *("--center", "peak", "--peaks", "p.bed", "--region", "1:990-1010", "--device", "cpu"),
            *(
                "--ref-mismatch",
                "flip",
                "--batch-size",
                "7",
                "--precision",
                "bfloat16",
                "-o",
                "o.zarr",
            ),
        )
        assert result.exit_code == 0, result.output
        options = open_scores(folder / "o.zarr").attributes["options"]
        assert options == {
            "layout": "factored",
            "dense_precision": "float32",
            "rc": True,
            "shifts": 2,
            "batch_size": 7,
            "device": "cpu",
            "peaks": "p.bed",
            "region": "1:990-1010",
            "ref_mismatch": "flip",
            "precision": "bfloat16",
            "background": None,
        }
        assert open_scores(folder / "o.zarr").variants()["peak"].tolist() == ["p", ""]

    def test_cells(self, run: Run, folder: Path) -> None:
        (folder / "cells.tsv").write_text(
            "barcode\tcell_type\n" + "".join(f"b{i}\tT\n" for i in range(5))
        )
        assert run("score", "v.vcf", "--cells", "cells.tsv").exit_code == 0
        cells = open_scores(folder / "v.zarr").cells
        assert cells.index.tolist() == [f"b{i}" for i in range(5)]
        assert cells["cell_type"].tolist() == ["T"] * 5
        (folder / "cells.tsv").write_text("barcode\nx\ny\n")
        sentence = fails(run("score", "v.vcf", "--cells", "cells.tsv", "--overwrite"))
        assert "2" in sentence
        assert "5" in sentence

    def test_parts_then_finalize(
        self, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "SHARD_ROWS", {"dense": 2, "factored": 2})
        assert run("score", "v.vcf", "-o", "whole.zarr", "--batch-size", "3").exit_code == 0
        arguments = ("score", "v.vcf", "-o", "s.zarr", "--batch-size", "3")
        second = run(*arguments, "--part", "2/2")
        assert second.exit_code == 0, second.output
        assert "finalize it when all parts are" in second.output
        assert "shards 0 of 2 are missing" in fails(run("finalize", "s.zarr"))
        assert run(*arguments, "--part", "1/2").exit_code == 0
        assert "s.zarr is complete" in run("finalize", "s.zarr").output
        assert contents(folder / "s.zarr") == contents(folder / "whole.zarr")
        fails(run(*arguments, "--part", "1/2", "--overwrite"), code=2)
        assert "no part" in fails(run(*arguments, "--part", "3/2"))
        assert "not begun" in fails(run("finalize", "absent.zarr"))

    def test_another_run_is_refused(
        self, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert run("score", "v.vcf", "--part", "1/2").exit_code == 0
        sentence = fails(run("score", "v.vcf", "--rc"))
        assert "v.zarr was begun by another run: rc was False and is True" in sentence
        assert run("score", "v.vcf").exit_code == 0
        assert not (folder / "v.zarr.progress").exists()

    @pytest.mark.parametrize("command", ["score v.vcf", "predict r.bed"])
    def test_workers(self, run: Run, folder: Path, command: str) -> None:
        (folder / "r.bed").write_text("1\t1000\t1400\n")
        assert run(*command.split(), "-o", "one.zarr", "--device", "cpu").exit_code == 0
        two = run(*command.split(), "-o", "two.zarr", "--devices", "cpu,cpu")
        assert two.exit_code == 0, two.output
        assert contents(folder / "two.zarr") == contents(folder / "one.zarr")

    def test_existing_output(self, run: Run) -> None:
        assert run("score", "v.vcf").exit_code == 0
        assert "replace it with --overwrite" in fails(run("score", "v.vcf"))
        assert run("score", "v.vcf", "--overwrite").exit_code == 0

    @pytest.mark.parametrize(
        "args",
        [
            pytest.param(["--center", "peak"], id="no peaks"),
            pytest.param(["--peaks", "p.bed"], id="no center"),
            pytest.param(["--shifts", "-1"], id="shifts"),
            pytest.param(["--batch-size", "0"], id="batch size"),
            pytest.param(["--layout", "wide"], id="layout"),
            pytest.param(["--frobnicate"], id="unknown"),
        ],
    )
    def test_usage(self, run: Run, args: list[str]) -> None:
        fails(run("score", "v.vcf", *args), code=2)


def file(name: str, content: str | bytes) -> Callable[[Path], object]:
    """Something that writes a file."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def cut(name: str, n_bytes: int) -> Callable[[Path], object]:
    """Something that cuts the end off a file."""
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - n_bytes)


def vcf_of(*records: str, contig: str = "1") -> Callable[[Path], object]:
    """Something that writes bad.vcf."""
    return lambda folder: write_vcf(folder / "bad.vcf", *records, contigs={contig: 6000})


def cut_bgzip(folder: Path) -> None:
    write_vcf(folder / "bad.vcf.gz", *["1 10 . A C"] * 20_000)
    cut("bad.vcf.gz", 200)(folder)


WEIGHTS = "model/model.safetensors"
OTHER_ASSEMBLY = [f"1 {1000 + i} . {'ACGT'[i % 4]} {'CGTA'[i % 4]}" for i in range(32)]
ASSEMBLY = r"REF differs from the genome in .* is .*tiny.fa the assembly they were called on\?"


@pytest.mark.parametrize(
    ("prepare", "args", "words"),
    [
        pytest.param(None, "absent.vcf", "absent.vcf", id="missing VCF"),
        pytest.param(file("bad.vcf", "1\t10\t.\tA\tC\n"), "bad.vcf", "bad.vcf", id="no header"),
        pytest.param(file("bad.vcf", ""), "bad.vcf", "bad.vcf", id="empty VCF"),
        pytest.param(cut_bgzip, "bad.vcf.gz", "bad.vcf.gz is cut short", id="cut bgzip"),
        pytest.param(vcf_of(*OTHER_ASSEMBLY), "bad.vcf", ASSEMBLY, id="other assembly"),
        pytest.param(
            vcf_of("s1 5 . A C", contig="s1"), "bad.vcf", "no contig in common", id="species"
        ),
        pytest.param(None, "v.vcf --genome absent.fa", "absent.fa", id="missing FASTA"),
        pytest.param(file("bad.fa", ""), "v.vcf --genome bad.fa", "is empty", id="empty FASTA"),
        pytest.param(file("bad.fa", "chr1"), "v.vcf --genome bad.fa", "no FASTA", id="not FASTA"),
        pytest.param(file(WEIGHTS, pickle.dumps([1])), "v.vcf", WEIGHTS, id="pickle"),
        pytest.param(cut(WEIGHTS, 100), "v.vcf", WEIGHTS, id="cut weights"),
        pytest.param(None, "v.vcf --model absent", "absent", id="no model"),
        pytest.param(file("f", ""), "v.vcf -o f/o.zarr", "f/o.zarr can't be written", id="output"),
        pytest.param(None, "v.vcf -o model --overwrite", "not one of our stores", id="not ours"),
        pytest.param(None, "v.vcf --device cuda:77", "cuda:77", id="no device"),
        pytest.param(None, "1:ten:A:C -o o.zarr", "1:ten:A:C", id="not a variant"),
        pytest.param(None, "v.vcf --region 1:20-10", "1:20-10", id="not a region"),
        pytest.param(
            file("b.bed", "1 5"), "v.vcf --center peak --peaks b.bed", "line 1", id="not BED"
        ),
    ],
)
def test_bad_input_is_one_sentence(
    run: Run, folder: Path, prepare: Callable[[Path], object] | None, args: str, words: str
) -> None:
    if prepare:
        prepare(folder)
    assert re.search(words, fails(run("score", *args.split())))
    assert not list(folder.glob("*.zarr/obsm/*/c"))


class TestPredict:
    def test_bed_fasta_and_text(self, run: Run, folder: Path) -> None:
        (folder / "r.bed").write_text("1\t1000\t1400\n")
        write_fasta(folder / "s.fa", {"s": random_dna(1344)})
        assert run("predict", "r.bed").exit_code == 0
        assert run("predict", "s.fa").exit_code == 0
        text = run("predict", random_dna(1344), "-o", "t.zarr")
        assert text.exit_code == 0, text.output
        stores = [open_predictions(folder / f"{name}.zarr") for name in "rst"]
        assert [len(store) for store in stores] == [1, 1, 1]
        assert (stores[1].logit[0] == stores[2].logit[0]).all()
        assert (stores[0].logit[0] != stores[1].logit[0]).all()

    def test_lengths(self, run: Run) -> None:
        assert "has 8 bases and the model reads 1,344" in fails(
            run("predict", "ACGTACGT", "-o", "o.zarr")
        )


class TestIsm:
    def test_variants_and_regions(self, run: Run, folder: Path) -> None:
        made = run("ism", "v.vcf", "--span", "4", "--allele", "both")
        assert made.exit_code == 0, made.output
        assert "4 windows in v.zarr" in " ".join(made.output.split())[-60:] or "8 windows" in (
            made.output
        )
        assert "self-check" in made.output
        assert "factored" in made.output
        assert open_saturations("v.zarr").attributes["options"]["span"] == 4
        (folder / "r.bed").write_text("1\t1000\t1009\tr\n")
        assert run("ism", "r.bed", "--span", "4", "--layout", "dense").exit_code == 0
        assert open_saturations("r.zarr").row_names.tolist() == ["r/1", "r/2", "r/3"]
        assert run("ism", "1:1001-1003", "-o", "t.zarr").exit_code == 0
        for name in ("v.zarr", "r.zarr", "t.zarr"):
            checked = run("verify", name)
            assert checked.exit_code == 0, checked.output
            assert "rows scored again" in checked.output
        described = run("inspect", "r.zarr")
        assert "obsm/delta_logit: [3, 3, 4, 5]" in described.output
        assert "can't be merged" in fails(run("merge", "v.zarr", "t.zarr", "-o", "m.zarr"))

    @pytest.mark.parametrize(
        ("args", "code", "sentence"),
        [
            (["v.vcf", "--span", "0"], 2, "--span"),
            (["v.vcf", "--span", "9999"], 1, "from 1 to 1,344 bases"),
            (["1:1001-1003", "--allele", "alt", "-o", "t.zarr"], 1, "no alternate allele"),
            (["1:1001-1003"], 2, "names no file: give --output"),
            (["absent.bed", "-o", "t.zarr"], 1, "absent.bed can't be read"),
            (["absent.vcf", "-o", "t.zarr"], 1, "absent.vcf"),
            (["v.vcf", "--part", "1/2", "--workers", "2"], 2, "--part goes without"),
        ],
    )
    def test_wrong_use(self, run: Run, args: list[str], code: int, sentence: str) -> None:
        assert sentence in fails(run("ism", *args), code)


class TestAttribute:
    def test_variants_and_regions(self, run: Run, folder: Path) -> None:
        few = ("--span", "4", "--max-steps", "8")
        made = run("attribute", "v.vcf", *few, "--tolerance", "9", "--rc", "--batch-size", "3")
        assert made.exit_code == 0, made.output
        assert "4 SCORED" in made.output
        assert "4 SYMBOLIC" in made.output
        options = open_attributions("v.zarr").attributes["options"]
        assert (options["span"], options["allele"], options["rc"]) == (4, "both", True)
        (folder / "r.bed").write_text("1\t1000\t1009\tr\n")
        shuffled = (
            "--baseline",
            "shuffle",
            "--shuffles",
            "2",
            "--seed",
            "1",
            "--tolerance",
            "1e-9",
        )
        made = run("attribute", "r.bed", *few, *shuffled)
        assert "3 INCOMPLETE" in made.output
        assert open_attributions("r.zarr").row_names.tolist() == ["r/1", "r/2", "r/3"]
        gradients = ("--method", "input-x-gradient", "-o", "t.zarr")
        assert run("attribute", "1:1001-1003", *gradients).exit_code == 0
        for name in ("v.zarr", "r.zarr", "t.zarr"):
            checked = run("verify", name)
            assert checked.exit_code == 0, checked.output
            assert "rows scored again" in checked.output
        described = run("inspect", "r.zarr")
        assert "obsm/hypothetical: [3, 3, 4, 3]" in described.output
        assert run("attribute", "1:2001-2003", "-o", "u.zarr", *gradients[:2]).exit_code == 0
        refused = fails(run("merge", "t.zarr", "u.zarr", "-o", "m.zarr"))
        assert "stores of `attribute` can't be merged" in refused

    def test_parts(self, run: Run, folder: Path) -> None:
        common = ("attribute", "1:1001-1009", "--span", "3", "--max-steps", "8", "-o")
        assert run(*common, "whole.zarr").exit_code == 0
        made = run(*common, "p.zarr", "--part", "1/1")
        assert "finalize it when all parts are" in made.output
        assert run("finalize", "p.zarr").exit_code == 0
        assert contents(folder / "p.zarr") == contents(folder / "whole.zarr")

    @pytest.mark.parametrize(
        ("args", "code", "sentence"),
        [
            (["v.vcf", "--span", "9999"], 1, "from 1 to 1,344 bases"),
            (["v.vcf", "--tolerance", "0"], 2, "--tolerance"),
            (["v.vcf", "--max-steps", "0"], 2, "--max-steps"),
            (["v.vcf", "--layout", "dense"], 2, "--layout"),
            (["v.vcf", "--method", "magic"], 2, "--method"),
            (["1:1001-1003", "--allele", "alt", "-o", "t.zarr"], 1, "no alternate allele"),
            (["1:1001-1003"], 2, "names no file: give --output"),
            (["absent.bed", "-o", "t.zarr"], 1, "absent.bed can't be read"),
            (["absent.vcf", "-o", "t.zarr"], 1, "absent.vcf"),
            (["v.vcf", "--part", "1/2", "--workers", "2"], 2, "--part goes without"),
        ],
    )
    def test_wrong_use(self, run: Run, args: list[str], code: int, sentence: str) -> None:
        assert sentence in fails(run("attribute", *args), code)


def test_verify(run: Run, folder: Path) -> None:
    run("score", "v.vcf")
    sound = run("verify", "v.zarr")
    assert sound.exit_code == 0, sound.output
    assert "2 rows scored again" in sound.output
    chunk = folder / "v.zarr/X/c/0/0"
    damaged = bytearray(chunk.read_bytes())
    damaged[5] ^= 1
    chunk.write_bytes(damaged)
    assert "v.zarr is damaged: 1 problems" in fails(run("verify", "v.zarr"))
    (folder / "r.bed").write_text("1\t1000\t1400\n")
    run("predict", "r.bed")
    assert "1 rows scored again" in run("verify", "r.zarr").output
    assert "scored again" not in run("verify", "r.zarr", "--sample", "0", "--model", "x").output
    fasta = write_fasta(folder / "s.fa", {"s": random_dna(1344)})
    run("predict", "s.fa")
    assert "1 rows scored again" in run("verify", "s.zarr").output
    fasta.unlink()
    moved = run("verify", "s.zarr")
    assert moved.exit_code == 0
    assert "no row was scored again: s.fa is not here" in moved.output


def test_merge(run: Run, folder: Path) -> None:
    for number, pos in enumerate((1000, 1500)):
        run("score", "v.vcf", "--region", f"1:{pos}-{pos}", "-o", f"{number}.zarr")
    run("score", "v.vcf")
    merged = run("merge", "0.zarr", "1.zarr", "-o", "m.zarr")
    assert merged.exit_code == 0, merged.output
    assert "2 SCORED" in merged.output
    assert "4 rows in m.zarr" in merged.output
    names = open_scores(folder / "v.zarr").row_names
    assert open_scores(folder / "m.zarr").row_names.equals(names)
    assert "2 rows scored again" in run("verify", "m.zarr").output
    assert json.loads(run("inspect", "m.zarr", "--json").output)["merged"][1]["rows"] == 2
    assert "m.zarr exists" in fails(run("merge", "0.zarr", "1.zarr", "-o", "m.zarr"))
    again = run("merge", "1.zarr", "0.zarr", "-o", "m.zarr", "--overwrite", "--quiet")
    assert (again.exit_code, again.output) == (0, "")
    assert "give two stores" in fails(run("merge", "0.zarr", "-o", "n.zarr"))
    fails(run("merge", "0.zarr", "1.zarr"), code=2)


def test_strongest(run: Run, folder: Path) -> None:
    run("score", "v.vcf")
    text = run("strongest", "v.zarr", "-n", "1").stdout
    head, row = (line.split("\t") for line in text.splitlines())
    assert head == ["chrom", "pos", "ref", "alt", "id", "cell_id", "delta_logit"]
    scores = open_scores(folder / "v.zarr")
    best = scores.strongest(1, 1).iloc[0]
    assert row[5:] == [best["cell_id"], f"{best['delta_logit']:.6g}"]
    assert run("strongest", "v.zarr", "-o", "top.tsv").exit_code == 0
    run("score", "top.tsv", "-o", "again.zarr")
    again = open_scores(folder / "again.zarr")
    assert set(again.row_names) == {f"{r[0]}:{r[1]}:{r[2]}:{r[3]}" for r in _rows(folder)}
    assert again.attributes["counts"]["SCORED"] == 2
    assert "can't be written" in fails(run("strongest", "v.zarr", "-o", "no/where.tsv"))


def _rows(folder: Path) -> list[list[str]]:
    return [line.split("\t") for line in (folder / "top.tsv").read_text().splitlines()[1:]]


class TestInspectAndConvert:
    def test_store(self, run: Run) -> None:
        run("score", "v.vcf")
        told = json.loads(run("inspect", "v.zarr", "--json").output)
        assert told["counts"]["SCORED"] == 2
        assert told["arrays"]["X"] == [4, 5]
        assert "X: [4, 5]" in run("inspect", "v.zarr").output

    def test_model(self, run: Run) -> None:
        told = json.loads(run("inspect", "model", "--json").output)
        assert told["config"]["n_cells"] == 5
        assert told["cells"]["count"] == 5

    def test_neither(self, run: Run) -> None:
        assert "absent" in fails(run("inspect", "absent/folder/x"))

    def test_convert(self, run: Run, folder: Path) -> None:
        assert run("convert", "model", "copy").exit_code == 0
        assert "copy" in fails(run("convert", "model", "copy"))
        assert run("convert", "model", "copy", "--overwrite").exit_code == 0
        told = json.loads(run("inspect", "copy", "--json").output)
        assert told["cells"]["count"] == 5


def test_interrupt(folder: Path, tiny_sequences: dict[str, str]) -> None:
    """Ctrl-C in the middle: one sentence, and an unfinished store says so."""
    bases = tiny_sequences["2"]
    records = [
        f"2 {pos} . {bases[pos - 1]} {'C' if bases[pos - 1] != 'C' else 'T'}"
        for pos in [*range(100, 2900)] * 20
    ]
    write_vcf(folder / "long.vcf", *records)
    code = "from scbasset_ism.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "score", "long.vcf", "--shifts", "20", "--layout", "factored"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    while not (folder / "long.zarr/uns").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "interrupted" in err.splitlines()[-1]
    result = CliRunner().invoke(main, ["inspect", "long.zarr", "--json"])
    assert json.loads(result.output)["status"] == "writing"
