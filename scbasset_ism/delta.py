"""What an edit changes in the bottleneck: `naive_delta` defines it, `Engine` is the fast way.

The engine runs the reference once a window and then carries, layer by layer, only the *difference*
that an edit makes, in a short frame of positions. A convolution is linear, so the difference passes
it without the reference; only the maximum and the GELU need the reference activations back. And
since it is a difference that is multiplied, bfloat16 products cost it 1 %, where the difference of
two bfloat16 passes would be noise.

Frames are position-major, (width, edits, channels): as an image, positions are its rows and edits
its columns. A convolution padded in its rows alone then does not multiply the padding, and gives
all that a frame reaches in one call. Every delta is alt minus ref.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import record_function

from scbasset_ism.model import Scbasset, eval_mode, one_hot
from scbasset_ism.reference_pass import SLOPE, Activations, ReferencePass, true_float32
from scbasset_ism.spans import Chunk, Integers, Spots, Step, geometry, plan

Precision = Literal["float32", "bfloat16"]

# Beyond these a CPU leaves its caches and gets slower (measured); a GPU takes what memory allows.
CPU_WINDOWS, CPU_EDITS = 16, 384


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


@dataclass(frozen=True)
class Saturation:
    """Bottleneck of the reference windows, and what every substitution changes in it.

    Attributes:
        ref_bottleneck: (windows, bottleneck).
        delta_bottleneck: Alt minus ref, (windows, window, 4, bottleneck); 0 at the reference base.
    """

    ref_bottleneck: Tensor
    delta_bottleneck: Tensor

    def of(self, edits: Edits) -> Deltas:
        """Pick the deltas of single-base edits."""
        picked = self.delta_bottleneck[edits.window, edits.offset, edits.bases[:, 0].long()]
        return Deltas(self.ref_bottleneck, picked)


def patch_positions(edits: Edits) -> Tensor:
    """Offsets of the bases of each patch, (edits, width) int64."""
    return edits.offset[:, None] + torch.arange(edits.width, device=edits.offset.device)


def apply_edits(codes: Tensor, edits: Edits) -> Tensor:
    """Write each edit into a copy of its window.

    Args:
        codes: Reference windows, (windows, window) uint8.
        edits: On the device of the codes.

    Returns:
        Alternate windows, (edits, window) uint8.
    """
    return codes[edits.window].scatter(1, patch_positions(edits), edits.bases)


def all_substitutions(codes: Tensor, within: Tensor | None = None) -> Edits:
    """List every single-base substitution of windows: 3 a base, 4 an N.

    Args:
        codes: (windows, window) uint8.
        within: First offset and the one after the last, (windows, 2) int64; all by default.
    """
    alt = torch.arange(4, dtype=torch.uint8, device=codes.device)
    wanted = codes[..., None] != alt  # (windows, window, 4)
    if within is not None:
        place = torch.arange(codes.shape[1], device=codes.device)
        inside = (place >= within[:, :1]) & (place < within[:, 1:])
        wanted &= inside[..., None]
    window, offset, base = wanted.nonzero(as_tuple=True)
    return Edits(window, offset, alt[base, None])


def naive_delta(model: Scbasset, codes: Tensor, edits: Edits, batch_size: int = 64) -> Deltas:
    """Give the delta by its definition: a full pass of every window, and one of every edit.

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

    with eval_mode(model), torch.inference_mode(), true_float32():
        ref = encode(codes)
        return Deltas(ref, encode(apply_edits(codes, edits)) - ref[edits.window])


def resolve_precision(
    wanted: Literal["auto"] | Precision, device: torch.device, work: Literal["score", "ism"]
) -> Precision:
    """Choose the precision of the products of differences.

    `auto` is bfloat16 for saturation mutagenesis on a device that multiplies it in hardware. For
    single variants, where the reference pass takes nearly all the time, it is float32.
    """
    if wanted != "auto":
        return wanted
    if work == "score":
        return "float32"
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if device.type != "cpu":
        return "float32"
    can = torch.cpu.get_capabilities()
    return "bfloat16" if can.get("avx512_bf16") or can.get("amx_bf16") else "float32"


class Engine:
    """A fast `naive_delta`, on a folded copy of a model.

    Args:
        model: It is not changed, and later changes to it don't count.
        precision: Of the products of differences; all else has the model's dtype.
        memory: Bytes that a call may use beside its arguments and its result.
    """

    def __init__(
        self, model: Scbasset, precision: Precision = "float32", memory: int = 2**29
    ) -> None:
        self.config, self.precision, self.memory = model.config, precision, memory
        self.reference = ReferencePass(model)
        self.geometry = geometry(model.config)
        self.device, self.dtype = model.head.weight.device, model.head.weight.dtype
        narrow = torch.bfloat16 if precision == "bfloat16" else self.dtype
        stem, *others = self.reference.layers
        # The stem's products are a thousandth of all, so they can stay exact.
        self.weights = [stem.weight, *(layer.weight.to(narrow) for layer in others)]
        per_code = torch.cat([torch.eye(4), torch.full((1, 4), 0.25)])
        self.code_weights = per_code.to(self.device, self.dtype)  # (codes, 4)

    def encode(self, codes: Tensor) -> Tensor:
        """Map codes (windows, window) uint8 to the bottleneck (windows, bottleneck)."""
        with torch.inference_mode(), true_float32():
            z = self._empty(len(codes))
            for some, out in zip(*self._split(codes, z), strict=True):
                for activations in self.reference.run(some):
                    last = activations.a
                out.copy_(self.reference.bottleneck(last))
            return F.silu(z) / SLOPE

    def __call__(self, codes: Tensor, edits: Edits) -> Deltas:
        """Give the deltas of edits.

        Args:
            codes: Reference windows, (windows, window) uint8, on the device of the model.
            edits: On the same device; a window may have none, one or many.

        Returns:
            Deltas in the dtype of the model.
        """
        with torch.inference_mode(), true_float32():
            z, delta = self._empty(len(codes)), self._empty(len(edits))
            window, offset = edits.window.cpu().numpy(), edits.offset.cpu().numpy()
            patches = self._patches(codes, edits)
            first = 0
            for some, out in zip(*self._split(codes, z), strict=True):
                with record_function("reference"):
                    activations = list(self.reference.run(some))
                    out.copy_(self.reference.bottleneck(activations[-1].a))
                chosen = np.flatnonzero((window >= first) & (window < first + len(some)))
                spots = Spots(window[chosen] - first, offset[chosen], edits.width)
                for chunk in plan(self.geometry, spots, self._batch_edits(edits.width)):
                    rows = self._send(chosen[chunk.edits])
                    difference = self._carry(patches[rows], activations, chunk)
                    delta[rows] = self._finish(difference, z[edits.window[rows]], chunk)
                first += len(some)
                del activations  # before the next ones are made
            return Deltas(F.silu(z) / SLOPE, delta)

    def saturate(self, codes: Tensor) -> Saturation:
        """Give the deltas of every substitution of every base.

        Args:
            codes: Reference windows, (windows, window) uint8, on the device of the model.
        """
        with torch.inference_mode():
            edits = all_substitutions(codes)
            deltas = self(codes, edits)
            delta = self._empty(0).new_zeros(*codes.shape, 4, self.config.bottleneck)
            delta[edits.window, edits.offset, edits.bases[:, 0].long()] = deltas.delta_bottleneck
            return Saturation(deltas.ref_bottleneck, delta)

    def _split(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Split tensors (windows, ...) into as many windows as the memory allows."""
        item = self.reference.dense.element_size()
        layers = zip(self.geometry, self.reference.layers, strict=True)
        rows = sum((g.length + 3 * g.pooled) * len(layer.bias) for g, layer in layers)
        size = max(1, self.memory // 2 // (rows * item))
        if self.device.type == "cpu":
            size = min(size, CPU_WINDOWS)
        return [torch.split(tensor, size) for tensor in tensors]

    def _batch_edits(self, width: int) -> int:
        """Edits of a width that the memory allows in one chunk."""
        largest = 0
        for layer, g in zip(self.reference.layers, self.geometry, strict=True):
            convolved = width + g.kernel - 1
            width = min(-(-(convolved + g.pool - 1) // g.pool), g.pooled)
            largest = max(largest, (convolved + width * (g.pool + 5)) * len(layer.bias))
        size = max(1, self.memory // 2 // (largest * self.reference.dense.element_size()))
        return min(size, CPU_EDITS) if self.device.type == "cpu" else size

    def _empty(self, rows: int) -> Tensor:
        return torch.empty(rows, self.config.bottleneck, dtype=self.dtype, device=self.device)

    def _send(self, indices: Integers) -> Tensor:
        return torch.from_numpy(indices).to(self.device)

    def _patches(self, codes: Tensor, edits: Edits) -> Tensor:
        """Differences of the stem's input, (edits, width, 4)."""
        replaced = codes[edits.window[:, None], patch_positions(edits)]
        return self.code_weights[edits.bases.long()] - self.code_weights[replaced.long()]

    def _carry(self, patches: Tensor, activations: list[Activations], chunk: Chunk) -> Tensor:
        """Take differences (edits, width, 4) through all layers: (width, edits, channels)."""
        with record_function("products"):
            dz = spread_patches(patches, self.weights[0])
        da = self._activate(dz, 0, activations[0], chunk.steps[0])
        for i in range(1, len(self.weights)):
            with record_function("products"):
                dz = spread(da.to(self.weights[i].dtype), self.weights[i])
            da = self._activate(dz, i, activations[i], chunk.steps[i])
        return da

    def _activate(self, dz: Tensor, layer: int, reference: Activations, step: Step) -> Tensor:
        """Turn differences before a layer's pooling into those after its GELU.

        Args:
            dz: (rows, edits, channels), the first and the last row 0.
            layer: Its index.
            reference: What it gives for the reference.
            step: Where the frames lie.

        Returns:
            (width, edits, channels).
        """
        pool = self.reference.layers[layer].pool
        with record_function("frames"):
            rows, shift = self._send(step.rows), self._send(step.shift)
            position = torch.arange(step.width * pool, device=self.device)[:, None]
            edit = torch.arange(len(rows), device=self.device)
            z = take(reference.z, rows * pool + position)
            a = take(reference.a, rows + position[: step.width])
            # What the convolution does not reach is row 0 or the last one, which are 0.
            dz = take(dz, (position - shift + 1).clamp_(0, len(dz) - 1) * len(rows) + edit)
        with record_function("pool and GELU"):
            return self.reference.layers[layer].activate(z.add_(dz), axis=0).sub_(a)

    def _finish(self, da: Tensor, z: Tensor, chunk: Chunk) -> Tensor:
        """Turn differences of the last layer into those of the bottleneck, (edits, bottleneck).

        Args:
            da: (width, edits, channels).
            z: Bottleneck of each edit's window before its GELU.
            chunk: Where the frames start.
        """
        with record_function("bottleneck"):
            width, edits, channels = da.shape
            full = da.new_zeros(edits * self.config.final_length, channels)
            start = np.arange(edits) * self.config.final_length + chunk.final_start
            rows = self._send(start) + torch.arange(width, device=self.device)[:, None]
            full[rows.flatten()] = da.flatten(0, 1)
            dz = full.view(edits, -1) @ self.reference.dense
            return (F.silu(z + dz) - F.silu(z)) / SLOPE


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Read rows (n, edits) of x (..., channels), counted through its leading axes."""
    return x.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, -1)


def spread(da: Tensor, weight: Tensor) -> Tensor:
    """Convolve frames (width, edits, in) into all that they reach, and a row of 0 on both sides.

    Returns:
        (width + kernel + 1, edits, out).
    """
    image = da.permute(2, 0, 1)[None]  # (1, in, width, edits), channels last
    image = F.conv2d(image, weight, padding=(weight.shape[2], 0))
    return image[0].permute(1, 2, 0).contiguous()


def spread_patches(patches: Tensor, weight: Tensor) -> Tensor:
    """Do the same for patches (edits, width, 4), as a product: 4 channels convolve slowly."""
    edits, width, bases = patches.shape
    taps = weight[..., 0].permute(2, 1, 0).flip(0)  # (kernel, 4, out)
    spread = taps.new_zeros(width + len(taps) + 1, width, *taps.shape[1:])
    for i in range(width):
        spread[i + 1 : i + 1 + len(taps), i] = taps
    return patches.view(edits, width * bases) @ spread.flatten(1, 2)
