"""The same window read from either strand and a few bases aside, on the device.

Averages over views are averages of bottlenecks, and so of logits, since the head is linear.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scbasset_ism.delta import Edits

_COMPLEMENT = torch.tensor([3, 2, 1, 0, 4], dtype=torch.uint8)


@dataclass(frozen=True)
class View:
    """One way to read a window from its span (window and margins).

    Attributes:
        window: Bases that the model reads.
        start: Where the view begins in the span.
        is_reverse: It reads the other strand.
    """

    window: int
    start: int
    is_reverse: bool

    def codes(self, spans: Tensor) -> Tensor:
        """Cut (windows, span) uint8 to (windows, window)."""
        codes = spans[:, self.start : self.start + self.window]
        return _reverse_complement(codes) if self.is_reverse else codes

    def one_hot(self, x: Tensor) -> Tensor:
        """Cut one-hot (windows, 4, span) to (windows, 4, window); gradients pass."""
        x = x[..., self.start : self.start + self.window]
        return x.flip(1, 2) if self.is_reverse else x

    def edits(self, edits: Edits) -> Edits:
        """Move edits, whose offsets count from the start of the span, into the view."""
        offset = edits.offset - self.start
        if not self.is_reverse:
            return Edits(edits.window, offset, edits.bases)
        return Edits(
            edits.window, self.window - offset - edits.width, _reverse_complement(edits.bases)
        )


def all_views(window: int, *, rc: bool, shifts: int) -> list[View]:
    """List the views: shifts from `-shifts` to `shifts`, each on one or on both strands."""
    strands = (False, True) if rc else (False,)
    return [View(window, start, strand) for start in range(2 * shifts + 1) for strand in strands]


def _reverse_complement(codes: Tensor) -> Tensor:
    return _COMPLEMENT.to(codes.device)[codes.flip(1).long()]
