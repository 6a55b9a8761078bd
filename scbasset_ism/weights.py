"""The tensors of a scBasset by name: what a file must hold, whoever wrote it.

A reader maps its file's names to ours by an explicit table; what is missing, misshapen or left over
is an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from scbasset_ism.errors import CheckpointError
from scbasset_ism.model import Config, Scbasset

Shape = tuple[int, ...]

_LISTED = 6


@dataclass(frozen=True)
class Weights:
    """What a reader takes from a file.

    Attributes:
        path: The file with the tensors.
        format: Which kind of file, in words.
        config: Sizes.
        tensors: Our names, our axes.
        notes: What the provenance should say besides.
    """

    path: Path
    format: str
    config: Config
    tensors: dict[str, Tensor]
    notes: dict[str, str] = field(default_factory=dict)

    def build(self) -> Scbasset:
        """Make the model, in eval mode and float32; no random number is drawn for it."""
        with torch.device("meta"):
            model = Scbasset(self.config)
        counters = {name: torch.tensor(0) for name in model.state_dict() if is_counter(name)}
        tensors = {name: tensor.float() for name, tensor in self.tensors.items()}
        model.load_state_dict(tensors | counters, assign=True)
        return model.eval()


def blocks(n_tower: int) -> list[str]:
    """Name the convolution blocks in reading order."""
    return ["stem", *(f"tower.{i}" for i in range(n_tower)), "pointwise"]


def shapes(config: Config) -> dict[str, Shape]:
    """Give the shape of every tensor of a model by its name."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in state(Scbasset(config)).items()}


def state(model: Scbasset) -> dict[str, Tensor]:
    """Give the tensors that a checkpoint holds, by name."""
    return {name: value for name, value in model.state_dict().items() if not is_counter(name)}


def is_counter(name: str) -> bool:
    """Tell a batch norm's count of training batches, which no checkpoint needs."""
    return name.endswith("num_batches_tracked")


def check(tensors: Mapping[str, Tensor], expected: Mapping[str, Shape], path: Path) -> None:
    """Compare a file with what it must hold, both by the file's names and axes.

    Raises:
        CheckpointError: A tensor is missing, misshapen, surplus, not of floats, or not finite.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    faults = {
        "missing": [f"{name} {expected[name]}" for name in expected if name not in found],
        "of another shape": [
            f"{name} {found[name]} where {shape} is expected"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ],
        "surplus": [f"{name} {found[name]}" for name in found if name not in expected],
    }
    if any(faults.values()):
        listed = "; ".join(f"{what}: {_listed(names)}" for what, names in faults.items() if names)
        raise CheckpointError(f"{path} does not hold this scBasset's tensors: {listed}")
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}; weights must be floats")
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinite numbers; retrain or refetch"
            )


def _listed(names: list[str]) -> str:
    """Join names, the first few where they are many."""
    more = [f"and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return ", ".join(names[:_LISTED] + more)
