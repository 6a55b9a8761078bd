"""How a model is trained: the authors' recipe, and what may be changed of it."""

import math
from dataclasses import dataclass
from typing import Literal

from scbasset_ism.delta import Precision
from scbasset_ism.errors import TrainingError
from scbasset_ism.model import Config


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are the authors' recipe.

    Attributes:
        epochs: At most so many passes over the training peaks.
        patience: Stop after so many epochs without a better validation AUROC.
        batch_size: Peaks of a step.
        learning_rate: Of Adam, at its highest.
        schedule: `constant`, or `one-cycle`: up in the first quarter, and down to 0.
        betas: Of Adam.
        epsilon: Of Adam.
        weight_decay: Decoupled from the gradient (AdamW).
        averaging: The weights that are kept are an exponential moving average with this decay; 0
            for none.
        rc: Read half of the peaks from the other strand.
        shifts: Move windows by up to so many bases to either side.
        channels: Of the stem; the other layers keep their proportions.
        bottleneck: Numbers that describe a sequence.
        dropout: Share of the bottleneck that is left out at random.
        precision: bfloat16 multiplies in bfloat16 (autocast); `auto` where the device has units
            for it.
        seed: Of all that is random.
        freeze_trunk: Fit the head only.
    """

    epochs: int = 1000
    patience: int = 50
    batch_size: int = 128
    learning_rate: float = 0.01
    schedule: Literal["constant", "one-cycle"] = "constant"
    betas: tuple[float, float] = (0.95, 0.9995)
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    averaging: float = 0.0
    rc: bool = True
    shifts: int = 3
    channels: int = 288
    bottleneck: int = 32
    dropout: float = 0.2
    precision: Literal["auto"] | Precision = "auto"
    seed: int = 0
    freeze_trunk: bool = False

    def __post_init__(self) -> None:
        if not (self.epochs > 0 and self.batch_size > 1 and self.learning_rate > 0):
            raise TrainingError(
                f"{self.epochs} epochs of batches of {self.batch_size} at a learning rate of "
                f"{self.learning_rate}: these must be at least 1, at least 2 and above 0"
            )
        if not (0 <= self.averaging < 1 and 0 <= self.dropout < 1 and self.shifts >= 0):
            raise TrainingError(
                f"averaging {self.averaging}, dropout {self.dropout} and shifts {self.shifts}: "
                "the first two are shares below 1, and none is negative"
            )

    def rate(self, step: int, n_steps: int) -> float:
        """Give the learning rate of a step.

        `one-cycle` goes up linearly and down as half a cosine, after Smith & Topin,
        arXiv:1708.07120.
        """
        if self.schedule == "constant":
            return self.learning_rate
        top = n_steps / 4
        if step < top:
            return self.learning_rate * (step + 1) / (top + 1)
        return self.learning_rate * (1 + math.cos(math.pi * (step - top) / (n_steps - top))) / 2


def scaled_config(n_cells: int, recipe: Recipe) -> Config:
    """Give the sizes of a scBasset whose stem has other than 288 channels.

    The tower widens by 1.122 from layer to layer, unrounded, as in the authors' code.
    """
    tower = tuple(round(recipe.channels * 1.122**i) for i in range(6))
    return Config(
        n_cells=n_cells,
        stem_channels=recipe.channels,
        tower_channels=tower,
        pointwise_channels=round(recipe.channels * 256 / 288),
        bottleneck=recipe.bottleneck,
        dropout=recipe.dropout,
    )
