"""How much each base of a window adds to the logit of every cell.

The head is linear, so an attribution of any cell, or of the mean of any cells, is a row of W times
the attributions of the bottleneck's numbers. Only those are computed: 32 backward passes serve all
cells. The network is never asked about a cell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from scbasset_ism.bases import Codes, N
from scbasset_ism.contributions import Contributions, Numbers, completeness_error, own_base
from scbasset_ism.errors import ScbassetError
from scbasset_ism.model import Scbasset, eval_mode, one_hot
from scbasset_ism.reference_pass import true_float32
from scbasset_ism.shuffles import dinucleotide_shuffle
from scbasset_ism.views import View, all_views

Method = Literal["integrated-gradients", "input-x-gradient"]
Baseline = Literal["n", "shuffle"]
FIRST_STEPS = 32  # in the demo model: an error of 5 %, a correlation of 0.9986 with 256 steps


@dataclass(frozen=True)
class AttributionOptions:
    """How to attribute.

    Attributes:
        method: Integrated gradients, or the gradient at the window alone, which is two orders of
            magnitude cheaper and explains no difference.
        baseline: What integrated gradients start from: N everywhere, or dinucleotide shuffles of
            the window, over which they are averaged (expected gradients).
        n_shuffles: Shuffles of each window.
        seed: Of the shuffles; a window has the same ones wherever it stands.
        tolerance: Of the completeness error (see `Contributions`); the authors of the method take
            5 %.
        max_steps: The steps of the integral are doubled until the error is within the tolerance,
            or they would be more than these.
        batch_size: Sequences that go through the network together; the baselines of a window
            always do.
    """

    method: Method = "integrated-gradients"
    baseline: Baseline = "n"
    n_shuffles: int = 20
    seed: int = 0
    tolerance: float = 0.05
    max_steps: int = 256
    batch_size: int = 64

    def __post_init__(self) -> None:
        if min(self.n_shuffles, self.max_steps, self.batch_size) < 1 or self.seed < 0:
            raise ScbassetError(
                f"shuffles {self.n_shuffles}, steps {self.max_steps} and batch size "
                f"{self.batch_size} must be at least 1, the seed {self.seed} at least 0"
            )
        if not self.tolerance > 0:
            raise ScbassetError(f"the tolerance {self.tolerance} must be above 0")


def attribute(
    model: Scbasset,
    codes: Codes,
    *,
    options: AttributionOptions | None = None,
    shuffled: Codes | None = None,
    views: Sequence[View] | None = None,
) -> Contributions:
    """Attribute the bottleneck to the bases of windows.

    Integrated gradients (Sundararajan, Taly & Yan, ICML 2017) are Captum's, by Gauss-Legendre
    quadrature, with all numbers of the bottleneck from one forward pass a step. Max pooling makes
    the gradient jump along the path, so the error falls slowly with the steps. An N adds nothing,
    whatever the baseline. With shuffles the result is an average over baselines (expected
    gradients: Erion et al., Nat. Mach. Intell. 3, 620-631, 2021).

    Args:
        model: It is left as it was; the result has its dtype.
        codes: (windows, window) uint8.
        options: How.
        shuffled: Whose shuffles are the baselines, (windows, window); by default the windows' own.
        views: Whose mean is attributed; the windows then have the margins that these need. By
            default the window as it is.

    Returns:
        As many windows, in memory: 0.7 MB each at the sizes of the publication.
    """
    options = options or AttributionOptions()
    codes = np.asarray(codes, dtype=np.uint8)
    seen = _Seen(model, views or all_views(model.config.window, rc=False, shifts=0))
    if codes.ndim != 2 or codes.shape[1] != seen.span:
        raise ScbassetError(
            f"codes have the shape {codes.shape}; the model reads (windows, {seen.span})"
        )
    with eval_mode(model), true_float32():
        if options.method == "input-x-gradient":
            return _gradients(seen, codes, options.batch_size)
        return _integrated(seen, codes, codes if shuffled is None else shuffled, options)


@dataclass(frozen=True)
class _Seen:
    """A model that averages over views."""

    model: Scbasset
    views: Sequence[View]

    @property
    def span(self) -> int:
        """Bases that all views read together; the first and the last reach furthest."""
        return self.views[-1].start + self.model.config.window

    def encode(self, x: Tensor) -> Tensor:
        """Map one-hot (batch, 4, span) to the bottleneck (batch, bottleneck)."""
        return torch.stack([self.model.encode(view.one_hot(x)) for view in self.views]).mean(0)

    def one_hot(self, codes: Codes) -> Tensor:
        """Map (batch, span) uint8 to what `encode` takes."""
        weight = self.model.head.weight
        return one_hot(torch.from_numpy(codes).to(weight.device), weight.dtype)

    def empty(self, codes: Codes) -> Contributions:
        """Make room for a result."""
        n, bottleneck = len(codes), self.model.config.bottleneck
        dtype = np.dtype(str(self.model.head.weight.dtype).removeprefix("torch."))
        return Contributions(
            codes,
            np.zeros((n, self.span, 4, bottleneck), dtype),
            np.zeros((n, bottleneck), dtype),
            np.zeros((n, bottleneck), dtype),
            np.zeros(n, dtype),
            np.zeros(n, np.int64),
            np.zeros(n, np.bool_),
        )


def _gradients(seen: _Seen, codes: Codes, batch_size: int) -> Contributions:
    """Give the gradients at the windows themselves."""
    result = seen.empty(codes)
    for start in range(0, len(codes), batch_size):
        some = slice(start, start + batch_size)
        x = seen.one_hot(codes[some]).requires_grad_()
        result.hypothetical[some] = _positions_first(_jacobian(seen.encode, (x,))[0])
        with torch.no_grad():
            result.bottleneck[some] = seen.encode(x).cpu().numpy()
    result.error[:] = np.nan
    result.is_complete[:] = True
    return result


def _integrated(
    seen: _Seen, codes: Codes, shuffled: Codes, options: AttributionOptions
) -> Contributions:
    """Integrate with more and more steps, as long as the sum is not what it should be."""
    result = seen.empty(codes)
    weight = seen.model.head.weight.detach().cpu().numpy()
    pending, n_steps = np.arange(len(codes)), min(FIRST_STEPS, options.max_steps)
    per_window = options.n_shuffles if options.baseline == "shuffle" else 1
    together = max(1, options.batch_size // per_window)
    while len(pending) and n_steps <= options.max_steps:
        for start in range(0, len(pending), together):
            some = pending[start : start + together]
            starts = baselines(shuffled[some], options)
            hypothetical, bottleneck, difference = _along_paths(
                seen, codes[some], starts, n_steps=n_steps, batch_size=options.batch_size
            )
            result.hypothetical[some], result.bottleneck[some] = hypothetical, bottleneck
            result.difference[some] = difference
            total = own_base(hypothetical, codes[some]).sum(axis=1)
            result.error[some] = completeness_error(total, difference, weight)
        result.n_steps[pending] = n_steps
        pending = pending[result.error[pending] > options.tolerance]
        n_steps *= 2
    result.is_complete[:] = result.error <= options.tolerance
    return result


def baselines(codes: Codes, options: AttributionOptions) -> Codes:
    """Give the baselines of windows, (windows, baselines, window) uint8."""
    if options.baseline == "n":
        return np.full_like(codes, N)[:, None]
    shuffles = []
    for window in codes:
        rng = np.random.default_rng([options.seed, crc32(window.tobytes())])
        shuffles.append([dinucleotide_shuffle(window, rng) for _ in range(options.n_shuffles)])
    return np.array(shuffles, dtype=np.uint8).reshape(len(codes), options.n_shuffles, -1)


def _along_paths(
    seen: _Seen, codes: Codes, starts: Codes, *, n_steps: int, batch_size: int
) -> tuple[Numbers, Numbers, Numbers]:
    """Give `hypothetical`, `bottleneck`, `difference` from (windows, baselines, span) codes."""
    captum: Any = import_captum()
    windows, per_window = starts.shape[:2]
    x = seen.one_hot(codes)
    start = seen.one_hot(starts.reshape(windows * per_window, -1))
    end = x.repeat_interleave(per_window, dim=0)  # (windows * baselines, 4, span)
    integral = captum.IntegratedGradients(seen.encode, multiply_by_inputs=False)
    integral.gradient_func = _jacobian
    mean_gradient = integral.attribute(
        end, start, n_steps=n_steps, internal_batch_size=max(batch_size, len(end))
    )  # (windows * baselines, bottleneck, 4, span)
    per_base = mean_gradient - (mean_gradient * start[:, None]).sum(2, keepdim=True)
    hypothetical = per_base.reshape(windows, per_window, *per_base.shape[1:]).mean(1)
    with torch.no_grad():
        before = seen.encode(start).reshape(windows, per_window, -1).mean(1)
        after = seen.encode(x)
    difference = (after - before).cpu().numpy()
    return _positions_first(hypothetical), after.cpu().numpy(), difference


def _jacobian(
    forward_fn: Callable[[Tensor], Tensor], inputs: tuple[Tensor, ...], **_: object
) -> tuple[Tensor]:
    """Differentiate all outputs of one forward pass; takes the place of Captum's gradients.

    (batch, 4, window) to (batch, bottleneck, 4, window).
    """
    (x,) = inputs
    with torch.enable_grad():
        outputs = forward_fn(x).sum(0)  # sequences don't touch each other
        gradients = [torch.autograd.grad(output, x, retain_graph=True)[0] for output in outputs]
    return (torch.stack(gradients, dim=1),)


def _positions_first(maps: Tensor) -> Numbers:
    """Turn (windows, bottleneck, 4, span) to (windows, span, 4, bottleneck)."""
    return np.asarray(maps.permute(0, 3, 2, 1).cpu().numpy())


def import_captum() -> Any:
    """Import Captum's attributions, or say how to get them."""
    try:
        return import_module("captum.attr")
    except ImportError as error:
        raise ScbassetError(
            "integrated gradients need Captum: pip install 'scbasset-ism[attribution]'"
        ) from error
