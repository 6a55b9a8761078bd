"""Checkpoints: any of them into a `Scbasset` with its cells and where it came from.

Ours is a folder of config.json, model.safetensors and cells.tsv.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import save

from scbasset_ism.cells import read_cells
from scbasset_ism.errors import CheckpointError
from scbasset_ism.folder import (
    CELLS,
    CONFIG,
    FILES,
    FORMAT,
    FORMAT_VERSION,
    WEIGHTS,
    read_folder,
)
from scbasset_ism.keras import HDF5_MAGIC, read_keras
from scbasset_ism.model import Scbasset
from scbasset_ism.weights import Weights, state

DEMO = "demo"  # what the packaged model is called
DEMO_DATA = Path(str(files("scbasset_ism") / "demo_data"))
_DEMO_IS = (
    "bulk DNase-seq of 164 ENCODE and Roadmap cell types, hg19, trained on peaks of chr20, chr22 "
    "and chrX only; not for conclusions about single cells"
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = {".h5", ".hdf5", ".keras", ".safetensors", ".pt", ".pth", ".bin", ".ckpt"}

# What a training leaves beside the model.
EXTRAS = ("peaks.bed", "metrics.json", "history.tsv", "training.svg")

logger = logging.getLogger(__name__)


def load_model(source: str | Path, cells: str | Path | None = None) -> Scbasset:
    """Load a model in eval mode and float32, with its cells and provenance.

    Args:
        source: Our checkpoint folder, one of `multimolecule/scbasset`, the weights file in either,
            a Keras 2 .h5 file, an id on the Hugging Face hub, or `demo` for the packaged model.
            What exists as a path is a path, but for `demo`.
        cells: Table of the cells (see `read_cells`), in place of the checkpoint's.

    Raises:
        CheckpointError: There is no such checkpoint, or it doesn't make a scBasset.
    """
    path, notes = _locate(source)
    weights = _read(path)
    if left_out := weights.notes.get("left_out"):
        logger.warning(
            "%s: the %s is left out, since no checkpoint says which cell is of which batch: "
            "logits are batch-corrected",
            source,
            left_out,
        )
    model = weights.build()
    table = weights.path.with_name(CELLS) if weights.format == FORMAT else None
    if cells is not None:
        table, notes = Path(cells), {**notes, "cells": str(cells)}
    if table is not None:
        model.cells = read_cells(table, model.config.n_cells)
    model.provenance = {
        "source": str(source),
        "format": weights.format,
        "sha256": _sha256(weights.path),
        **notes,
        **weights.notes,
    }
    return model


def save_checkpoint(
    model: Scbasset,
    folder: str | Path,
    *,
    overwrite: bool = False,
    dtype: torch.dtype = torch.float32,
    extras: Mapping[str, bytes] | None = None,
) -> None:
    """Write a checkpoint folder, aside first, so that none is ever half written.

    Args:
        model: In whatever mode, on whatever device.
        folder: Must not exist, unless it may be overwritten and is a checkpoint of ours.
        overwrite: Replace an older checkpoint.
        dtype: Of kernels and matrices in the file; vectors, such as the batch norms', stay float32.
        extras: Other files of `EXTRAS`, by name.

    Raises:
        CheckpointError: The folder exists, holds other things, or can't be written.
    """
    folder = Path(folder).resolve()
    refuse_existing(folder, overwrite=overwrite)
    aside, retired = (
        folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("partial", "retired")
    )
    try:
        aside.mkdir(parents=True)
        _write(model, aside, dtype)
        for name, content in (extras or {}).items():
            (aside / name).write_bytes(content)
        if folder.exists():
            folder.rename(retired)
        aside.rename(folder)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"{folder} can't be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def convert(
    source: str | Path,
    folder: str | Path,
    cells: str | Path | None = None,
    *,
    overwrite: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Scbasset:
    """Turn any checkpoint into a folder of ours; `origin_*` of the provenance says what it was.

    Args:
        source: See `load_model`.
        folder: See `save_checkpoint`.
        cells: See `load_model`.
        overwrite: Replace an older checkpoint.
        dtype: See `save_checkpoint`.

    Returns:
        The model, as loaded from the new folder.
    """
    refuse_existing(Path(folder), overwrite=overwrite)
    save_checkpoint(load_model(source, cells), folder, overwrite=overwrite, dtype=dtype)
    return load_model(folder)


def _locate(source: str | Path) -> tuple[Path, dict[str, str]]:
    """Find the path of a source, downloading it where needed, and what else is known of it."""
    path, name = Path(source).expanduser(), str(source)
    if source == DEMO:
        logger.warning("the demo model: %s", _DEMO_IS)
        return DEMO_DATA / "model", {}
    if path.exists():
        return path, {}
    if _HUB_ID.fullmatch(name) and path.suffix not in _FILE_SUFFIXES:
        snapshot = _download(name)
        return snapshot, {"revision": snapshot.name}
    raise CheckpointError(
        f"there is no model {name}: give a folder, a .h5 or .safetensors file, or a hub id such as "
        "multimolecule/scbasset"
    )


def _download(name: str) -> Path:
    """Fetch the files of a checkpoint from the hub, or find them in its cache."""
    try:
        hub = import_module("huggingface_hub")
    except ImportError:
        raise CheckpointError(
            f"there is no path {name}, and to fetch it from the Hugging Face hub needs "
            "huggingface_hub: pip install 'scbasset-ism[hub]'"
        ) from None
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(FILES)))
    except Exception as error:  # the classes differ between versions (requests, then httpx)
        raise CheckpointError(
            f"there is no path {name}, and the Hugging Face hub does not give it "
            f"({_first_line(error)}): check the name and the network, or give a downloaded folder"
        ) from None


def _first_line(error: Exception) -> str:
    """Cut an error of many lines down to its first."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".:")


def _read(path: Path) -> Weights:
    """Read a folder or a weights file of any known kind."""
    if path.is_dir():
        return read_folder(path)
    try:
        with path.open("rb") as file:
            magic = file.read(len(HDF5_MAGIC))
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}") from None
    return read_keras(path) if magic == HDF5_MAGIC else read_folder(path.parent, path.name)


def _sha256(path: Path) -> str:
    """Digest a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_existing(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that is there, or that overwriting would take more from than a checkpoint."""
    if not folder.exists():
        return
    if not overwrite:
        raise CheckpointError(f"{folder} exists: choose another folder, or overwrite it")
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - {*FILES, *EXTRAS}:
        raise CheckpointError(f"{folder} is not a checkpoint folder, so it is not overwritten")


def _write(model: Scbasset, folder: Path, dtype: torch.dtype) -> None:
    """Write the files of a checkpoint."""
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.ndim > 1 else torch.float32).contiguous()
        for name, tensor in state(model).items()
    }
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": asdict(model.config),
        "origin": _origin(model.provenance),
    }
    (folder / CONFIG).write_text(json.dumps(description, indent=2) + "\n", "utf-8")
    (folder / WEIGHTS).write_bytes(save(tensors))
    model.cells.to_csv(folder / CELLS, sep="\t", index_label="cell_id")


def _origin(provenance: Mapping[str, str]) -> dict[str, str]:
    """Say where weights came from first, however often they were converted."""
    origin = {key: value for key, value in provenance.items() if key.startswith("origin_")}
    return {key.removeprefix("origin_"): value for key, value in (origin or provenance).items()}
