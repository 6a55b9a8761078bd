"""What a model learns from: the bases around each peak, and in which cells it is open."""

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from scbasset_ism.accessibility import Accessibility
from scbasset_ism.bases import Codes, reverse_complement
from scbasset_ism.evaluation import Metrics, measure, predict_spans
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.model import Config, Scbasset
from scbasset_ism.recipe import Recipe
from scbasset_ism.splits import Rows, Split, SplitKind, read_regions, split_by_place, split_randomly
from scbasset_ism.views import View

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examples:
    """What a model learns from and is measured against.

    Attributes:
        accessibility: Peaks and cells with counts, inside the genome.
        spans: Bases around each peak, a window and a margin on either side, (peaks, span) uint8.
        split: Which peak is for what.
    """

    accessibility: Accessibility
    spans: Codes
    split: Split

    def digest(self) -> str:
        """Hash all of it."""
        matrix = self.accessibility.is_open
        digest = hashlib.sha256("\n".join(self.accessibility.cells.index).encode())
        for array in (matrix.indptr, matrix.indices, self.spans, *vars(self.split).values()):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def labels(self, rows: Rows) -> Floats:
        """Give 1 where a peak is open, (rows, cells) float32."""
        return self.accessibility.is_open[rows].toarray().astype(np.float32)

    def batches(self, recipe: Recipe, epoch: int) -> Iterator[tuple[Codes, Floats]]:
        """Give the training peaks once, in random order, each from a random view.

        What does not fill the last batch is left out; another epoch has it.

        Yields:
            Codes (batch, window) uint8 and labels (batch, cells) float32.
        """
        rng = np.random.default_rng([recipe.seed, epoch])
        order = rng.permutation(self.split.train)
        size, margin = min(recipe.batch_size, len(order)), recipe.shifts
        windows = sliding_window_view(self.spans, self.spans.shape[1] - 2 * margin, axis=1)
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            codes = windows[rows, rng.integers(0, 2 * margin, size, endpoint=True)]
            if recipe.rc:
                reverse = rng.random(size) < 0.5
                codes[reverse] = reverse_complement(codes[reverse])
            yield codes, self.labels(rows)

    def n_batches(self, recipe: Recipe) -> int:
        """Batches of an epoch."""
        n = len(self.split.train)
        return n // min(recipe.batch_size, n)

    def measure(self, model: Scbasset, rows: Rows, recipe: Recipe, device: str) -> Metrics:
        """Compare a model with some peaks, seen from the forward strand and unshifted."""
        view = View(model.config.window, recipe.shifts, is_reverse=False)
        predicted = predict_spans(model, self.spans[rows], [view], device=device)
        return measure(predicted, self.accessibility.is_open[rows])


def read_examples(
    accessibility: Accessibility,
    genome: Genome,
    recipe: Recipe,
    *,
    split: SplitKind = "intervals",
    test: str | Path | None = None,
    validation: str | Path | None = None,
    window: int = Config.window,
) -> Examples:
    """Read the bases around the peaks, and split the peaks.

    Args:
        accessibility: Peaks outside the genome, and peaks and cells without counts, are dropped.
        genome: Where the peaks lie.
        recipe: Its seed and shifts.
        split: By `intervals` of the genome, so that sets share no base; or at `random`, as the
            authors do.
        test: BED file of what to hold out for the final measure, in place of an interval.
        validation: BED file of what to choose the best epoch by, in place of an interval.
        window: Bases that the model reads.

    Raises:
        AccessibilityError: Nothing is left of the peaks, or of a set.
    """
    usable = accessibility.inside(genome).with_counts()
    if split == "random":
        parts = split_randomly(len(usable.peaks), recipe.seed)
    else:
        held = [None if bed is None else read_regions(bed, genome) for bed in (test, validation)]
        parts = split_by_place(
            usable.peaks, window + recipe.shifts, recipe.seed, test=held[0], validation=held[1]
        )
    sizes = {name: len(rows) for name, rows in vars(parts).items()}
    sizes["left out between them"] = len(usable.peaks) - sum(sizes.values())
    log.info(
        "%s: %s cells; peaks: %s",
        usable.source,
        f"{len(usable.cells):,}",
        ", ".join(f"{name} {n:,}" for name, n in sizes.items()),
    )
    return Examples(usable, usable.read_spans(genome, window + 2 * recipe.shifts), parts)
