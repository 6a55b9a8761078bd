"""Our numbers against the official model's, and Keras files of every kind."""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scbasset_ism.bases import encode
from scbasset_ism.checkpoint import load_model
from scbasset_ism.errors import CheckpointError
from scbasset_ism.model import Scbasset, one_hot

DATA = Path(__file__).parent / "data"
KERAS = DATA / "keras_tiny.weights.h5"
SOURCES = ["keras_tiny.weights.h5", "keras_tiny.full.h5", "multimolecule_tiny"]
WITHOUT_N = slice(6)  # of the eight sequences of the fixtures

# What two right float32 implementations reach (reference.md, part 2).
LOGIT, PROBABILITY = 1e-4, 2e-5

Layers = dict[str, dict[str, NDArray[np.generic]]]


@pytest.fixture(scope="module")
def official() -> Mapping[str, NDArray[np.float32]]:
    return dict(np.load(DATA / "keras_tiny.outputs.npz"))


@pytest.fixture(scope="module")
def port() -> Mapping[str, NDArray[np.float32]]:
    return dict(np.load(DATA / "multimolecule_tiny" / "outputs.npz"))


@pytest.fixture(scope="module", params=SOURCES)
def model(request: pytest.FixtureRequest) -> Scbasset:
    return load_model(DATA / request.param)


@pytest.fixture
def layers() -> Layers:
    """The weights of the fixture, to be broken: layer -> weight -> array."""
    with h5py.File(KERAS) as file:
        return {
            layer: {name: file[layer][layer][name][()] for name in file[layer][layer]}
            for layer in file.attrs["layer_names"]
            if layer in file[layer]
        }


def write_keras(path: Path, layers: Layers, root: str = "/") -> Path:
    """A Keras 2 file as TensorFlow 2.8 writes it; `layer_names` as the order of the layers."""
    with h5py.File(path, "a") as file:
        group = file.require_group(root)
        group.attrs["layer_names"] = ["sequence", *layers]
        group.create_group("sequence").attrs["weight_names"] = np.zeros(0)
        for layer, weights in layers.items():
            names = [f"{layer}/{name}" for name in weights]
            group.create_group(layer).attrs["weight_names"] = names
            for name, array in zip(names, weights.values(), strict=True):
                group[layer][name] = array
    return path


def renamed(layers: Layers, new_name: Callable[[str, int], str]) -> Layers:
    """The layers with other names, made from the type and the number of the old ones."""
    parts = {layer: re.fullmatch(r"(.+?)(?:_(\d+))?", layer) for layer in layers}
    return {new_name(part[1], int(part[2] or 0)): layers[old] for old, part in parts.items()}


def codes(sequences: NDArray[np.str_]) -> torch.Tensor:
    return torch.from_numpy(np.array([encode(str(sequence)) for sequence in sequences]))


def far(found: torch.Tensor, expected: NDArray[np.float32]) -> float:
    return float(np.abs(found.detach().numpy() - expected).max())


def same_tensors(one: Scbasset, other: Scbasset) -> bool:
    return one.config == other.config and all(
        torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items()
    )


def test_every_block_is_the_officials(model, official):
    x = one_hot(codes(official["seqs"][:2]))
    for i, block in enumerate([model.stem, *model.tower]):
        x = block(x)
        assert far(x.transpose(1, 2), official[f"pool{i}"]) < LOGIT, f"block {i}"
    assert i == 6


def test_outputs_are_the_officials(model, official):
    bottleneck = model.encode(one_hot(codes(official["seqs"])))[WITHOUT_N]
    logits = model.predict([str(sequence) for sequence in official["seqs"]])[WITHOUT_N]
    assert far(bottleneck, official["n25_bottleneck"][WITHOUT_N]) < LOGIT
    assert far(logits, official["n25_logits"][WITHOUT_N]) < LOGIT
    assert far(logits.sigmoid(), official["n25_prob"][WITHOUT_N]) < PROBABILITY
    assert np.abs(official["n25_logits"]).max() > 10


def test_n_is_the_ports(model, port):
    """The mean of the four kernels, also where half of a sequence is N."""
    x = one_hot(codes(port["seqs"]))
    assert far(model.encode(x), port["bottleneck"]) < LOGIT
    assert far(model(x), port["logits"]) < LOGIT


@pytest.mark.parametrize(("key", "weight"), [("n0_logits", 0.0), ("n25_logits", 0.25)])
def test_other_rules_for_n_give_the_officials_other_logits(model, official, port, key, weight):
    sequences = codes(official["seqs"])
    x = one_hot(sequences).masked_fill((sequences == 4)[:, None], weight)
    assert far(model(x), official[key]) < LOGIT
    assert far(model(x), port["logits"]) > 0.3


def test_swapped_blocks_are_noticed(official):
    model = load_model(KERAS)
    first, second = model.stem, model.tower[0]
    first.batch_norm, second.batch_norm = second.batch_norm, first.batch_norm
    logits = model(one_hot(codes(official["seqs"])))[WITHOUT_N]
    assert far(logits, official["n25_logits"][WITHOUT_N]) > 1


def test_a_channel_major_flattening_is_noticed(official):
    model = load_model(KERAS)
    width = model.config.pointwise_channels
    weight = model.dense.weight.data.unflatten(1, (-1, width))  # (bottleneck, position, channel)
    model.dense.weight.data = weight.transpose(1, 2).flatten(1).contiguous()
    logits = model(one_hot(codes(official["seqs"])))[WITHOUT_N]
    assert far(logits, official["n25_logits"][WITHOUT_N]) > 1


@pytest.mark.parametrize("source", SOURCES[1:])
def test_all_kinds_hold_the_same_tensors(source):
    assert same_tensors(load_model(DATA / source), load_model(KERAS))


def test_sizes_come_from_the_tensors():
    config = load_model(KERAS).config
    assert (config.n_cells, config.window, config.bottleneck) == (10, 1344, 8)
    assert config.tower_channels == (16, 18, 20, 23, 25, 28)


@pytest.mark.parametrize("shift", [1, 3, 8, 95])
def test_shifted_names_map_by_number(tmp_path, layers, shift):
    """conv1d_8 ... conv1d_15: the order of the text is another one."""
    shifted = renamed(layers, lambda kind, number: f"{kind}_{number + shift}")
    backwards = dict(reversed(shifted.items()))
    model = load_model(write_keras(tmp_path / "x.h5", backwards))
    assert same_tensors(model, load_model(KERAS))


def test_other_tower_lengths_and_windows(tmp_path, layers):
    del layers["conv1d_6"], layers["batch_normalization_6"]
    layers["conv1d_7"]["kernel:0"] = np.ones((1, 25, 12), "f4")
    layers["dense"]["kernel:0"] = np.ones((5 * 12, 8), "f4")
    config = load_model(write_keras(tmp_path / "x.h5", layers)).config
    assert config.tower_channels == (16, 18, 20, 23, 25)
    assert config.window == 5 * 3 * 2**5


def test_float16_loads_as_float32(tmp_path, layers):
    layers["conv1d"]["kernel:0"] = layers["conv1d"]["kernel:0"].astype("f2")
    model = load_model(write_keras(tmp_path / "x.h5", layers))
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}


def test_optimizer_weights_are_not_read(tmp_path, layers):
    path = write_keras(tmp_path / "x.h5", layers, root="model_weights")
    write_keras(path, renamed(layers, lambda kind, n: f"{kind}_{n + 20}"), "optimizer_weights")
    assert same_tensors(load_model(path), load_model(KERAS))


def batch_term(n_batches: int) -> dict[str, NDArray[np.generic]]:
    return {"kernel:0": np.ones((8, n_batches), "f4"), "bias:0": np.ones(n_batches, "f4")}


@pytest.mark.parametrize(
    ("n_batches", "listed_first", "number"),
    [
        pytest.param(3, False, 2, id="as-the-authors"),
        pytest.param(3, True, 2, id="listed-first"),
        pytest.param(3, True, 1, id="numbered-first"),
        pytest.param(1, True, 2, id="one-batch"),
        pytest.param(10, True, 2, id="as-many-batches-as-cells"),
    ],
)
def test_the_batch_term_is_left_out_aloud(
    tmp_path, layers, caplog, n_batches, listed_first, number
):
    cells = layers.pop("dense_1")
    heads = {f"dense_{number}": batch_term(n_batches), f"dense_{3 - number}": cells}
    order = heads if listed_first else dict(reversed(heads.items()))
    model = load_model(write_keras(tmp_path / "x.h5", {**layers, **order}))
    assert same_tensors(model, load_model(KERAS))
    left_out = f"batch term (dense_{number}/kernel, dense_{number}/bias)"
    assert model.provenance["left_out"] == left_out
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert left_out in caplog.text


def without(*path: str) -> Callable[[Layers], None]:
    def edit(layers: Layers) -> None:
        del layers[path[0]][path[1]]

    return edit


def replaced(layer: str, weight: str, array: NDArray[np.generic]) -> Callable[[Layers], None]:
    def edit(layers: Layers) -> None:
        layers.setdefault(layer, {})[weight] = array

    return edit


ones = np.ones
BROKEN = {
    "missing-kernel": (without("conv1d_3", "kernel:0"), "it holds .* conv1d_2, conv1d_4"),
    "missing-gamma": (
        without("batch_normalization_2", "gamma:0"),
        r"missing: batch_normalization_2/gamma \(18,\)$",
    ),
    "missing-bottleneck": (without("dense", "kernel:0"), "two Dense layers: it holds .* dense_1$"),
    "missing-bias": (without("dense_1", "bias:0"), r"missing: dense_1/bias \(10,\)$"),
    "misshapen-kernel": (
        replaced("conv1d_2", "kernel:0", ones((5, 17, 18), "f4")),
        r"conv1d_2/kernel \(5, 17, 18\) where \(5, 16, 18\) is expected$",
    ),
    "misshapen-bottleneck": (
        replaced("dense", "kernel:0", ones((83, 8), "f4")),
        r"dense/kernel \(83, 8\) where \(72, 8\) is expected$",
    ),
    "kernel-of-no-axes": (
        replaced("conv1d_2", "kernel:0", ones((), "f4")),
        r"conv1d_2/kernel \(\) where",
    ),
    "kernel-of-no-channels": (
        replaced("conv1d_7", "kernel:0", ones((1, 28, 0), "f4")),
        r"conv1d_7/kernel \(1, 28, 0\) where",
    ),
    "even-kernel": (replaced("conv1d", "kernel:0", ones((16, 4, 16), "f4")), "must be odd"),
    "convolution-bias": (replaced("conv1d_1", "bias:0", ones(16, "f4")), "surplus: conv1d_1/bias"),
    "other-layer": (replaced("layer_norm", "gamma:0", ones(8, "f4")), "surplus: layer_norm/gamma"),
    "other-dense": (
        replaced("dense_2", "kernel:0", ones((8, 3), "f4")),
        r"surplus: dense_2/kernel \(8, 3\)$",
    ),
    "nan": (replaced("dense_1", "bias:0", np.full(10, np.nan, "f4")), "dense_1/bias holds NaN"),
    "integers": (replaced("dense_1", "bias:0", ones(10, "i4")), "dense_1/bias is torch.int32"),
    "text": (replaced("dense_1", "bias:0", np.full(10, b"x")), "is damaged"),
}


@pytest.mark.parametrize(("edit", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files_say_what_is_wrong(tmp_path, layers, edit, message):
    edit(layers)
    path = write_keras(tmp_path / "x.h5", layers)
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(path)
    assert str(path) in str(error.value)


def test_two_further_heads_are_refused(tmp_path, layers):
    layers |= {"dense_2": batch_term(3), "dense_3": batch_term(4)}
    with pytest.raises(CheckpointError, match=r"surplus: dense_2/.*dense_3/"):
        load_model(write_keras(tmp_path / "x.h5", layers))


def test_another_input_length_in_the_full_model_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes((DATA / "keras_tiny.full.h5").read_bytes())
    with h5py.File(path, "a") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = text.replace("[null, 1344, 4]", "[null, 1340, 4]", 1)
    with pytest.raises(CheckpointError, match=r"reads 1340 bases.* such as 1344"):
        load_model(path)


@pytest.mark.parametrize("kept", [100, 3000, 100_000])
def test_a_truncated_file_is_damaged(tmp_path, kept):
    path = tmp_path / "x.h5"
    path.write_bytes(KERAS.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"x\.h5 is damaged: fetch or write it again"):
        load_model(path)


def test_keras_3_is_named(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/conv1d/vars/0"] = np.ones((17, 4, 16), "f4")
    with pytest.raises(CheckpointError, match="isn't of Keras 2"):
        load_model(tmp_path / "x.weights.h5")


def test_h5py_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(CheckpointError, match=r"pip install 'scbasset-ism\[keras\]'"):
        load_model(KERAS)
