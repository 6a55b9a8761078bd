"""What an edit changes in the bottleneck: `naive_delta` defines it.

Every delta is alt minus ref.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from scbasset_ism.model import Scbasset, eval_mode, one_hot


@dataclass(frozen=True)
class Edits:
    """Substitutions of equal width, each in one of the windows of a batch.

    Attributes:
        window: Row of the window, (edits,) int64.
        offset: First base of the patch in its window, (edits,) int64.
        bases: Codes that replace the patch, (edits, width) uint8.
    """

    window: Tensor
    offset: Tensor
    bases: Tensor

    def __len__(self) -> int:
        return len(self.window)

    @property
    def width(self) -> int:
        """Bases that each edit replaces."""
        return self.bases.shape[1]


@dataclass(frozen=True)
class Deltas:
    """Bottleneck of the reference windows, and what each edit changes in it.

    Attributes:
        ref_bottleneck: (windows, bottleneck).
        delta_bottleneck: Alt minus ref, (edits, bottleneck).
    """

    ref_bottleneck: Tensor
    delta_bottleneck: Tensor


def apply_edits(codes: Tensor, edits: Edits) -> Tensor:
    """Write each edit into a copy of its window.

    Args:
        codes: Reference windows, (windows, window) uint8.
        edits: On the device of the codes.

    Returns:
        Alternate windows, (edits, window) uint8.
    """
    positions = edits.offset[:, None] + torch.arange(edits.width, device=codes.device)
    return codes[edits.window].scatter(1, positions, edits.bases)


def naive_delta(model: Scbasset, codes: Tensor, edits: Edits, batch_size: int = 64) -> Deltas:
    """Give the delta by its definition: two full passes an edit.

    Args:
        model: In any dtype, on the device of the codes.
        codes: Reference windows, (windows, window) uint8.
        edits: On the device of the codes.
        batch_size: Windows that go through the network together.

    Returns:
        Deltas in the dtype of the model.
    """

    def encode(windows: Tensor) -> Tensor:
        dtype = model.head.weight.dtype
        batches = torch.split(windows, batch_size)
        return torch.cat([model.encode(one_hot(batch, dtype)) for batch in batches])

    with eval_mode(model), torch.inference_mode():
        ref = encode(codes)
        return Deltas(ref, encode(apply_edits(codes, edits)) - ref[edits.window])


class Engine:
    """Gives deltas; for the moment by their definition."""

    def __init__(self, model: Scbasset) -> None:
        self.model = model

    def encode(self, codes: Tensor) -> Tensor:
        """Map codes (windows, window) uint8 to the bottleneck (windows, bottleneck)."""
        with eval_mode(self.model), torch.inference_mode():
            return self.model.encode(one_hot(codes, self.model.head.weight.dtype))

    def __call__(self, codes: Tensor, edits: Edits) -> Deltas:
        """Give the deltas of the edits; shapes as in `naive_delta`."""
        return naive_delta(self.model, codes, edits)
