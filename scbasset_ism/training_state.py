"""What one epoch hands to the next, and what a killed training goes on from."""

import json
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scbasset_ism.errors import TrainingError
from scbasset_ism.model import Scbasset
from scbasset_ism.places import Folder
from scbasset_ism.progress import Manifest
from scbasset_ism.recipe import Recipe

FILE = "training.safetensors"


class TrainState:
    """A model in training.

    Args:
        model: On its device; changed in place.
        recipe: How it is trained.

    Attributes:
        history: What every finished epoch gave, by name; JSON.
    """

    def __init__(self, model: Scbasset, recipe: Recipe) -> None:
        self.model, self._frozen = model, recipe.freeze_trunk
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not self._frozen or name.startswith("head."))
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
        )
        self._averaged = (
            AveragedModel(
                model,
                multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if recipe.averaging
            else None
        )
        self.history: list[dict[str, Any]] = []
        self._best: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.head.weight.device

    @property
    def kept(self) -> Scbasset:
        """The model that is measured and kept: the average, where there is one."""
        return self.model if self._averaged is None else cast("Scbasset", self._averaged.module)

    @property
    def best_epoch(self) -> int:
        """Number of the epoch with the highest validation AUROC, from 0; -1 before the first."""
        scores = [epoch["cells_auroc"] for epoch in self.history]
        return max(range(len(scores)), key=scores.__getitem__, default=-1)

    def train_mode(self) -> None:
        """Prepare for steps; a frozen trunk neither drops out nor moves its statistics."""
        self.model.train(not self._frozen)

    def average(self) -> None:
        """Let the last step into the average."""
        if self._averaged is not None:
            self._averaged.update_parameters(self.model)

    def note(self, epoch: dict[str, Any]) -> None:
        """Add an epoch to the history, and keep its weights if it is the best."""
        self.history.append(epoch)
        if self.best_epoch == len(self.history) - 1:
            self._best = {k: v.detach().clone() for k, v in self.kept.state_dict().items()}

    def best(self) -> Scbasset:
        """Give the model as it was after its best epoch, in eval mode."""
        self.model.load_state_dict(self._best)
        return self.model.requires_grad_(requires_grad=True).eval()

    def save(self, folder: Folder, run: dict[str, Any]) -> None:
        """Write all of it, in one step; `run` says what the numbers depend on, JSON."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self._best.items()}
        if self._averaged is not None:
            tensors |= {f"averaged.{k}": v for k, v in self._averaged.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
        copies = {k: v.detach().cpu().clone() for k, v in tensors.items()}
        notes = json.dumps({"run": run, "history": self.history})
        folder.write(FILE, save(copies, metadata={"notes": notes}))

    def load(self, folder: Folder, run: dict[str, Any]) -> None:
        """Go on where a run stopped.

        Raises:
            StoreError: It was another run.
            TrainingError: None was interrupted here, or what it left is damaged.
        """
        path = folder.path / FILE
        try:
            with safe_open(path, framework="pt", device=str(self.device)) as file:
                notes = json.loads(file.metadata()["notes"])
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise TrainingError(
                f"there is no interrupted training in {folder}: leave out --resume"
            ) from None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(
                f"{path} is damaged ({error}): start anew with --overwrite"
            ) from None
        Manifest(notes["run"], 0, {}, {}).check(run, folder)
        self.history = notes["history"]
        self.model.load_state_dict(_below("model.", tensors))
        self._best = _below("best.", tensors)
        if self._averaged is not None:
            self._averaged.load_state_dict(_below("averaged.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer.", tensors).items():
            number, _, what = name.partition(".")
            moments.setdefault(int(number), {})[what] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
