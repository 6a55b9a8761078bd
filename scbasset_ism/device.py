"""Where the network runs: choosing the device, and scoring one batch on it."""

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scbasset_ism.agreement import SelfCheck
from scbasset_ism.delta import Deltas, Edits, Engine, Precision, all_substitutions
from scbasset_ism.errors import DeviceError
from scbasset_ism.frames import Floats
from scbasset_ism.model import Scbasset
from scbasset_ism.self_check import self_check
from scbasset_ism.views import View
from scbasset_ism.windows import Batch, Indels, Substitutions


def pick_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1` or `mps` into a device that is there.

    Raises:
        DeviceError: There is no such device here.
    """
    if name == "auto":
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else mps)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(f"device {name!r} can't be used here: take auto or cpu") from error
    return device


def on_device(model: Scbasset, device: torch.device) -> Scbasset:
    """Give the model on a device: itself where it is there already, else a copy."""
    if model.head.weight.device == device:
        return model
    return copy.deepcopy(model).to(device)


@contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Say what to do where a device has no memory left.

    Raises:
        DeviceError: It has none left.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"{device} has no memory left: take a smaller --batch-size") from error


class Scorer:
    """Scores batches on a device.

    Args:
        model: Copied to the device where it is elsewhere.
        device: Where it runs.
        views: Averaged over.
        precision: Of the engine.

    Attributes:
        checked: What the rows of the last batch showed that were checked.
    """

    def __init__(
        self,
        model: Scbasset,
        device: torch.device,
        views: list[View],
        precision: Precision = "float32",
    ) -> None:
        self.model = on_device(model, device)
        self.device, self.views = device, views
        self.engine = Engine(self.model, precision)
        self.checked = SelfCheck()

    def __call__(self, batch: Batch, check: Collection[int] = ()) -> tuple[Floats, Floats]:
        """Score a batch.

        Args:
            batch: What to score.
            check: Rows to compare with two full passes, where they are substitutions.

        Raises:
            SelfCheckError: They differ by more than rounding.

        Returns:
            Bottleneck of the reference, and alternate minus reference, both
            (rows, bottleneck) float32, NaN in the rows without a variant.
        """
        self.checked = SelfCheck()
        ref, delta = np.full(
            (2, len(batch.records), self.model.config.bottleneck), np.nan, dtype=np.float32
        )
        for group in batch.substitutions:
            ref[group.rows], delta[group.rows] = self._substitutions(group, check)
        if batch.indels is not None:
            ref[batch.indels.rows], delta[batch.indels.rows] = self._indels(batch.indels)
        flipped = np.array([record.sign < 0 for record in batch.records], dtype=bool)
        ref[flipped] += delta[flipped]  # scored from the genome's base, which is ALT in the file
        delta[flipped] *= -1
        self.checked.require(self.engine.precision)
        return ref, delta

    def encode(self, spans: NDArray[np.uint8]) -> Floats:
        """Give the bottleneck of windows (windows, span), averaged over the views."""
        codes = self._send(spans)
        return self._average(lambda view: (self.engine.encode(view.codes(codes)),))[0]

    def saturate(
        self, spans: NDArray[np.uint8], within: NDArray[np.int64], check: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Substitute every base of a stretch of each window.

        Args:
            spans: Windows with their margins, (windows, span) uint8.
            within: Where the stretch begins and ends in the span, (windows, 2); it lies inside of
                every view.
            check: Edits of each window, drawn anew, to compare with two full passes, (windows,).

        Returns:
            Bottleneck of the windows, (windows, bottleneck) float32, and what every substitution
            changes in it, (windows, longest stretch, 4, bottleneck) float32: 0 at the base that
            is there, NaN past the end of a shorter stretch.

        Raises:
            SelfCheckError: They differ by more than rounding.
        """
        self.checked = SelfCheck()
        codes, bounds = self._send(spans), self._send(within)
        edits = all_substitutions(codes, bounds)
        window = edits.window.cpu().numpy()
        chosen = self._send(
            np.concatenate([_spread(np.flatnonzero(window == i), n) for i, n in enumerate(check)])
        )

        def score(view: View) -> tuple[Tensor, Tensor]:
            seen, moved = view.codes(codes), view.edits(edits)
            deltas = self.engine(seen, moved)
            if view is self.views[0]:
                self._check(seen, moved, deltas, chosen)
            return deltas.ref_bottleneck, deltas.delta_bottleneck

        ref, changed = self._average(score)
        self.checked.require(self.engine.precision)
        length = within[:, 1] - within[:, 0]
        delta = np.full((len(spans), length.max(), 4, ref.shape[1]), np.nan, dtype=np.float32)
        delta[np.arange(length.max()) < length[:, None]] = 0
        place = edits.offset.cpu().numpy() - within[window, 0]
        delta[window, place, edits.bases[:, 0].cpu().numpy()] = changed
        return ref, delta

    def _check(self, codes: Tensor, edits: Edits, deltas: Deltas, chosen: Tensor) -> None:
        """Compare some edits with two full passes, those that are finite: others will fail."""
        rows = chosen[deltas.delta_bottleneck[chosen].isfinite().all(1)]
        some = Edits(edits.window[rows], edits.offset[rows], edits.bases[rows])
        result = Deltas(deltas.ref_bottleneck, deltas.delta_bottleneck[rows])
        self.checked += self_check(self.model, codes, some, result, sample=len(rows))

    def _substitutions(self, group: Substitutions, check: Collection[int]) -> list[Floats]:
        codes = self._send(group.codes)
        edits = Edits(self._send(group.window), self._send(group.offset), self._send(group.bases))

        chosen = self._send(np.flatnonzero(np.isin(group.rows, list(check))))

        def score(view: View) -> tuple[Tensor, Tensor]:
            seen, moved = view.codes(codes), view.edits(edits)
            deltas = self.engine(seen, moved)
            if view is self.views[0]:
                self._check(seen, moved, deltas, chosen)
            return deltas.ref_bottleneck[edits.window], deltas.delta_bottleneck

        return self._average(score)

    def _indels(self, indels: Indels) -> list[Floats]:
        codes, alternates = self._send(indels.codes), self._send(indels.alternates).flatten(0, 1)

        def score(view: View) -> tuple[Tensor, Tensor]:
            ref = self.engine.encode(view.codes(codes))
            alt = self.engine.encode(view.codes(alternates)).view(len(codes), 2, -1).mean(1)
            return ref, alt - ref

        return self._average(score)

    def _average(self, score: Callable[[View], tuple[Tensor, ...]]) -> list[Floats]:
        """Average what a function gives over the views; each result becomes an array."""
        with enough_memory(self.device):
            results = zip(*(score(view) for view in self.views), strict=True)
            return [torch.stack(views).mean(0).float().cpu().numpy() for views in results]

    def _send(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _spread(edits: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Choose n of some edits, the same every time, all over them; all where there are fewer."""
    rng = np.random.default_rng(len(edits))
    return rng.permutation(edits)[:n]
