"""The network as the engine runs it: batch norms folded, channels last, activations kept.

Activations are stored times SLOPE, since then a GELU is one operation: with s = SLOPE,
`s * gelu(x) = silu(s * x)`. The convolutions in between are linear and need no change; only
biases do. The stem is a look-up, since its input is one of five codes at each position.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scbasset_ism.bases import N
from scbasset_ism.model import ConvBlock, Scbasset, gelu

SLOPE = 1.702  # of the authors' GELU: x * sigmoid(1.702 x)
CODES = 6  # A C G T N, and the zero padding
KMER = 4  # more bases a look-up would be fewer look-ups, but their table leaves the cache


@dataclass(frozen=True)
class Layer:
    """A convolution with its batch norm folded in, then pooling.

    Attributes:
        weight: (out, in, kernel, 1), channels last.
        bias: (out,).
        pool: Positions that one maximum joins.
    """

    weight: Tensor
    bias: Tensor
    pool: int

    @property
    def kernel(self) -> int:
        """Taps."""
        return self.weight.shape[2]

    def convolve(self, x: Tensor) -> Tensor:
        """Map (windows, length, in) to (windows, length, out)."""
        x = x.transpose(1, 2)[..., None]  # (windows, in, length, 1), channels last
        x = F.conv2d(x, self.weight, self.bias, padding=(self.kernel // 2, 0))
        return x[..., 0].transpose(1, 2).contiguous()

    def activate(self, z: Tensor, axis: int) -> Tensor:
        """Pool the positions, which lie along an axis, and apply the GELU."""
        pooled = torch.unflatten(z, axis, (-1, self.pool)).unbind(axis + 1)
        return F.silu(reduce(torch.maximum, pooled), inplace=self.pool > 1)


@dataclass(frozen=True)
class Activations:
    """What one layer gives for a batch of windows, times SLOPE.

    Attributes:
        z: Convolution output, (windows, length, channels).
        a: Pooled and through the GELU, (windows, length / pool, channels).
    """

    z: Tensor
    a: Tensor


@contextmanager
def true_float32() -> Iterator[None]:
    """Multiply float32 as float32, whatever the process has chosen; put its choice back.

    PyTorch's default for convolutions on a GPU is TF32, in which deltas would be noise.
    """
    backends = (
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.cuda.matmul,
        torch.backends.mkldnn.conv,  # type: ignore[attr-defined]
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]
    )
    chosen = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, chosen, strict=True):
            backend.fp32_precision = precision


class ReferencePass:
    """A folded copy of a model, in its dtype and on its device.

    Attributes:
        layers: Stem, tower, pointwise; a base weighs 1 in one of the stem's four channels.
        dense: (final length * pointwise channels, bottleneck).
        dense_bias: (bottleneck,).
    """

    def __init__(self, model: Scbasset) -> None:
        device, dtype = model.head.weight.device, model.head.weight.dtype
        blocks = [model.stem, *model.tower, model.pointwise]
        with torch.no_grad():
            layers = [fold_block(block) for block in blocks if isinstance(block, ConvBlock)]
            layers[0].weight.mul_(SLOPE * gelu(torch.ones((), dtype=torch.float64)))
            scale, bias = fold(model.batch_norm)
            dense = model.dense.weight.double().cpu() * scale[:, None]
            table, self._powers, self._first = kmer_table(layers[0])
        self.layers = [
            Layer(layer.weight.to(device, dtype), layer.bias.to(device, dtype), layer.pool)
            for layer in layers
        ]
        self.dense = dense.T.contiguous().to(device, dtype)
        self.dense_bias = bias.to(device, dtype)
        self._table = table.to(device, dtype)
        self._powers, self._first = self._powers.to(device), self._first.to(device)

    def run(self, codes: Tensor) -> Iterator[Activations]:
        """Give the activations of layer after layer for codes (windows, window) uint8."""
        z = self._stem(codes)
        for layer, following in zip(self.layers, [*self.layers[1:], None], strict=True):
            a = layer.activate(z, axis=1)
            yield Activations(z, a)
            if following is not None:
                z = following.convolve(a)

    def bottleneck(self, a: Tensor) -> Tensor:
        """Map the last activations to the bottleneck before its GELU, (windows, bottleneck)."""
        return torch.addmm(self.dense_bias, a.flatten(1), self.dense)

    def _stem(self, codes: Tensor) -> Tensor:
        """Convolve codes (windows, window): sum the table's rows of the k-mers around a base."""
        reach = self.layers[0].kernel // 2
        padded = F.pad(codes, (reach, reach), value=CODES - 1).float()[:, None]
        rows = F.conv1d(padded, self._powers, self._first)  # (windows, k-mers, window)
        rows = rows.round().long().transpose(1, 2).flatten(0, 1)
        return torch.unflatten(F.embedding_bag(rows, self._table, mode="sum"), 0, codes.shape)


def kmer_table(stem: Layer) -> tuple[Tensor, Tensor, Tensor]:
    """Tabulate what each k-mer adds to the stem.

    Returns:
        The table (rows, channels), float64; and the convolution that turns codes into rows of it:
        weight (k-mers, 1, kernel) and bias (k-mers,), float32.
    """
    per_base = stem.weight[..., 0].permute(2, 1, 0)  # (kernel, 4, channels)
    per_code = F.pad(per_base, (0, 0, 0, 2))  # N and the padding are still 0
    per_code[:, N] = per_base.mean(1)
    tables, weights = [], []
    for taps in torch.arange(stem.kernel).chunk(-(-stem.kernel // KMER)):
        table = torch.zeros_like(per_code[0, :1])
        weight = torch.zeros(stem.kernel)
        for i, tap in enumerate(taps.tolist()):
            table = (per_code[tap][:, None] + table).flatten(0, 1)
            weight[tap] = CODES**i
        tables.append(table)
        weights.append(weight)
    tables[0] += stem.bias
    sizes = torch.tensor([0, *map(len, tables[:-1])])
    return torch.cat(tables), torch.stack(weights)[:, None], sizes.cumsum(0).float()


def fold(batch_norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Write a batch norm as scale and bias, the bias times SLOPE; float64 on the CPU."""
    mean, variance = batch_norm.running_mean, batch_norm.running_var
    if mean is None or variance is None:
        raise TypeError("the batch norms of a scBasset keep their statistics")
    weight, bias, mean, variance = (
        x.detach().double().cpu() for x in (batch_norm.weight, batch_norm.bias, mean, variance)
    )
    scale = weight / (variance + batch_norm.eps).sqrt()
    return scale, SLOPE * (bias - mean * scale)


def fold_block(block: ConvBlock) -> Layer:
    """Fold a block, float64 on the CPU."""
    scale, bias = fold(block.batch_norm)
    weight = block.conv.weight.detach().double().cpu() * scale[:, None, None]
    return Layer(weight[..., None].contiguous(memory_format=torch.channels_last), bias, block.pool)
