"""Every run checks itself: a sample of its deltas against two full passes."""

import torch
from torch import Tensor

from scbasset_ism.agreement import SelfCheck
from scbasset_ism.delta import Deltas, Edits, naive_delta
from scbasset_ism.model import Scbasset


def self_check(
    model: Scbasset, codes: Tensor, edits: Edits, deltas: Deltas, *, sample: int = 64, seed: int = 0
) -> SelfCheck:
    """Compare a random sample of the edits with two full passes.

    Args:
        model: That the deltas come from.
        codes: Reference windows, (windows, window) uint8.
        edits: Edits of these.
        deltas: Of all the edits.
        sample: Edits to compare; all if there are fewer.
        seed: Of the sample.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(edits), generator=generator)[:sample].to(codes.device)
    window = edits.window[chosen]
    some = Edits(
        torch.arange(len(chosen), device=codes.device), edits.offset[chosen], edits.bases[chosen]
    )
    expected = naive_delta(model, codes[window], some)
    signal = expected.delta_bottleneck.double()
    error = deltas.delta_bottleneck[chosen].double() - signal
    return SelfCheck(
        edits=len(chosen),
        max_error=error.abs().max().item() if len(chosen) else 0.0,
        error=error.square().sum().item(),
        signal=signal.square().sum().item(),
        ref=expected.ref_bottleneck.double().square().sum().item(),
        numbers=signal.numel(),
    )
