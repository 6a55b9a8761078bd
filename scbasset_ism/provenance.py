"""What a store says of the model and the genome behind its numbers."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scbasset_ism import __version__
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.store import Cells


def cells_of(model: Scbasset) -> Cells:
    """Copy the head of a model and its table of cells."""
    weight = model.head.weight.detach().float().cpu().numpy()
    return Cells(model.cells, weight, model.head.bias.detach().float().cpu().numpy())


def describe_model(model: Scbasset) -> dict[str, Any]:
    """Say which program and which weights write a store."""
    return {
        "version": __version__,
        "model": model.provenance | {"weights_sha256": weights_sha256(model)},
    }


def inspect_model(model: Scbasset) -> dict[str, Any]:
    """Give the sizes of a model, what its cells' table holds and where it came from; JSON."""
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "config": asdict(model.config) | {"tower_channels": list(model.config.tower_channels)},
        "cells": {
            "count": len(model.cells),
            "first": model.cells.index[0],
            "columns": list(model.cells),
        },
        **describe_model(model),
    }


def contigs_of(genome: Genome) -> dict[tuple[str, str], NDArray[Any]]:
    """Give the arrays that tell the genome's contigs, by dimension and name."""
    return {
        ("contigs", "contig_id"): np.array(list(genome.contigs), dtype=object),
        ("contigs", "contig_length"): np.array(list(genome.contigs.values()), np.int64),
    }


def fingerprint_model(model: Scbasset) -> dict[str, str]:
    """Give hashes of all that a model brings into a store, and the program's version."""
    return {
        "version": __version__,
        "model weights": weights_sha256(model),
        "cells": _sha256(model.cells.to_csv(sep="\t")),
    }


def fingerprint_genome(genome: Genome) -> dict[str, str]:
    """Give a hash of the contigs' names and lengths."""
    return {"genome contigs": _sha256(repr(list(genome.contigs.items())))}


def fingerprint_file(path: str | Path) -> str:
    """Give the sha256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(model: Scbasset) -> str:
    """Hash the tensors by name, so that the same weights from another file are the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
