"""Fits a scBasset to peaks x cells: one loop, which a kill can't undo.

The recipe is the authors' by default: binary cross-entropy, Adam, batches of 128 peaks, both
strands and shifts of up to 3 bases at random, early stopping. Here a strand and a shift are drawn
for every peak and not for every batch, shifted windows read the genome's bases and no padding, the
head's intercepts start at the log-odds of the cells, and the epoch is chosen by the validation
AUROC. A seed, an epoch and the data give the same weights, whether or not a run was interrupted.
"""

import json
import logging
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from scbasset_ism import __version__
from scbasset_ism.checkpoint import refuse_existing, save_checkpoint
from scbasset_ism.delta import Precision, resolve_precision
from scbasset_ism.device import on_device, pick_device
from scbasset_ism.errors import TrainingError
from scbasset_ism.evaluation import Metrics
from scbasset_ism.examples import Examples
from scbasset_ism.locks import locked
from scbasset_ism.model import ConvBlock, Scbasset, gelu, one_hot
from scbasset_ism.pipeline import prefetch, step_bar
from scbasset_ism.places import Folder
from scbasset_ism.plot import training_svg
from scbasset_ism.provenance import weights_sha256
from scbasset_ism.recipe import Recipe, scaled_config
from scbasset_ism.training_state import FILE, TrainState

_SHOWN = ("validation_loss", "cells_auroc", "cells_auprc")

log = logging.getLogger(__name__)


def forward(model: Scbasset, x: Tensor) -> Tensor:
    """Map one-hot (batch, 4, window) to logits, as the model does, with channels last.

    Pooling and convolutions of such images take two thirds of the time on a CPU.
    """
    x = x[:, :, None].contiguous(memory_format=torch.channels_last)  # (batch, 4, 1, window)
    for block in (model.stem, *model.tower, model.pointwise):
        assert isinstance(block, ConvBlock)
        weight = block.conv.weight[:, :, None]
        x = F.conv2d(gelu(x), weight, padding=(0, weight.shape[3] // 2))
        norm = block.batch_norm
        x = F.batch_norm(
            x,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=norm.training,
            momentum=norm.momentum or 0.0,
            eps=norm.eps,
        )
        x = F.max_pool2d(x, (1, block.pool)) if block.pool > 1 else x
    x = gelu(x[:, :, 0]).transpose(1, 2).flatten(1)  # (batch, position * channel)
    return model.head(gelu(model.dropout(model.batch_norm(model.dense(x)))))


def training_step(
    state: TrainState, codes: Tensor, labels: Tensor, *, precision: Precision, rate: float
) -> float:
    """Take one step of the optimiser.

    Args:
        state: Changed in place.
        codes: (batch, window) uint8, on the device.
        labels: 1 where a peak is open, (batch, cells).
        precision: Of the products.
        rate: Learning rate.

    Returns:
        Mean binary cross-entropy of the batch before the step, in nats.
    """
    narrow = precision == "bfloat16"
    with torch.autocast(codes.device.type, torch.bfloat16, enabled=narrow):
        logits = forward(state.model, one_hot(codes, labels.dtype))
    loss = F.binary_cross_entropy_with_logits(logits.to(labels.dtype), labels)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.average()
    return loss.item()


@dataclass(frozen=True)
class TrainOptions:
    """What the numbers of a training don't depend on.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        resume: Go on with a training that was interrupted.
        overwrite: Replace an older checkpoint, and forget an interrupted training.
        progress: Show a bar on stderr where that is a terminal.
        notes: What the provenance should say besides.
    """

    device: str = "auto"
    resume: bool = False
    overwrite: bool = False
    progress: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)


def train_epoch(state: TrainState, examples: Examples, recipe: Recipe, *, show: bool) -> float:
    """Go once through the training peaks; gives the mean loss, in nats.

    Raises:
        TrainingError: The loss is not finite any more.
    """
    device, epoch, n = state.device, len(state.history), examples.n_batches(recipe)
    precision = resolve_precision(recipe.precision, device, "ism")
    last = {k: state.history[-1][k] for k in _SHOWN} if state.history else {}
    total = 0.0
    state.train_mode()
    with (
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        closing(prefetch(examples.batches(recipe, epoch))) as batches,
        step_bar(n, f"epoch {epoch + 1}", show=show) as advance,
    ):
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)  # of the dropout
        for i, (codes, labels) in enumerate(batches):
            total += training_step(
                state,
                torch.from_numpy(codes).to(device),
                torch.from_numpy(labels).to(device),
                precision=precision,
                rate=recipe.rate(epoch * n + i, recipe.epochs * n),
            )
            if not math.isfinite(total):
                raise TrainingError(
                    f"the loss is {total} in epoch {epoch + 1}: take a lower --learning-rate"
                )
            advance(loss=total / (i + 1), **last)
    return total / n


def train(
    examples: Examples,
    out: str | Path,
    recipe: Recipe,
    *,
    init: Scbasset | None = None,
    options: TrainOptions | None = None,
) -> Scbasset:
    """Train a model and write its checkpoint folder.

    After every epoch, what a killed training needs to go on is written to `OUT.progress`. Beside
    the model the folder holds `peaks.bed` with the set of each peak, `metrics.json`, `history.tsv`
    and `training.svg`.

    Args:
        examples: See `read_examples`.
        out: The checkpoint folder.
        recipe: How to train.
        init: A model to start from: its trunk, and its head too where the cells are the same.
        options: What the numbers don't depend on.

    Raises:
        CheckpointError: The folder exists or can't be written.
        StoreError: Another process trains here, or another training was interrupted here.
        TrainingError: The loss is not finite, or a training was interrupted here and nothing was
            said of going on with it.
    """
    options, out = options or TrainOptions(), Path(out)
    refuse_existing(out, overwrite=options.overwrite)
    folder = Folder(path := out.with_name(f"{out.name}.progress"), path / "aside")
    with locked(folder, f"the model {out}"):
        model = on_device(begin_model(examples, recipe, init), pick_device(options.device))
        state = TrainState(model, recipe)
        run = _run(examples, recipe, init)
        if options.resume:
            state.load(folder, run)
        elif (folder.path / FILE).exists() and not options.overwrite:
            raise TrainingError(
                f"a training of {out} was interrupted: go on with --resume, or start anew with "
                "--overwrite"
            )
        while not _is_done(state, recipe):
            _one_epoch(state, examples, recipe, options)
            state.save(folder, run)
        best = state.best()
        best.provenance = {key: str(value) for key, value in (dict(options.notes) | run).items()}
        metrics = {
            name: examples.measure(best, rows, recipe, options.device)
            for name, rows in vars(examples.split).items()
            if name != "train"
        }
        extras = _extras(metrics, examples, state)
        save_checkpoint(best, out, overwrite=options.overwrite, extras=extras)
        folder.clear()
    return best


def begin_model(examples: Examples, recipe: Recipe, init: Scbasset | None = None) -> Scbasset:
    """Make the model that training starts from; its intercepts are the cells' log-odds.

    Args:
        examples: Its cells.
        recipe: Sizes, where there is no `init`.
        init: Where the trunk comes from; the head too, where the cells are the same.

    Raises:
        TrainingError: The trunk is to be frozen, and there is none.
    """
    cells = examples.accessibility.cells
    if init is None and recipe.freeze_trunk:
        raise TrainingError("a frozen trunk must come from a model: give --init too")
    if init is None:
        config = scaled_config(len(cells), recipe)
    else:
        config = replace(init.config, n_cells=len(cells), dropout=recipe.dropout)
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.seed)
        model = Scbasset(config, cells)
    share = examples.accessibility.is_open[examples.split.train].mean(axis=0)
    with torch.no_grad():
        log_odds = torch.logit(torch.from_numpy(np.asarray(share, np.float32)), eps=1e-6)
        model.head.bias.copy_(log_odds)
    if init is not None:
        knows_cells = list(init.cells.index) == list(cells.index)
        weights = {
            name: value
            for name, value in init.state_dict().items()
            if knows_cells or not name.startswith("head.")
        }
        model.load_state_dict(weights, strict=knows_cells)
    return model


def _one_epoch(
    state: TrainState, examples: Examples, recipe: Recipe, options: TrainOptions
) -> None:
    """Train for an epoch, measure it, and say how it went."""
    began = time.monotonic()
    loss = train_epoch(state, examples, recipe, show=options.progress)
    metrics = examples.measure(state.kept, examples.split.validation, recipe, options.device)
    state.note(
        {
            "epoch": len(state.history) + 1,
            "loss": loss,
            "validation_loss": metrics.loss,
            **{
                f"{axis}_{name}": getattr(metrics, f"{axis}_{name}")
                for axis in ("cells", "peaks")
                for name in ("auroc", "auprc")
            },
            "seconds": round(time.monotonic() - began, 1),
        }
    )
    last = state.history[-1]
    log.info(
        "epoch %d/%d: loss %.4f, validation loss %.4f, AUROC %.4f and AUPRC %.4f over cells, "
        "%.4f and %.4f over peaks, %.0f s",
        *(last["epoch"], recipe.epochs, *list(last.values())[1:]),
    )


def _is_done(state: TrainState, recipe: Recipe) -> bool:
    """Whether all epochs are over, or nothing has got better for long."""
    epochs = len(state.history)
    return epochs >= recipe.epochs or epochs - 1 - state.best_epoch >= recipe.patience


def _run(examples: Examples, recipe: Recipe, init: Scbasset | None) -> dict[str, Any]:
    """Say what the numbers of a training depend on; JSON."""
    return {
        "version": __version__,
        "examples": examples.digest(),
        "init": None if init is None else weights_sha256(init),
        **json.loads(json.dumps(asdict(recipe))),
    }


def _extras(
    metrics: Mapping[str, Metrics], examples: Examples, state: TrainState
) -> dict[str, bytes]:
    """Make the files that lie beside the weights."""
    history = pd.DataFrame(state.history)
    sets = examples.split.names(len(examples.accessibility.peaks))
    peaks = "".join(
        f"{peak.chrom}\t{peak.start}\t{peak.stop}\t{peak.name}\t{name}\n"
        for peak, name in zip(examples.accessibility.peaks, sets, strict=True)
    )
    return {
        "peaks.bed": peaks.encode(),
        "metrics.json": (
            json.dumps({k: m.as_json() for k, m in metrics.items()}, indent=2) + "\n"
        ).encode(),
        "history.tsv": history.to_csv(sep="\t", index=False).encode(),
        "training.svg": training_svg(history, state.best_epoch),
    }
