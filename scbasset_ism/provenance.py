"""What a store says of the model and the genome behind its numbers."""

import hashlib
from dataclasses import asdict
from typing import Any

import numpy as np

from scbasset_ism import __version__
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.store import Cells, Writer


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


def describe_genome(writer: Writer, genome: Genome) -> dict[str, Any]:
    """Write the contigs to the store, and give the MD5 of those that were used."""
    names = np.array(list(genome.contigs), dtype=object)
    writer.write_uns("contig_id", names, "contigs")
    writer.write_uns("contig_length", np.array(list(genome.contigs.values()), np.int64), "contigs")
    return {"path": str(genome.path), "contig_md5": genome.md5s}


def weights_sha256(model: Scbasset) -> str:
    """Hash the tensors by name, so that the same weights from another file are the same."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
