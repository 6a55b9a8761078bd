"""How well a model tells open peaks from closed ones, by the measures of the publication."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from scbasset_ism.accessibility import Accessibility
from scbasset_ism.bases import Codes
from scbasset_ism.device import Scorer, pick_device
from scbasset_ism.errors import AccessibilityError
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.metrics import BLOCK, correlation, mean, rank_columns
from scbasset_ism.model import Scbasset
from scbasset_ism.splits import peaks_inside, read_regions
from scbasset_ism.streams import batched
from scbasset_ism.views import View, all_views


@dataclass(frozen=True)
class Metrics:
    """Means over cells (do peaks rank right in a cell?) and over peaks (do cells, in a peak?).

    Attributes:
        peaks: How many were looked at.
        cells: Of the model.
        loss: Mean binary cross-entropy, in nats.
        cells_auroc: Mean over the cells that have open and closed peaks; NaN if none has.
        cells_auprc: The same of the average precision.
        cells_auprc_of_chance: What ranking at random gives: the share of open peaks.
        cells_ranked: Cells in these means.
        peaks_auroc: Mean over the peaks that are open in some cells and closed in others.
        peaks_auprc: The same of the average precision.
        peaks_auprc_of_chance: What ranking at random gives: the share of open cells.
        peaks_ranked: Peaks in these means.
        depth_correlation: Pearson's r over cells of the intercept and log10 of the number of open
            peaks; 0.98 in the publication. NaN where all cells have as many.
    """

    peaks: int
    cells: int
    loss: float
    cells_auroc: float
    cells_auprc: float
    cells_auprc_of_chance: float
    cells_ranked: int
    peaks_auroc: float
    peaks_auprc: float
    peaks_auprc_of_chance: float
    peaks_ranked: int
    depth_correlation: float

    def as_json(self) -> dict[str, float | None]:
        """Give all of it, None for what is not defined."""
        return {k: None if np.isnan(v) else v for k, v in asdict(self).items()}


class Predicted:
    """Bottlenecks of peaks, whose logits are made a block at a time.

    Args:
        model: Whose head.
        bottleneck: (peaks, bottleneck) float32.
    """

    def __init__(self, model: Scbasset, bottleneck: Floats) -> None:
        self.bottleneck = bottleneck
        self.weight = model.head.weight.detach().float().cpu().numpy()
        self.intercept = model.head.bias.detach().float().cpu().numpy()

    def of_cells(self, cells: slice) -> Floats:
        """Logits of some cells in all peaks, (peaks, cells)."""
        return self.bottleneck @ self.weight[cells].T + self.intercept[cells]

    def of_peaks(self, peaks: slice) -> Floats:
        """Logits of some peaks in all cells, (cells, peaks)."""
        return (self.bottleneck[peaks] @ self.weight.T + self.intercept).T

    def loss(self, is_open: sparse.csr_array) -> float:
        """Mean binary cross-entropy: softplus(logit), less the logit where a peak is open."""
        total = 0.0
        for start in range(0, len(self.bottleneck), BLOCK):
            rows = slice(start, start + BLOCK)
            logits = self.of_peaks(rows).T.astype(np.float64)
            total += np.logaddexp(0, logits).sum() - logits[is_open[rows].toarray()].sum()
        return float(total / (is_open.shape[0] * is_open.shape[1]))


def predict_spans(
    model: Scbasset, spans: Codes, views: list[View], *, device: str, batch_size: int = 128
) -> Predicted:
    """Run the network over spans (peaks, span) uint8, averaged over views."""
    scorer = Scorer(model, pick_device(device), views)
    batches = [scorer.encode(spans[rows]) for rows in batched(range(len(spans)), batch_size)]
    return Predicted(model, np.concatenate(batches))


def evaluate(
    model: Scbasset,
    accessibility: Accessibility,
    genome: Genome,
    *,
    regions: str | Path | None = None,
    rc: bool = False,
    shifts: int = 0,
    device: str = "auto",
) -> Metrics:
    """Measure a model on peaks x cells.

    Args:
        model: It is left as it was.
        accessibility: Of its cells, by name, in any order; what leaves the genome is dropped.
        genome: Where the peaks lie.
        regions: BED file: only the peaks whose middle lies in one of these; all by default.
        rc: Average over both strands.
        shifts: Average over windows moved by up to so many bases to either side.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises:
        AccessibilityError: The cells are others, or no peak is left.
    """
    own = accessibility.of_cells(model.cells.index, "the model").inside(genome)
    if regions is not None:
        own = own.take(peaks_inside(own.peaks, read_regions(regions, genome)))
        if not own.peaks:
            raise AccessibilityError(f"{own.source} has no peak in the regions of {regions}")
    window = model.config.window
    spans = own.read_spans(genome, window + 2 * shifts)
    views = all_views(window, rc=rc, shifts=shifts)
    return measure(predict_spans(model, spans, views, device=device), own.is_open)


def measure(predicted: Predicted, is_open: sparse.csr_array) -> Metrics:
    """Compare predictions with (peaks, cells) bool."""
    cells = rank_columns(is_open, predicted.of_cells)
    peaks = rank_columns(is_open.T.tocsr(), predicted.of_peaks)
    depth = np.asarray(is_open.sum(axis=0))
    some = depth > 0
    return Metrics(
        peaks=is_open.shape[0],
        cells=is_open.shape[1],
        loss=predicted.loss(is_open),
        cells_auroc=mean(cells.auroc),
        cells_auprc=mean(cells.auprc),
        cells_auprc_of_chance=mean(cells.chance),
        cells_ranked=cells.n,
        peaks_auroc=mean(peaks.auroc),
        peaks_auprc=mean(peaks.auprc),
        peaks_auprc_of_chance=mean(peaks.chance),
        peaks_ranked=peaks.n,
        depth_correlation=correlation(predicted.intercept[some], np.log10(depth[some])),
    )
