"""Attributions around variants or of regions, in a store.

A row is a window and the stretch in it that is kept; see `stretches`.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.attribution import AttributionOptions, attribute, import_captum
from scbasset_ism.attributions import Attributions, open_attributions
from scbasset_ism.bases import Codes
from scbasset_ism.device import enough_memory, on_device, pick_device
from scbasset_ism.errors import ScbassetError
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.places import Location
from scbasset_ism.progress import Part
from scbasset_ism.runs import Job, Rows, run, run_part
from scbasset_ism.store import Plan
from scbasset_ism.stretches import (
    Setting,
    Source,
    StretchOptions,
    Window,
    set_up,
    spooled,
    table,
    without_failures,
)
from scbasset_ism.variants import Status
from scbasset_ism.windows import read_window


@dataclass(frozen=True)
class AttributionRunOptions(StretchOptions, AttributionOptions):
    """How to attribute, and what part of which windows is kept.

    Stores are always factored.

    Attributes:
        batch_size: Sequences that go through the network together, each once for every view; the
            baselines of a window always do.
    """

    batch_size: int = 64

    def __post_init__(self) -> None:
        StretchOptions.__post_init__(self)
        AttributionOptions.__post_init__(self)
        if self.layout != "factored":
            raise ScbassetError(
                "attributions have the layout factored alone; cells are expanded on reading"
            )


def attribute_windows(
    source: Source,
    genome: Genome,
    model: Scbasset,
    out: Location,
    *,
    options: AttributionRunOptions | None = None,
) -> Attributions:
    """Write what each base around variants, or of regions, adds to the logit of every cell.

    Args:
        source: A BED file (.bed, .narrowPeak, plain or .gz) or regions; else variants, as
            `score_variants` takes them.
        genome: Where the bases come from.
        model: It is left as it was, in mode and on its device.
        out: Where the store will lie: a path, or an fsspec URL.
        options: How.

    Returns:
        The finished store.

    Raises:
        VariantError: The variants can't be read.
        RegionError: The regions can't be read.
        ReferenceMismatchError: Over a tenth of the variants have a REF that the genome has not.
        StoreError: The store can't be written, is finished, or was begun by another run.
    """
    with spooled(source) as kept:
        run(partial(_job, kept, genome, model), out, options or AttributionRunOptions())
    return open_attributions(out)


def attribute_windows_part(
    source: Source,
    genome: Genome,
    model: Scbasset,
    out: Location,
    *,
    part: Part,
    options: AttributionRunOptions | None = None,
) -> None:
    """Write a part of a store, or what is missing of it; `finalize` follows when all are written.

    Args:
        source: As for `attribute_windows`; the same for all parts, like all that follows.
        genome: Where the bases come from.
        model: It is left as it was, in mode and on its device.
        out: Where the store lies or will lie.
        part: Which part.
        options: How.

    Raises:
        ScbassetError: As for `attribute_windows`; another worker has the part.
    """
    with spooled(source) as kept:
        run_part(partial(_job, kept, genome, model), out, part, options or AttributionRunOptions())


def _job(source: Source, genome: Genome, model: Scbasset, options: AttributionRunOptions) -> Job:
    """Say what is to be written, and how."""
    if options.method == "integrated-gradients":
        import_captum()
    device = pick_device(options.device)
    given = set_up(source, genome, on_device(model, device), options)
    obs = _table([], given, np.empty(0, np.float32), np.empty(0, np.int64))
    encoder = given.encoder("attribute", Attributions.factors, obs)

    def rows(ranges: Sequence[range]) -> Generator[Rows]:
        for _, batch in given.batches(ranges):
            with enough_memory(device):
                done = _attribute(batch, given, encoder.plan)
            yield done

    def facts(_: int) -> dict[str, Any]:
        return {"contig_md5": genome.md5s, "device": str(device)}

    return Job(encoder, given.fingerprint, rows, facts)


def _attribute(batch: Sequence[Window], given: Setting[AttributionRunOptions], plan: Plan) -> Rows:
    """Give table and numbers of a batch; NaN in the rows without a window."""
    known = {row: w.codes for row, w in enumerate(batch) if w.codes is not None}
    rows = list(known)
    wide = np.full((len(batch), *plan.inner, plan.bottleneck), np.nan, dtype=np.float32)
    bottleneck, difference = np.full((2, len(batch), plan.bottleneck), np.nan, dtype=np.float32)
    error, n_steps = np.full(len(batch), np.nan, np.float32), np.zeros(len(batch), np.int64)
    windows = list(batch)
    if rows:
        found = attribute(
            given.model,
            np.stack(list(known.values())),
            options=given.options,
            shuffled=np.stack(
                [_shuffled(batch[row], codes, given) for row, codes in known.items()]
            ),
            views=given.views,
        )
        for i, row in enumerate(rows):
            own = found.hypothetical[i, batch[row].within]
            wide[row, : len(own)] = own
            if not found.is_complete[i]:
                windows[row] = batch[row].marked(Status.INCOMPLETE)
        bottleneck[rows], difference[rows] = found.bottleneck, found.difference
        error[rows], n_steps[rows] = found.error, found.n_steps
    factors = dict(zip(Attributions.factors, (wide, bottleneck, difference), strict=True))
    return _table(without_failures(windows, factors), given, error, n_steps), factors


def _shuffled(window: Window, codes: Codes, given: Setting[AttributionRunOptions]) -> Codes:
    """Whose shuffles are the baselines of a window.

    Both haplotypes of a substitution have the reference's, so that they cancel in the difference.
    """
    variant = window.stretch.variant
    if variant is None or not variant.is_substitution:
        return codes
    return read_window(given.genome, variant.chrom, window.start, given.frame)


def _table(
    windows: Sequence[Window],
    given: Setting[AttributionRunOptions],
    error: Floats,
    n_steps: Any,
) -> pd.DataFrame:
    """Describe the rows of a batch."""
    return table(windows, given.frame).assign(completeness_error=error, n_steps=n_steps)
