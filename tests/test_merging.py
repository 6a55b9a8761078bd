"""Merged stores are those of the whole input, and say what they were made of."""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import random_dna, write_fasta, write_vcf
from fake_job import Fake, contents, make
from fake_job import write as write_fake
from test_runs import flip, stop_after

from scbasset_ism import store
from scbasset_ism.encoder import Encoder
from scbasset_ism.errors import StoreError
from scbasset_ism.genome import Genome
from scbasset_ism.merging import merge
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions
from scbasset_ism.places import place_of
from scbasset_ism.prediction import predict_regions, predict_sequences
from scbasset_ism.progress import Part, Progress
from scbasset_ism.reader import open_predictions, open_scores
from scbasset_ism.runs import run_part
from scbasset_ism.scoring import ScoreOptions, score_variants
from scbasset_ism.verification import verify_files, verify_scores


@pytest.fixture(autouse=True)
def sizes() -> Iterator[None]:
    """Fake runs change the sizes of shards; put them back."""
    before = store.SHARD_ROWS, store.CHUNK_ROWS
    yield
    store.SHARD_ROWS, store.CHUNK_ROWS = before


def write_pieces(folder: Path, *n_rows: int, **options: object) -> list[Path]:
    """Stores of rows that follow each other."""
    paths, first = [], 0
    for n in n_rows:
        paths.append(folder / f"from_{first}.zarr")
        write_fake(paths[-1], Fake(n_rows=n, first=first), **options)
        first += n
    return paths


def arrays(folder: Path) -> dict[str, bytes]:
    """All files of a store but the root's metadata, which say where its rows come from."""
    return {name: file for name, file in contents(folder).items() if name != "zarr.json"}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"layout": "dense"}, id="dense"),
        pytest.param({"layout": "dense", "dense_precision": "bitround"}, id="bitround"),
        pytest.param({"layout": "factored"}, id="factored"),
    ],
)
@pytest.mark.parametrize(
    ("n_rows", "n_cut"),
    [
        pytest.param((96, 37), 0, id="whole shards"),
        pytest.param((101, 32), 5, id="no edge in common"),
        pytest.param((96, 3, 1, 33), 5, id="several in a shard"),
        pytest.param((3, 5, 125), 1, id="edges meet again"),
        pytest.param((1, 1), 1, id="two rows"),
    ],
)
def test_the_files_are_those_of_the_whole_input(
    tmp_path: Path,
    n_rows: tuple[int, ...],
    n_cut: int,
    options: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces, whole, out = write_pieces(tmp_path, *n_rows, **options), tmp_path / "w", tmp_path / "m"
    write_fake(whole, Fake(n_rows=sum(n_rows)), **options)
    before, cut = [contents(piece) for piece in pieces], []
    encode = Encoder.shard
    monkeypatch.setattr(
        Encoder, "shard", lambda self, shard, *a: cut.append(shard) or encode(self, shard, *a)
    )
    merged = merge(pieces, out)
    assert arrays(out) == arrays(whole)
    metadata = [json.loads((path / "zarr.json").read_text()) for path in (out, whole)]
    assert metadata[0]["consolidated_metadata"] == metadata[1]["consolidated_metadata"]
    assert len(cut) == n_cut
    assert verify_files(merged).problems == []
    assert [contents(piece) for piece in pieces] == before
    assert not (tmp_path / "m.progress").exists()
    merge(pieces[::-1], out, overwrite=True)
    assert arrays(out) != arrays(whole)


def test_it_says_what_it_was_made_of(tmp_path: Path) -> None:
    pieces, out = write_pieces(tmp_path, 96, 37, 20), tmp_path / "m.zarr"
    write_fake(tmp_path / "w", Fake(n_rows=153))
    merge(pieces[:2], tmp_path / "two.zarr")
    merge([tmp_path / "two.zarr", pieces[2]], out)
    found, whole = open_scores(out).attributes, open_scores(tmp_path / "w").attributes
    assert found["counts"] == whole["counts"]
    assert found["genome"] == whole["genome"] == {"path": "g.fa", "contig_md5": {"1": "ab"}}
    assert found["options"] == whole["options"]
    assert found["variants"]["path"] == "0.vcf, 96.vcf, 133.vcf"
    assert found["variants"]["rows"] == 153
    assert [(one["store"], one["rows"], one["variants"]["path"]) for one in found["merged"]] == [
        (str(pieces[0]), 96, "0.vcf"),
        (str(pieces[1]), 37, "96.vcf"),
        (str(pieces[2]), 20, "133.vcf"),
    ]
    checks = [open_scores(piece).attributes["self_check"] for piece in pieces]
    for name in ("edits", "error", "signal", "ref", "numbers"):
        assert found["self_check"][name] == pytest.approx(sum(check[name] for check in checks))
    assert found["self_check"]["max_error"] == checks[2]["max_error"] == 1e-6 * 134
    assert found["self_check"]["relative_rms"] == pytest.approx(1e-6)
    assert arrays(out) == arrays(tmp_path / "w")


@pytest.mark.parametrize(
    ("fake", "options", "words"),
    [
        (Fake(first=9, weights=1), {}, "weights was sha0 and is sha1; only stores"),
        (Fake(first=9), {"rc": True}, "rc was False and is True; only"),
        (Fake(first=9), {"layout": "factored"}, "layout was dense and is factored"),
        (Fake(first=9), {"dense_precision": "bitround"}, "was float32 and is bitround"),
        (Fake(first=9, shard_rows=16), {}, "rows of a shard was 8 and is 16"),
        (Fake(first=9, n_rows=0), {}, r"b.zarr has no rows: leave it out"),
        (Fake(n_rows=10), {}, r"b.zarr has the same input as .*a.zarr: rows would be there twice"),
    ],
)
def test_what_does_not_belong_together(
    tmp_path: Path, fake: Fake, options: dict[str, object], words: str
) -> None:
    a, b = tmp_path / "a.zarr", tmp_path / "b.zarr"
    write_fake(a, Fake(n_rows=9))
    write_fake(b, fake, **options)
    with pytest.raises(StoreError, match=words):
        merge([a, b], tmp_path / "m.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


def test_what_can_not_be_merged(
    tmp_path: Path, tiny_model: Scbasset, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write_pieces(tmp_path, 8, 8)
    before = contents(a)
    with pytest.raises(StoreError, match="give two stores or more"):
        merge([a], tmp_path / "m.zarr")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="can't be merged into itself"):
        merge([a, b], "from_0.zarr", overwrite=True)
    assert contents(a) == before
    with pytest.raises(StoreError, match=r"from_8.zarr exists|can't be merged into itself"):
        merge([a, b], b)
    run_part(partial(make, Fake(first=16)), "c.zarr", Part(1, 2), RunOptions(batch_size=3))
    with pytest.raises(StoreError, match=r"c.zarr is unfinished"):
        merge([a, "c.zarr"], "m.zarr")
    with pytest.raises(StoreError, match="absent is not a store"):
        merge([a, "absent"], "m.zarr")
    predict_sequences(random_dna(1344), tiny_model, "p.zarr", options=RunOptions())
    with pytest.raises(StoreError, match=r"p.zarr can't be merged with .*: command was score and"):
        merge([a, "p.zarr"], "m.zarr")


def test_another_genome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = write_pieces(tmp_path, 8, 8)
    whole = Progress.write

    def unknown(self: Progress, shard: int, files: object, facts: dict[str, object]) -> None:
        whole(self, shard, files, facts | {"contig_md5": {}})  # type: ignore[arg-type]

    def other(self: Progress, shard: int, files: object, facts: dict[str, object]) -> None:
        whole(self, shard, files, facts | {"contig_md5": {"1": "cd"}})  # type: ignore[arg-type]

    monkeypatch.setattr(Progress, "write", other)
    write_fake(b, Fake(n_rows=8, first=8), overwrite=True)
    with pytest.raises(StoreError, match="contig 1 was ab and is cd"):
        merge([a, b], tmp_path / "m.zarr")
    c = tmp_path / "c.zarr"
    monkeypatch.setattr(Progress, "write", unknown)
    write_fake(c, Fake(n_rows=8, first=16))
    with pytest.raises(StoreError, match=r"from_8.zarr can't be merged with .*from_0.zarr"):
        merge([c, a, b], tmp_path / "m.zarr")


HARM: dict[str, Callable[[Path], object]] = {
    "flipped bit in X": lambda out: flip(out / "X/c/2/0", 5),
    "flipped bit in a factor": lambda out: flip(out / "obsm/ref_bottleneck/c/2/0", 5),
    "flipped bit in text": lambda out: flip(out / "obs/variant_id/c/2", 9),
    "deleted shard": lambda out: (out / "X/c/2/0").unlink(),
    "truncated shard": lambda out: os.truncate(out / "X/c/2/0", 20),
}


@pytest.mark.parametrize("harm", HARM)
def test_damage_is_not_copied(tmp_path: Path, harm: str) -> None:
    a, b = write_pieces(tmp_path, 40, 8)
    HARM[harm](a)
    with pytest.raises(StoreError, match="the store is damaged"):
        merge([a, b], tmp_path / "m.zarr")
    with pytest.raises(StoreError, match="unfinished"):
        open_scores(tmp_path / "m.zarr")


@pytest.mark.parametrize("n_rows", [(96, 37), (101, 32)], ids=["copied", "cut"])
@pytest.mark.parametrize("scheme", ["path", "memory"])
def test_a_merge_that_was_killed_goes_on(
    tmp_path: Path, n_rows: tuple[int, ...], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = write_pieces(tmp_path, *n_rows)
    write_fake(tmp_path / "c.zarr", Fake(n_rows=8, first=500))
    merge([a, b], tmp_path / "want.zarr")
    out = str(tmp_path / "m.zarr") if scheme == "path" else f"memory://{tmp_path.name}/m.zarr"
    stop_after(14, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        merge([a, b], out)
    assert Progress(place_of(out)).missing() == [14, 15, 16]
    with pytest.raises(StoreError, match=r"begun by another run: .*inputs was"):
        merge([a, tmp_path / "c.zarr"], out)
    with pytest.raises(StoreError, match="begun by another run"):
        write_fake(out, Fake(n_rows=133))
    place_of(out).remove("X/c/3/0")
    merge([a, b], out)
    names = place_of(out).sizes()
    found = {name: place_of(out).read(name) for name in names}
    assert found == contents(tmp_path / "want.zarr")
    if scheme == "memory":
        again = merge([out, tmp_path / "c.zarr"], f"{out}.more")
        assert len(again) == 141
        assert verify_files(again).problems == []


class TestRealRuns:
    """Runs by chromosome against one run of both, shards of 4 rows."""

    @pytest.fixture
    def lines(self, tiny_sequences: dict[str, str]) -> dict[str, list[str]]:
        lines = {}
        for contig, places in {"1": range(1000, 1900, 100), "2": range(900, 1600, 100)}.items():
            bases = [(pos, tiny_sequences[contig][pos - 1].upper()) for pos in places]
            lines[contig] = [f"{contig} {p} . {b} {'C' if b != 'C' else 'T'}" for p, b in bases]
        lines["1"][3] += ",<DEL>"
        return lines

    @pytest.mark.parametrize("n_first", [8, 7], ids=["whole shards", "cut"])
    @pytest.mark.parametrize("by", ["file", "region"])
    def test_scores(
        self,
        tmp_path: Path,
        lines: dict[str, list[str]],
        tiny_genome: Genome,
        tiny_model: Scbasset,
        n_first: int,
        by: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(store, "SHARD_ROWS", {"dense": 4, "factored": 4})
        lines["1"] = lines["1"][: n_first - 1]  # one has two ALTs
        both = write_vcf(tmp_path / "both.vcf", *lines["1"], *lines["2"])
        for contig in "12":
            write_vcf(tmp_path / f"{contig}.vcf", *lines[contig])
        for name in ("1", "2", "both"):
            region = name if by == "region" and name != "both" else None
            source = both if by == "region" else tmp_path / f"{name}.vcf"
            options = ScoreOptions(batch_size=3, region=region)
            out = tmp_path / f"{name}.zarr"
            score_variants(source, tiny_genome, tiny_model, out, options=options)
        if by == "region":
            with pytest.raises(StoreError, match="has the same input as"):
                merge([tmp_path / "1.zarr", tmp_path / "both.zarr"], tmp_path / "m.zarr")
        merged = merge([tmp_path / "1.zarr", tmp_path / "2.zarr"], tmp_path / "m.zarr")
        whole = open_scores(tmp_path / "both.zarr")
        assert merged.rows().equals(whole.rows()) or n_first == 7
        exact = {"delta_logit_mean", "delta_logit_sd"}
        kept = [name for name in whole.rows() if name not in exact]
        assert merged.rows()[kept].equals(whole.rows()[kept])
        found, want = merged.expanded[:, :], whole.expanded[:, :]
        np.testing.assert_allclose(found, want, atol=1e-6)
        if n_first == 8:
            assert arrays(merged.path) == arrays(whole.path)
        parts = [open_scores(tmp_path / f"{name}.zarr").bottleneck[:] for name in "12"]
        np.testing.assert_array_equal(merged.bottleneck[:], np.concatenate(parts))
        assert merged.attributes["counts"] == whole.attributes["counts"]
        assert merged.attributes["genome"] == whole.attributes["genome"]
        assert merged.attributes["options"]["region"] == ("1, 2" if by == "region" else None)
        verified = verify_scores(merged.path, tiny_genome, tiny_model)
        assert verified.problems == []
        assert verified.n_sampled == n_first - 1 + 7

    def test_predictions(self, tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset) -> None:
        options, paths = RunOptions(batch_size=2), []
        for i, lines in enumerate(["1\t900\t1000\n1\t9\t99\n7\t1\t2\n", "2\t900\t1000\n"]):
            (tmp_path / f"{i}.bed").write_text(lines)
            paths.append(tmp_path / f"{i}.zarr")
            bed = tmp_path / f"{i}.bed"
            predict_regions(bed, tiny_genome, tiny_model, paths[-1], options=options)
        merged = merge(paths, tmp_path / "m.zarr")
        want = np.concatenate([open_predictions(path).logit[:, :] for path in paths])
        np.testing.assert_array_equal(open_predictions(merged.path).logit[:, :], want)
        found = verify_scores(merged.path, tiny_genome, tiny_model)
        assert (found.n_sampled, found.problems) == (3, [])

    def test_sequences(self, tmp_path: Path, tiny_model: Scbasset) -> None:
        fasta = write_fasta(tmp_path / "s.fa", {f"s{i}": random_dna(1344, i) for i in range(3)})
        a, b, options = tmp_path / "a.zarr", tmp_path / "b.zarr", RunOptions(layout="factored")
        predict_sequences(fasta, tiny_model, a, options=options)
        predict_sequences(random_dna(1344, 9), tiny_model, b, options=options)
        merged = merge([a, b], tmp_path / "m.zarr")
        found = verify_scores(merged.path, None, tiny_model)
        assert (found.n_sampled, found.problems, found.unchecked) == (4, [], "")
        assert merged.attributes["sequences"] == f"{fasta}, text"
