"""Runs that are killed, damaged, split or mixed end with the bytes of one that was not."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest
from fake_job import Fake, contents, make, write

from scbasset_ism import locks, runs, store
from scbasset_ism.errors import ReferenceMismatchError, ScbassetError, StoreError
from scbasset_ism.pipeline import RunOptions
from scbasset_ism.places import Folder, place_of
from scbasset_ism.progress import Part, Progress
from scbasset_ism.reader import open_scores
from scbasset_ism.runs import finalize, run_part
from scbasset_ism.verification import verify_files

SCRIPT = Path(__file__).with_name("fake_job.py")


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake runs change the sizes of shards; put them back."""
    before = store.SHARD_ROWS, store.CHUNK_ROWS
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
    yield
    store.SHARD_ROWS, store.CHUNK_ROWS = before


@pytest.fixture
def want(tmp_path: Path) -> dict[str, bytes]:
    """The files of a run in one go."""
    write(tmp_path / "want.zarr")
    return contents(tmp_path / "want.zarr")


def part(out: Path | str, text: str, fake: Fake | None = None) -> None:
    run_part(partial(make, fake or Fake()), out, Part.parse(text), RunOptions(batch_size=3))


def stop_after(n: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the next run fail after it has written some shards."""
    whole, written = Progress.write, []

    def some(self: Progress, shard: int, *args: object) -> None:
        if len(written) == n:
            monkeypatch.setattr(Progress, "write", whole)
            raise error
        written.append(shard)
        whole(self, shard, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Progress, "write", some)


def interrupted(out: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> Progress:
    """A run that ended after some shards."""
    stop_after(n, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write(out)
    progress = Progress(place_of(out))
    assert progress.missing() == list(range(n, 48))
    return progress


class TestResume:
    @pytest.mark.parametrize("n", [0, 1, 47])
    def test_only_what_is_missing_is_written(
        self, tmp_path: Path, want: dict[str, bytes], n: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "s.zarr"
        progress = interrupted(out, n, monkeypatch)
        with pytest.raises(StoreError, match="unfinished: run the same command again"):
            open_scores(out)
        done = contents(progress.folder.path)  # type: ignore[union-attr]
        times = {name: (out / name).stat().st_mtime_ns for name in contents(out)}
        written: list[int] = []
        whole = Progress.write

        def noted(self: Progress, shard: int, *args: object) -> None:
            written.append(shard)
            whole(self, shard, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Progress, "write", noted)
        write(out)
        assert written == list(range(n, 48))
        assert contents(out) == want
        assert all((out / f).stat().st_mtime_ns == t for f, t in times.items() if "/c/" in f)
        assert len([name for name in done if name.startswith("shards/")]) == n
        assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "want.zarr"]

    def test_another_run_is_refused_with_what_differs(
        self, tmp_path: Path, want: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "s.zarr"
        interrupted(out, 5, monkeypatch)
        before = contents(tmp_path)
        with pytest.raises(StoreError, match="begun by another run: weights was sha0 and is sha1;"):
            write(out, Fake(weights=1))
        with pytest.raises(StoreError, match="variants was sha0 and is sha2; rc was False and is"):
            write(out, Fake(seed=2), rc=True)
        with pytest.raises(StoreError, match="layout was dense and is factored"):
            write(out, layout="factored")
        assert contents(tmp_path) == before
        write(out, Fake(weights=1), overwrite=True)
        assert contents(out) != want
        write(out, overwrite=True)
        assert contents(out) == want

    def test_a_finished_store_is_refused(self, tmp_path: Path, want: dict[str, bytes]) -> None:
        with pytest.raises(StoreError, match=r"exists: .* --overwrite"):
            write(tmp_path / "want.zarr")
        assert contents(tmp_path) == {f"want.zarr/{name}": file for name, file in want.items()}

    @pytest.mark.parametrize("stage", ["root", "manifest"])
    def test_killed_while_it_finishes(
        self, tmp_path: Path, want: dict[str, bytes], stage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "s.zarr"
        method = {"root": "remove", "manifest": "clear"}[stage]
        whole = getattr(Folder, method)

        def die(self: Folder, *args: str) -> None:
            if self.path.name == "s.zarr.progress" and (out / "X").exists():
                raise KeyboardInterrupt
            whole(self, *args)

        monkeypatch.setattr(Folder, method, die)
        with pytest.raises(KeyboardInterrupt):
            write(out)
        monkeypatch.undo()
        assert (tmp_path / "s.zarr.progress").exists()
        if stage == "root":  # the manifest was still there
            write(out)
        else:
            with pytest.raises(StoreError, match="exists"):
                write(out)
        assert contents(out) == want
        assert not (tmp_path / "s.zarr.progress").exists()

    def test_a_lost_progress_is_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "s.zarr"
        interrupted(out, 5, monkeypatch)
        shutil.rmtree(tmp_path / "s.zarr.progress")
        with pytest.raises(StoreError, match=r"s.zarr.progress is gone: start anew"):
            write(out)
        write(out, overwrite=True)
        assert len(open_scores(out)) == 380


def flip(path: Path, place: int) -> None:
    """Flip a bit of a file."""
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "truncated shard": lambda out, _: os.truncate(out / "X/c/2/0", 20),
    "deleted shard": lambda out, _: (out / "obsm/delta_bottleneck/c/2/0").unlink(),
    "flipped bit in data": lambda out, _: flip(out / "X/c/2/0", 5),
    "flipped bit in an index": lambda out, _: flip(out / "obsm/ref_bottleneck/c/2/0", -12),
    "flipped bit in text": lambda out, _: flip(out / "obs/variant_id/c/2", 9),
    "deleted marker": lambda _, notes: (notes / "shards/2.json").unlink(),
    "damaged marker": lambda _, notes: flip(notes / "shards/2.json", 40),
    "empty marker": lambda _, notes: os.truncate(notes / "shards/2.json", 0),
    "flipped bit in the cells": lambda out, _: flip(out / "varm/cell_weight/c/0/0", 9),
    "deleted metadata": lambda out, _: (out / "obs/zarr.json").unlink(),
    "deleted root": lambda out, _: (out / "zarr.json").unlink(),
    "stray file": lambda out, _: (out / "X/c/2/stray").write_bytes(b"x"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_mended(
    tmp_path: Path, want: dict[str, bytes], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "s.zarr"
    interrupted(out, 5, monkeypatch)
    before = contents(tmp_path)
    DAMAGE[damage](out, tmp_path / "s.zarr.progress")
    assert contents(tmp_path) != before
    write(out)
    assert contents(out) == want
    assert not (tmp_path / "s.zarr.progress").exists()


def test_a_stale_marker_counts_for_nothing(
    tmp_path: Path, want: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and markers of another model's run, left where a new run begins."""
    old, out = tmp_path / "old.zarr", tmp_path / "s.zarr"
    stop_after(9, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write(old, Fake(weights=1))
    progress = interrupted(out, 5, monkeypatch)
    shutil.copytree(old / "X", out / "X", dirs_exist_ok=True)
    for shard in (4, 7):
        name = f"shards/{shard}.json"
        shutil.copy(tmp_path / "old.zarr.progress" / name, tmp_path / "s.zarr.progress" / name)
    assert progress.missing()[:4] == [4, 5, 6, 7]
    write(out)
    assert contents(out) == want


class TestParts:
    def test_parts_own_every_shard_once(self) -> None:
        for n_shards in (0, 1, 7, 48):
            for count in (1, 2, 5, 50):
                owned = [s for i in range(count) for s in Part(i + 1, count).shards(n_shards)]
                assert owned == list(range(n_shards))

    @pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2"])
    def test_what_is_no_part(self, text: str) -> None:
        with pytest.raises(StoreError, match="the first of eight is 1/8"):
            Part.parse(text)

    def test_parts_in_any_order_then_finalize(self, tmp_path: Path, want: dict[str, bytes]) -> None:
        out = tmp_path / "s.zarr"
        with pytest.raises(StoreError, match="finished, or not begun"):
            finalize(out)
        part(out, "2/3")
        part(out, "3/3")
        with pytest.raises(StoreError, match="incomplete: shards 0-15 of 48 are missing"):
            finalize(out)
        with pytest.raises(StoreError, match="unfinished"):
            open_scores(out)
        part(out, "1/3")
        flip(out / "X/c/40/0", 5)
        (out / "X/c/7/0").unlink()
        with pytest.raises(StoreError, match="incomplete: shards 7, 40 of 48 are missing"):
            finalize(out)
        part(out, "1/2")
        part(out, "2/2")
        finalize(out)
        assert contents(out) == want
        assert open_scores(out).attributes["counts"] == {"SCORED": 304, "SYMBOLIC": 76}

    def test_a_part_of_another_run_is_refused(self, tmp_path: Path) -> None:
        part(tmp_path / "s.zarr", "1/2")
        with pytest.raises(StoreError, match="weights was sha0 and is sha1"):
            part(tmp_path / "s.zarr", "2/2", Fake(weights=1))

    def test_a_part_that_another_process_writes_is_refused(self, tmp_path: Path) -> None:
        out = tmp_path / "s.zarr"
        part(out, "1/48")
        code = (
            "import sys; from scbasset_ism.places import place_of;"
            "from scbasset_ism.progress import Progress\n"
            "with Progress(place_of(sys.argv[1])).writing(range(24, 36)):\n"
            "    print('held', flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with holder:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            for refused in ("3/4", "2/2", "25/48"):
                with pytest.raises(StoreError, match="is being written by another process"):
                    part(out, refused)
            for refused in (lambda: finalize(out), lambda: write(out, overwrite=True)):
                with pytest.raises(StoreError, match=r"s\.zarr is being written by another"):
                    refused()
            part(out, "1/2")
            holder.kill()  # the lock goes with its process
        part(out, "2/2")
        finalize(out)
        assert len(open_scores(out)) == 380


def test_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "s.zarr", Fake(n_rows=0))
    assert len(open_scores(tmp_path / "s.zarr")) == 0
    part(tmp_path / "p.zarr", "2/2", Fake(n_rows=0))
    finalize(tmp_path / "p.zarr")
    assert contents(tmp_path / "p.zarr") == contents(tmp_path / "s.zarr")


def test_a_genome_that_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, md5s = tmp_path / "s.zarr", iter("ab" * 48)
    whole = Progress.write

    def other(self: Progress, shard: int, files: object, facts: dict[str, object]) -> None:
        whole(self, shard, files, facts | {"contig_md5": {"1": next(md5s)}})  # type: ignore[arg-type]

    monkeypatch.setattr(Progress, "write", other)
    with pytest.raises(StoreError, match="contig 1 of the genome changed during the run"):
        write(out)


def test_mismatches_of_all_parts_are_added_up() -> None:
    attributes = {"variants": {"path": "v.vcf"}, "genome": {"path": "g.fa"}}
    runs.check_mismatches(attributes | {"counts": {"SCORED": 90, "REF_MISMATCH": 10}})
    with pytest.raises(ReferenceMismatchError, match=r"in 11 of 100 rows; is g.fa the assembly"):
        runs.check_mismatches(attributes | {"counts": {"SCORED": 89, "REF_MISMATCH": 11}})


class TestFullDisk:
    def test_one_sentence_and_the_store_resumes(
        self, tmp_path: Path, want: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "s.zarr"
        fsync, calls = os.fsync, []

        def full(file: int) -> None:
            calls.append(file)
            if len(calls) == 100:
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(file)

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full; make room, then run the same"):
            write(out)
        assert list((tmp_path / "s.zarr.progress/aside").iterdir()) == []
        assert 0 < Progress(place_of(out)).marked() < 48
        write(out)
        assert contents(out) == want

    def test_a_small_disk(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting a tmpfs is not allowed here")
        try:
            (disk / "ballast").write_bytes(b"x" * 200_000)
            with pytest.raises(StoreError, match="disk is full; make room"):
                write(disk / "s.zarr")
            (disk / "ballast").unlink()
            with pytest.raises(StoreError, match="disk is full; make room"):
                write(disk / "s.zarr")
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            write(disk / "s.zarr")
            write(tmp_path / "want.zarr")
            assert contents(disk / "s.zarr") == contents(tmp_path / "want.zarr")
        finally:
            subprocess.run(["umount", str(disk)], check=True)


class TestObjectStore:
    def test_resume_parts_and_reading(
        self, tmp_path: Path, want: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url, bucket = f"memory://{tmp_path.name}/s.zarr", fsspec.filesystem("memory")

        def held() -> dict[str, bytes]:
            root = f"/{tmp_path.name}/"
            return {name.removeprefix(root): bucket.cat(name) for name in bucket.find(root)}

        stop_after(7, monkeypatch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            part(url, "1/2")
        assert "s.zarr.progress/shards/6.json" in held()
        with pytest.raises(StoreError, match="unfinished"):
            open_scores(url)
        with pytest.raises(StoreError, match="weights was sha0 and is sha1"):
            part(url, "2/2", Fake(weights=1))
        part(url, "2/2")
        bucket.rm(f"/{tmp_path.name}/s.zarr/X/c/3/0")
        with pytest.raises(StoreError, match="shards 3, 7-23 of 48 are missing"):
            finalize(url)
        part(url, "1/2")
        finalize(url)
        assert held() == {f"s.zarr/{name}": content for name, content in want.items()}
        scores, local = open_scores(url), open_scores(tmp_path / "want.zarr")
        assert scores.cell(3).equals(local.cell(3))
        assert verify_files(scores).problems == []
        with pytest.raises(StoreError, match="exists"):
            write(url)
        write(url, Fake(seed=1), overwrite=True)
        assert not open_scores(url).cell(3).equals(local.cell(3))
        bucket.rm(f"/{tmp_path.name}/s.zarr/obsm/delta_bottleneck/c/3/0")
        with pytest.raises(StoreError, match="the store is damaged"):
            open_scores(url).cell(3)

    @pytest.mark.parametrize("when", ["before", "between"])
    def test_two_workers_that_begin_at_once(
        self, tmp_path: Path, want: dict[str, bytes], when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There are no locks: one looks before the other has begun, and goes on after it wrote."""
        url = f"memory://{tmp_path.name}/s.zarr"
        look, looked = Progress.manifest, []

        def early(self: Progress) -> object:
            looked.append(look(self))
            if len(looked) == 1 and when == "between":
                part(url, "1/2")
            return looked[-1]

        if when == "before":
            part(url, "1/2")
        monkeypatch.setattr(Progress, "manifest", early)
        monkeypatch.setattr(runs, "check_room", lambda *_, **__: None)
        part(url, "2/2")
        assert (looked[0] is None) == (when == "between")
        monkeypatch.undo()
        assert Progress(place_of(url)).missing() == []
        finalize(url)
        place = place_of(url)
        assert {name: place.read(name) for name in place.sizes()} == want

    def test_what_another_package_is_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent(url: str) -> None:
            raise ImportError(f"install what reads {url}")

        monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
        with pytest.raises(StoreError, match=r"needs .* pip install 'scbasset-ism\[s3\]'"):
            write("s3://bucket/s.zarr")
        with pytest.raises(StoreError, match="needs another package: install what reads az://"):
            write("az://bucket/s.zarr")

    def test_what_is_no_place(self) -> None:
        with pytest.raises(StoreError, match="abacus://x can't be used"):
            write("abacus://x")


def fail(options: RunOptions) -> runs.Job:
    raise ScbassetError("this part has no luck")


def die(options: RunOptions) -> runs.Job:
    os._exit(9)


class TestWorkers:
    def test_the_same_bytes(self, tmp_path: Path, want: dict[str, bytes]) -> None:
        write(tmp_path / "s.zarr", workers=2)
        assert contents(tmp_path / "s.zarr") == want
        assert not (tmp_path / "s.zarr.progress").exists()

    @pytest.mark.parametrize(("make_part", "words"), [(fail, "no luck"), (die, "died without")])
    def test_errors_arrive(
        self,
        tmp_path: Path,
        make_part: Callable[[RunOptions], runs.Job],
        words: str,
    ) -> None:
        progress = Progress(place_of(tmp_path / "s.zarr"))
        with pytest.raises(ScbassetError, match=words):
            runs._write_together(
                make_part, store.Plan(1, 1, 1, "dense"), progress, RunOptions(workers=2)
            )


@pytest.mark.parametrize("n_kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_kills(tmp_path: Path, n_kills: int) -> None:
    """SIGKILL of a run with two workers, at random moments, again and again."""
    write(tmp_path / "want.zarr", Fake(seconds=0.01), workers=1)
    want, out = contents(tmp_path / "want.zarr"), tmp_path / "s.zarr"
    rng, killed, finished = random.Random(n_kills), 0, 0
    shards = Path(f"{out}.progress/shards")
    while killed < n_kills or finished == 0:
        anew = ["--overwrite"] if out.exists() and not shards.parent.exists() else []
        run = subprocess.Popen([sys.executable, str(SCRIPT), str(out), *anew], process_group=0)
        if killed < n_kills:
            goal = len(list(shards.glob("*"))) + rng.randrange(8)
            while run.poll() is None and len(list(shards.glob("*"))) <= goal:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.03)
            os.killpg(run.pid, signal.SIGKILL)
            killed += run.wait() == -signal.SIGKILL
        if run.wait() == 0:
            assert contents(out) == want
            assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "want.zarr"]
            finished += 1
        else:
            assert run.returncode == -signal.SIGKILL
