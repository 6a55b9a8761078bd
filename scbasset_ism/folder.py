"""Folders of config.json and model.safetensors: ours, and those of `multimolecule/scbasset`.

Sizes come from config.json. Nothing is ever unpickled, and no code of a checkpoint is run.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scbasset_ism.errors import CheckpointError
from scbasset_ism.model import Config
from scbasset_ism.weights import Weights, blocks, check, is_counter, shapes

FORMAT = "scbasset-ism"
FORMAT_VERSION = 1
CONFIG, WEIGHTS, CELLS = FILES = ("config.json", "model.safetensors", "cells.tsv")

_MAX_SIZE = 2**24
_OUR_SIZES = {field.name: field.name for field in fields(Config)}
_MULTIMOLECULE_SIZES = {
    "n_cells": "num_labels",
    "window": "sequence_length",
    "stem_channels": "stem_channels",
    "stem_kernel": "stem_kernel_size",
    "stem_pool": "stem_pool_size",
    "tower_channels": "tower_channels",
    "tower_kernel": "tower_kernel_size",
    "tower_pool": "tower_pool_size",
    "pointwise_channels": "pointwise_channels",
    "bottleneck": "bottleneck_size",
    "batch_norm_eps": "batch_norm_eps",
}
_MULTIMOLECULE_LAYERS = {
    "dense": "model.encoder.bottleneck.dense",
    "batch_norm": "model.encoder.bottleneck.batch_norm",
    "head": "sequence_head.decoder",
}


def read_folder(folder: Path, weights: str = WEIGHTS) -> Weights:
    """Read a checkpoint folder; `weights` names the file in it.

    Raises:
        CheckpointError: A file is missing or broken, or of another network.
    """
    tensors = _read_safetensors(_file(folder, weights))
    values = _read_json(_file(folder, CONFIG))
    if values.get("format") == FORMAT:
        return _ours(values, tensors, folder / weights)
    if values.get("model_type") == "scbasset":
        return _multimolecule(values, tensors, folder / weights)
    raise CheckpointError(
        f"{folder / CONFIG} is neither of {FORMAT} nor of multimolecule's scbasset (model_type "
        f"{values.get('model_type')!r})"
    )


def _file(folder: Path, name: str) -> Path:
    """Find a file of a checkpoint folder."""
    if (folder / name).is_file():
        return folder / name
    held = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
    raise CheckpointError(
        f"{folder} holds no {name} (it holds {held or 'nothing'}): a checkpoint is a folder with "
        f"{CONFIG} and {WEIGHTS}, or a Keras 2 .h5 file; pickles such as scvi-tools' model.pt, "
        "which is of another network besides, are never opened"
    )


def _ours(values: Mapping[str, Any], tensors: dict[str, Tensor], path: Path) -> Weights:
    """Take a checkpoint that `save_checkpoint` wrote."""
    where = path.with_name(CONFIG)
    if values.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{where} has format_version {values.get('format_version')!r} and this version reads "
            f"{FORMAT_VERSION}: update scbasset-ism"
        )
    sizes, origin = values.get("config"), values.get("origin", {})
    if not isinstance(sizes, dict) or not isinstance(origin, dict):
        raise CheckpointError(f"{where}: config and origin must be tables")
    config = _parse_config(sizes, _OUR_SIZES, where)
    check(tensors, shapes(config), path)
    notes = {f"origin_{key}": str(value) for key, value in origin.items()}
    return Weights(path, FORMAT, config, tensors, notes)


def _multimolecule(values: Mapping[str, Any], tensors: dict[str, Tensor], path: Path) -> Weights:
    """Take a checkpoint of `multimolecule/scbasset`; its stem has a fifth channel for N."""
    where = path.with_name(CONFIG)
    if values.get("hidden_act") != "quick_gelu":
        raise CheckpointError(
            f"{where}: hidden_act is {values.get('hidden_act')!r}; scBasset's is 'quick_gelu'"
        )
    config = _parse_config(values, _MULTIMOLECULE_SIZES, where)
    shape_of, names = shapes(config), _multimolecule_names(config)
    stem = names["stem.conv.weight"]
    expected = {theirs: shape_of[ours] for ours, theirs in names.items()}
    expected[stem] = (config.stem_channels, 5, config.stem_kernel)
    check(tensors, expected, path)
    renamed = {ours: tensors[theirs] for ours, theirs in names.items()}
    kernel = tensors[stem].float()  # (channels, ACGTN, kernel)
    rounding = 4 * torch.finfo(tensors[stem].dtype).eps * float(kernel.abs().max())
    if not torch.allclose(kernel[:, 4], kernel[:, :4].mean(1), rtol=0, atol=rounding):
        raise CheckpointError(
            f"{path}: the N channel of {stem} is not the mean of A, C, G and T, and an N is read "
            "as that mean here: scores around an N would differ from that model's"
        )
    renamed["stem.conv.weight"] = kernel[:, :4].contiguous()
    return Weights(path, "multimolecule", config, renamed)


def _multimolecule_names(config: Config) -> dict[str, str]:
    """Give the name in a `multimolecule/scbasset` file of every tensor of ours."""
    layers = _MULTIMOLECULE_LAYERS | {
        block: f"model.encoder.layers.{i}"
        for i, block in enumerate(blocks(len(config.tower_channels)))
    }
    return {
        ours: theirs + ours.removeprefix(layer)
        for ours in shapes(config)
        for layer, theirs in layers.items()
        if ours.startswith(f"{layer}.")
    }


def _parse_config(values: Mapping[str, Any], keys: Mapping[str, str], path: Path) -> Config:
    """Turn the values of a config.json into sizes.

    Args:
        values: Parsed JSON, of any type.
        keys: Key of the file by the name in `Config`.
        path: For messages.

    Raises:
        CheckpointError: A key is missing, or a value is no such size.
    """
    missing = [theirs for theirs in keys.values() if theirs not in values]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}: fetch or write it again")
    for ours, theirs in keys.items():
        if not _is_like(getattr(Config, ours), values[theirs]):
            raise CheckpointError(f"{path}: {theirs} can't be {values[theirs]!r}")
    try:
        return Config(**{ours: values[theirs] for ours, theirs in keys.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _is_like(default: object, value: object) -> bool:
    """Tell if a value may stand for a default: a size, a list of sizes or a fraction."""
    if isinstance(default, tuple):
        return isinstance(value, list) and bool(value) and all(_is_like(1, size) for size in value)
    if isinstance(value, bool):
        return False
    if isinstance(default, int):
        return isinstance(value, int) and 1 <= value <= _MAX_SIZE
    return isinstance(value, int | float) and 0 <= value < 1


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON table."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a JSON table: it holds a {type(values).__name__}")
    return values


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file; nothing is ever unpickled."""
    try:
        with safe_open(path, framework="pt") as file:
            # Copies: the file is mapped, and a map outlives neither a change nor a cut of its file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} {_diagnosis(path)} ({error})") from None
    _refuse_scvi(tensors, path)
    return {name: tensor for name, tensor in tensors.items() if not is_counter(name)}


def _diagnosis(path: Path) -> str:
    """Say what a file is that isn't safetensors."""
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04" or head[:1] == b"\x80":
        return (
            "is a pickle or a zip, as of torch.save or Keras 3, which could run code and is never "
            "opened: save the weights as safetensors, or with Keras 2 as .h5"
        )
    if head == b"vers":
        return "is a pointer of Git LFS, not the weights: run git lfs pull"
    return "is neither a whole safetensors file nor HDF5: fetch or write it again"


def _refuse_scvi(names: Iterable[str], path: Path) -> None:
    """Refuse the state of scvi-tools' SCBASSET."""
    if any(name.endswith(("cell_embedding", "cell_bias")) for name in names):
        raise CheckpointError(
            f"{path} is of scvi-tools' SCBASSET, which is another network (other channels, pools "
            "and order of the flattening): give a checkpoint of scBasset itself"
        )
