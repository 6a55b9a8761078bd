"""scBasset (Yuan & Kelley, Nature Methods 2022), in reading order.

Every convolution block is GELU, convolution, batch norm, max pooling, in this order: the first
GELU acts on the one-hot bases themselves. The head is linear, so whatever is asked of the cells
is asked of the bottleneck first.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scbasset_ism.bases import encode
from scbasset_ism.errors import CheckpointError, SequenceError

# What an N weighs in each of the four channels: the v with gelu(v) = gelu(1) / 4, so that the stem
# sees the mean of the four bases.
N_WEIGHT = 0.33168487255591533


@dataclass(frozen=True)
class Config:
    """Sizes of a scBasset; the defaults are those of the publication.

    Raises:
        CheckpointError: The sizes don't make a scBasset, or the pools leave a remainder.
    """

    n_cells: int = 2034
    window: int = 1344
    stem_channels: int = 288
    stem_kernel: int = 17
    stem_pool: int = 3
    tower_channels: tuple[int, ...] = (288, 323, 363, 407, 456, 512)
    tower_kernel: int = 5
    tower_pool: int = 2
    pointwise_channels: int = 256
    bottleneck: int = 32
    batch_norm_eps: float = 1e-3
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what the network can't be built from."""
        object.__setattr__(self, "tower_channels", tuple(self.tower_channels))
        for name in ("stem_kernel", "tower_kernel"):
            if getattr(self, name) % 2 == 0:
                raise CheckpointError(f"{name} is {getattr(self, name)}; it must be odd")
        reduction = self.stem_pool * self.tower_pool ** len(self.tower_channels)
        if self.window % reduction:
            raise CheckpointError(
                f"a window of {self.window} bases is not a multiple of {reduction}, the product "
                "of the pools; no scBasset has such a window"
            )

    @property
    def final_length(self) -> int:
        """Positions that reach the bottleneck (7 in the publication)."""
        return self.window // (self.stem_pool * self.tower_pool ** len(self.tower_channels))


def gelu(x: Tensor) -> Tensor:
    """The authors' approximation, x * sigmoid(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)


def one_hot(codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn codes (batch, length) uint8 into (batch, 4, length); N weighs the four kernels alike."""
    weights = torch.eye(5, 4, dtype=dtype, device=codes.device)
    weights[4] = N_WEIGHT
    return weights[codes.long()].transpose(1, 2)


class ConvBlock(nn.Module):
    """GELU, convolution without bias, batch norm, max pooling."""

    def __init__(self, channels: tuple[int, int], kernel: int, pool: int, eps: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(*channels, kernel, padding="same", bias=False)
        self.batch_norm = nn.BatchNorm1d(channels[1], eps=eps)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, length) to (batch, out, length / pool)."""
        x = self.batch_norm(self.conv(gelu(x)))
        return F.max_pool1d(x, self.pool) if self.pool > 1 else x


class Scbasset(nn.Module):
    """The network, with the table of its cells.

    Attributes:
        config: Sizes.
        cells: One row per output, index `cell_id`.
        provenance: Where the weights came from, text by key.
    """

    def __init__(self, config: Config | None = None, cells: pd.DataFrame | None = None) -> None:
        super().__init__()
        self.config = config = config or Config()
        self.cells = numbered_cells(config.n_cells) if cells is None else cells
        self.provenance: dict[str, str] = {}
        eps = config.batch_norm_eps
        widths = (config.stem_channels, *config.tower_channels)
        self.stem = ConvBlock((4, widths[0]), config.stem_kernel, config.stem_pool, eps)
        self.tower = nn.ModuleList(
            ConvBlock((before, after), config.tower_kernel, config.tower_pool, eps)
            for before, after in pairwise(widths)
        )
        self.pointwise = ConvBlock((widths[-1], config.pointwise_channels), 1, 1, eps)
        flat = config.final_length * config.pointwise_channels
        self.dense = nn.Linear(flat, config.bottleneck, bias=False)
        self.batch_norm = nn.BatchNorm1d(config.bottleneck, eps=eps)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.bottleneck, config.n_cells)

    def encode(self, x: Tensor) -> Tensor:
        """Map one-hot (batch, 4, window) to the bottleneck (batch, bottleneck)."""
        x = self.stem(x)
        for block in self.tower:
            x = block(x)
        x = gelu(self.pointwise(x)).transpose(1, 2).flatten(1)  # (batch, position * channel)
        return gelu(self.dropout(self.batch_norm(self.dense(x))))

    def forward(self, x: Tensor) -> Tensor:
        """Map one-hot (batch, 4, window) to logits (batch, cells)."""
        return self.head(self.encode(x))

    def predict(self, sequences: str | Sequence[str]) -> Tensor:
        """Predict the accessibility logit of every cell.

        Args:
            sequences: One or several sequences of exactly `config.window` bases.

        Returns:
            Logits (sequences, cells), on the model's device; its training mode does not matter.

        Raises:
            SequenceError: A sequence has another length than the window.
        """
        texts = [sequences] if isinstance(sequences, str) else list(sequences)
        for text in texts:
            self.check_length(text)
        stacked = np.array([encode(text) for text in texts]).reshape(-1, self.config.window)
        codes = torch.from_numpy(stacked).to(self.head.weight.device)
        with eval_mode(self), torch.inference_mode():
            return self(one_hot(codes, self.head.weight.dtype))

    def check_length(self, sequence: str, name: str = "the sequence") -> None:
        """Raise SequenceError unless the sequence fills the window."""
        if len(sequence) != self.config.window:
            raise SequenceError(
                f"{name} has {len(sequence):,} bases and the model reads {self.config.window:,}: "
                "cut or extend it to that length"
            )


def numbered_cells(n_cells: int) -> pd.DataFrame:
    """Name the cells of a model that knows no names: cell_0, cell_1, ..."""
    return pd.DataFrame(index=pd.Index([f"cell_{i}" for i in range(n_cells)], name="cell_id"))


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put every layer in eval mode, and each back as it was."""
    training = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, was in training.items():
            module.training = was


def random_model(config: Config | None = None, seed: int = 0) -> Scbasset:
    """Build a model with random weights whose variants have large effects.

    In a freshly initialised scBasset a variant moves the bottleneck by less than 1e-6. Here the
    batch norms take the statistics of random DNA, which brings effects to the order of 0.1.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Scbasset(config)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                nn.init.normal_(module.weight, 1, 0.1)
                nn.init.normal_(module.bias, 0, 0.2)
                module.momentum = 1.0
        codes = torch.randint(0, 4, (64, model.config.window), dtype=torch.uint8)
        with torch.no_grad():
            model.train()(one_hot(codes))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 0.1
    model.provenance = {"source": f"random_model(seed={seed})"}
    return model.eval()
