"""Keras 2 files of scBasset (HDF5): legacy weights and full models.

Layer names carry a number that shifts when other models were built before in the same process, so
layers map by the order of the numbers within a type. All axes are the other way round than ours.
"""

import json
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scbasset_ism.errors import CheckpointError
from scbasset_ism.model import Config
from scbasset_ism.weights import Shape, Weights, blocks, check, shapes

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_ABSENT = torch.empty(0)
_BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def read_keras(path: Path) -> Weights:
    """Read legacy weights or a full model; a batch term is left out and noted.

    Raises:
        CheckpointError: The tensors don't make a scBasset, the file is damaged, or h5py is missing.
    """
    tensors, window = _open(path)
    layers = _layers(tensors, path)
    head, batch_term = _heads(layers["dense"][1:], tensors)
    names = _names(layers, head)
    found = {name: tensor for name, tensor in tensors.items() if name not in batch_term}
    sizes = {name: tuple(found[key].shape[::-1]) for name, key in names.items() if key in found}
    try:
        config = _infer_config(sizes, n_tower=len(layers["conv1d"]) - 2)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    check(found, {names[ours]: shape[::-1] for ours, shape in shapes(config).items()}, path)
    if window not in {None, config.window}:
        raise CheckpointError(
            f"{path} reads {window} bases, not a multiple of the product of its pools: only "
            f"windows such as {config.window} can be loaded"
        )
    weights = {ours: _reversed(found[theirs]).contiguous() for ours, theirs in names.items()}
    notes = {"left_out": f"batch term ({', '.join(batch_term)})"} if batch_term else {}
    return Weights(path, "Keras", config, weights, notes)


def _open(path: Path) -> tuple[dict[str, Tensor], int | None]:
    """Read tensors by name (`conv1d_8/kernel`), and the window if the file says it."""
    h5py = _h5py(path)
    try:
        with h5py.File(path, "r") as file:
            # Never the whole file: optimizer_weights have kernels of the same names.
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs:
                return _tensors(root), _window(file.attrs.get("model_config"))
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: fetch or write it again ({error})") from None
    raise CheckpointError(
        f"{path} has no layer_names, so it isn't of Keras 2: load the model where it was made and "
        "save it with model.save_weights('x.h5') of Keras 2 (tf_keras)"
    )


def _h5py(path: Path) -> Any:
    """Import h5py, or say how to get it."""
    try:
        return import_module("h5py")
    except ImportError:
        raise CheckpointError(
            f"{path} is of Keras, and needs h5py: pip install 'scbasset-ism[keras]'"
        ) from None


def _tensors(root: Any) -> dict[str, Tensor]:
    """Read the weights of every layer that the file lists, in Keras's axes."""
    return {
        f"{layer}/{weight.rpartition('/')[2].removesuffix(':0')}": torch.from_numpy(
            np.asarray(root[layer][weight])
        )
        for layer in _texts(root, "layer_names")
        for weight in _texts(root[layer], "weight_names")
    }


def _texts(group: Any, attribute: str) -> list[str]:
    """Read an attribute of names; the older h5py wrote bytes."""
    names = group.attrs[attribute]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _window(model_config: str | bytes | None) -> int | None:
    """Find the length of the input in a full model's description."""
    if model_config is None:
        return None
    first = json.loads(model_config)["config"]["layers"][0]["config"]
    return first["batch_input_shape"][1]


def _layers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, list[str]]:
    """List the layers that have weights by type, in the order of their numbers."""
    names = {name.partition("/")[0] for name in tensors}
    layers = {
        kind: sorted(filter(re.compile(rf"{kind}(_\d+)?").fullmatch, names), key=_numerically)
        for kind in ("conv1d", "batch_normalization", "dense")
    }
    convs, norms, dense = layers.values()
    if len(convs) < 3 or len(norms) != len(convs) + 1 or len(dense) < 2:
        raise CheckpointError(
            f"{path} is not of a scBasset, which has one batch norm more than convolutions and two "
            f"Dense layers: it holds {', '.join(convs + norms + dense) or 'none of them'}"
        )
    return layers


def _numerically(layer: str) -> tuple[int, str]:
    """Sort conv1d, conv1d_9, conv1d_10 in this order."""
    return len(layer), layer


def _heads(layers: list[str], tensors: Mapping[str, Tensor]) -> tuple[str, list[str]]:
    """Choose the Dense of the cells, and name the tensors of a batch term beside it.

    A model has at least as many cells as batches; of two alike the authors' code makes that of the
    cells first.
    """
    shapes_of = {
        layer: [tuple(tensors.get(f"{layer}/{part}", _ABSENT).shape) for part in ("kernel", "bias")]
        for layer in layers
    }
    head = max(layers, key=lambda layer: shapes_of[layer][1])
    bottleneck = shapes_of[head][0][:1]
    others = [layer for layer in layers if layer != head]
    if len(others) != 1:
        return head, []
    kernel, bias = shapes_of[others[0]]
    return head, [f"{others[0]}/kernel", f"{others[0]}/bias"] if kernel == bottleneck + bias else []


def _names(layers: Mapping[str, list[str]], head: str) -> dict[str, str]:
    """Give the name in the file of every tensor of ours."""
    order = blocks(len(layers["conv1d"]) - 2)
    norms = [f"{block}.batch_norm" for block in order] + ["batch_norm"]
    dense = layers["dense"][0]
    convs = zip(order, layers["conv1d"], strict=True)
    return {
        **{f"{block}.conv.weight": f"{layer}/kernel" for block, layer in convs},
        **{
            f"{norm}.{ours}": f"{layer}/{theirs}"
            for norm, layer in zip(norms, layers["batch_normalization"], strict=True)
            for ours, theirs in _BATCH_NORM.items()
        },
        "dense.weight": f"{dense}/kernel",
        "head.weight": f"{head}/kernel",
        "head.bias": f"{head}/bias",
    }


def _infer_config(found: Mapping[str, Shape], n_tower: int) -> Config:
    """Read the sizes off the shapes; for a tensor that is no help any size will do, `check` tells.

    Pools are those of the publication: no weight depends on them, but for their product.
    """
    any_size = shapes(Config(window=3 * 2**n_tower, tower_channels=(1,) * n_tower))
    shape = {
        name: size if len(size) == len(default) and all(size) else default
        for name, default in any_size.items()
        for size in [found.get(name, ())]
    }
    first, *tower, last = (shape[f"{block}.conv.weight"] for block in blocks(n_tower))
    bottleneck, flat = shape["dense.weight"]
    return Config(
        n_cells=shape["head.weight"][0],
        window=max(1, flat // last[0]) * 3 * 2**n_tower,
        stem_channels=first[0],
        stem_kernel=first[2],
        tower_channels=tuple(conv[0] for conv in tower),
        tower_kernel=tower[0][2],
        pointwise_channels=last[0],
        bottleneck=bottleneck,
    )


def _reversed(tensor: Tensor) -> Tensor:
    """Turn the order of the axes round."""
    return tensor.permute(*range(tensor.ndim)[::-1])
