"""How any run goes: begin the store, write what is missing of it, finish it.

Shards are written by this process, by a few at once, or by workers on other machines that call
this with a part each. All of them give the same bytes.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pandas as pd
import torch

from scbasset_ism.encoder import Encoder, Writer
from scbasset_ism.errors import ReferenceMismatchError, StoreError
from scbasset_ism.finishing import try_to_finish
from scbasset_ism.frames import Floats
from scbasset_ism.pipeline import RunOptions, in_background, progress_bar
from scbasset_ism.places import Location, place_of
from scbasset_ism.progress import Part, Progress
from scbasset_ism.store import Plan, check_room
from scbasset_ism.workers import run_together

Options = TypeVar("Options", bound=RunOptions)
Rows = tuple[pd.DataFrame, dict[str, Floats]]
MISMATCHES_ALLOWED = 0.1  # of all rows; more of them speak of another assembly


@dataclass(frozen=True)
class Job:
    """What one kind of run writes, and how.

    Attributes:
        encoder: Makes the files of the store.
        fingerprint: All that the numbers depend on, by name; JSON.
        rows: Gives the rows of some ranges in order, table and factors, batch by batch.
        facts: What is to be known of a shard, by its number, that was just made; JSON.
    """

    encoder: Encoder
    fingerprint: dict[str, Any]
    rows: Callable[[Sequence[range]], Generator[Rows]]
    facts: Callable[[int], dict[str, Any]]


def run(make: Callable[[Options], Job], out: Location, options: Options) -> None:
    """Write a whole store, or what is missing of it.

    Args:
        make: Gives what is to be written; where there are several workers, it must be picklable.
        out: Where the store lies, or will lie.
        options: How.

    Raises:
        StoreError: The store can't be written, is finished, or was begun by another run.
    """
    job = make(options)
    progress = begin(job.encoder, job.fingerprint, out, overwrite=options.overwrite)
    for _ in range(2):  # once more where a shard of an earlier run turns out to be damaged
        if options.n_workers == 1:
            write(job, progress, show=options.progress)
        else:
            _write_together(make, job.encoder.plan, progress, options)
        if not try_to_finish(progress, check_mismatches):
            return
    finalize(out)


def run_part(make: Callable[[Options], Job], out: Location, part: Part, options: Options) -> None:
    """Write what is missing of a part; the first worker to come begins the store.

    Raises:
        StoreError: As `run` says, or another worker has the part.
    """
    job = make(options)
    progress = begin(job.encoder, job.fingerprint, out, overwrite=False)
    write(job, progress, part, show=options.progress)


def finalize(out: Location) -> None:
    """Check all shards and mark the store complete.

    Raises:
        StoreError: Shards are missing or damaged; it says which.
        ReferenceMismatchError: Over a tenth of the rows have a REF that the genome has not.
    """
    progress = Progress(place_of(out))
    if missing := try_to_finish(progress, check_mismatches):
        manifest = progress.manifest()
        raise StoreError(
            f"{out} is incomplete: {shards_text(missing)} of "
            f"{manifest.n_shards if manifest else 0} are missing; write their parts (the same "
            "command does only what is missing), then finalize again"
        )


def begin(
    encoder: Encoder,
    fingerprint: Mapping[str, Any],
    out: Location,
    *,
    overwrite: bool,
    facts: Mapping[str, Any] | None = None,
) -> Progress:
    """Begin a store or go on with it, and tell how large it will be."""
    progress = Progress(place_of(out))
    check_room(progress, encoder.schema, encoder.plan, overwrite=overwrite)
    manifest = encoder.manifest(fingerprint, facts)
    progress.begin(manifest, encoder.skeleton, overwrite=overwrite)
    return progress


def write(job: Job, progress: Progress, part: Part | None = None, *, show: bool) -> None:
    """Write the shards of a part that are missing; all by default."""
    plan = job.encoder.plan
    shards = (part or Part()).shards(plan.n_shards)
    with progress.writing(shards):
        missing = progress.missing(shards)
        ranges = [plan.rows(shard) for shard in missing]
        writer = Writer(job.encoder, progress, missing, job.facts)
        with (
            progress_bar(sum(map(len, ranges)), show=show) as advance,
            in_background(writer.append) as append,
            closing(job.rows(ranges)) as batches,
        ):
            for obs, factors in batches:
                append(obs, factors)
                advance(len(obs))
        writer.close()


def _write_together(
    make: Callable[[Options], Job], plan: Plan, progress: Progress, options: Options
) -> None:
    """Write all parts at once, a process each."""
    n, devices = options.n_workers, options.devices or (options.device,)
    threads = max(1, torch.get_num_threads() // n)
    tasks = [
        partial(
            _write_alone,
            threads,
            make=make,
            out=str(progress.store),
            part=Part(i + 1, n),
            options=replace(
                options, device=devices[i % len(devices)], overwrite=False, progress=False
            ),
        )
        for i in range(n)
    ]
    done = progress.marked()
    with progress_bar(plan.n_rows, done * plan.shard_rows, show=options.progress) as advance:
        for _ in run_together(tasks):
            done, before = progress.marked(), done
            advance((done - before) * plan.shard_rows)


def _write_alone(threads: int, **run: Any) -> None:
    """Write a part in a process of its own."""
    torch.set_num_threads(threads)
    run_part(**run)


def check_mismatches(attributes: dict[str, Any]) -> None:
    """Refuse scores whose genome is not the one that the variants were called on.

    Raises:
        ReferenceMismatchError: Over a tenth of the rows mismatch.
    """
    counts = attributes["counts"]
    wrong, rows = counts.get("REF_MISMATCH", 0), sum(counts.values())
    if wrong > MISMATCHES_ALLOWED * rows:
        raise ReferenceMismatchError(
            f"{attributes['variants']['path']}: REF differs from the genome in {wrong:,} of "
            f"{rows:,} rows; is {attributes['genome']['path']} the assembly they were called on?"
        )


def shards_text(shards: Sequence[int]) -> str:
    """Write numbers of shards as ranges.

    >>> shards_text([0, 1, 2, 5])
    'shards 0-2, 5'
    """
    runs: list[list[int]] = []
    for shard in shards:
        if runs and shard == runs[-1][1] + 1:
            runs[-1][1] = shard
        else:
            runs.append([shard, shard])
    spans = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs]
    shown = ", ".join(spans[:20]) + (f", ... ({len(shards):,})" if len(spans) > 20 else "")
    return f"shards {shown}"
