"""Checkpoints: round trip, cells, foreign and broken folders, the hub."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from scbasset_ism.checkpoint import convert, load_model, save_checkpoint
from scbasset_ism.errors import CheckpointError
from scbasset_ism.model import Config, Scbasset, random_model

DATA = Path(__file__).parent / "data"
KERAS = DATA / "keras_tiny.weights.h5"
MULTIMOLECULE = DATA / "multimolecule_tiny"
STEM = "model.encoder.layers.0.conv.weight"
# All sizes differ, and none is the default.
CONFIG = Config(
    n_cells=5,
    window=60,
    stem_channels=6,
    stem_kernel=9,
    tower_channels=(7, 8),
    tower_kernel=3,
    pointwise_channels=10,
    bottleneck=4,
    batch_norm_eps=0.002,
    dropout=0.1,
)


@pytest.fixture
def model() -> Scbasset:
    model = random_model(CONFIG)
    model.cells = pd.DataFrame(
        {
            "cell_type": ["B", "T", "T cell", "NK", "B"],
            "time": [0.1, 0.1 + 0.2, 1 / 3, 4.0, 5.5],
        },
        index=pd.Index(["001", "AAAC-1", "NA", "x,y", "e"], name="cell_id"),
    )
    return model


@pytest.fixture
def ours(tmp_path, model) -> Path:
    save_checkpoint(model, tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def theirs(tmp_path) -> Path:
    shutil.copytree(MULTIMOLECULE, tmp_path / "theirs")
    return tmp_path / "theirs"


def same_tensors(one: Scbasset, other: Scbasset) -> bool:
    tensors = {name: tensor for name, tensor in other.state_dict().items() if "num_b" not in name}
    return all(torch.equal(one.state_dict()[name], tensor) for name, tensor in tensors.items())


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(source: str | Path, *words: str) -> None:
    """The model is refused in one sentence with these words."""
    with pytest.raises(CheckpointError) as error:
        load_model(source)
    message = str(error.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message


# Ours


def test_round_trip(ours, model):
    loaded = load_model(ours)
    assert loaded.config == CONFIG
    assert same_tensors(loaded, model)
    pd.testing.assert_frame_equal(loaded.cells, model.cells, check_exact=True)
    assert loaded.provenance["origin_source"] == "random_model(seed=0)"
    assert not any(module.training for module in loaded.modules())
    assert all(tensor.requires_grad for tensor in loaded.parameters())
    assert same_tensors(load_model(ours / "model.safetensors"), model)
    assert {path.name for path in ours.parent.iterdir()} == {"ours"}


def test_other_cells_leave_the_origin_as_it_was(ours, tmp_path):
    (tmp_path / "cells.tsv").write_text("a\nb\nc\nd\ne\n")
    model = convert(ours, tmp_path / "again", tmp_path / "cells.tsv")
    assert list(model.cells.index) == list("abcde")
    assert [key for key in model.provenance if key.startswith("origin")] == ["origin_source"]


@pytest.mark.parametrize("source", [KERAS, DATA / "keras_tiny.full.h5", MULTIMOLECULE])
def test_convert_keeps_tensors_cells_and_provenance(tmp_path, source):
    cells = tmp_path / "barcodes.tsv"
    cells.write_text("".join(f"AAAC-{i}\n" for i in range(10)))
    before = load_model(source, cells)
    after = convert(source, tmp_path / "a", cells)
    again = convert(tmp_path / "a", tmp_path / "b")
    assert same_tensors(after, before)
    assert same_tensors(again, before)
    assert list(again.cells.index) == [f"AAAC-{i}" for i in range(10)]
    assert load_model(tmp_path / "a").provenance == after.provenance
    origin = {f"origin_{key}": value for key, value in before.provenance.items()}
    assert origin.keys() == {"origin_source", "origin_format", "origin_sha256", "origin_cells"}
    for converted in (after, again):
        assert origin.items() <= converted.provenance.items()
        assert converted.provenance["format"] == "scbasset-ism"
    assert after.provenance["sha256"] == again.provenance["sha256"] != origin["origin_sha256"]


def test_what_was_left_out_stays_in_the_provenance(tmp_path, model):
    model.provenance = {"source": "x.h5", "left_out": "batch term"}
    save_checkpoint(model, tmp_path / "a")
    assert load_model(tmp_path / "a").provenance["origin_left_out"] == "batch term"


def test_loading_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_model(KERAS)
    assert torch.rand(1) == expected


def test_a_model_of_other_precision_and_mode_is_saved_as_float32(tmp_path, model):
    model.double().train()
    save_checkpoint(model, tmp_path / "a")
    assert model.training
    assert {tensor.dtype for tensor in load_model(tmp_path / "a").parameters()} == {torch.float32}


def test_an_existing_folder_is_kept_unless_overwritten(ours, model):
    model.head.bias.data.fill_(7)
    with pytest.raises(CheckpointError, match="exists"):
        save_checkpoint(model, ours)
    with pytest.raises(CheckpointError, match="exists"):
        convert(KERAS, ours)
    assert load_model(ours).head.bias[0] != 7
    save_checkpoint(model, ours, overwrite=True)
    assert load_model(ours).head.bias[0] == 7
    assert convert(ours, ours, overwrite=True).head.bias[0] == 7
    assert {path.name for path in ours.parent.iterdir()} == {"ours"}


def test_overwriting_takes_nothing_but_a_checkpoint(ours, model):
    (ours / "thesis.doc").touch()
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        save_checkpoint(model, ours, overwrite=True)
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        save_checkpoint(model, ours / "thesis.doc", overwrite=True)
    assert len(list(ours.iterdir())) == 4


def test_a_failed_save_leaves_what_was_there(ours, model, monkeypatch):
    def full_disk(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    before = (ours / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="can't be written: No space left on device"):
        save_checkpoint(random_model(CONFIG, seed=1), ours, overwrite=True)
    assert (ours / "model.safetensors").read_bytes() == before
    assert {path.name for path in ours.parent.iterdir()} == {"ours"}


def test_a_path_below_a_file_can_not_be_written(tmp_path, model):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="can't be written"):
        save_checkpoint(model, tmp_path / "file" / "a")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param({"format_version": 2}, ["format_version 2", "update"], id="newer"),
        pytest.param({"format": "other"}, ["neither"], id="other-format"),
        pytest.param({"config": None}, ["must be tables"], id="no-config"),
        pytest.param({"config": {"n_cells": 5}}, ["lacks window, stem_channels"], id="lacks-keys"),
    ],
)
def test_a_broken_description_is_refused(ours, values, words):
    edit_json(ours / "config.json", **values)
    refused(ours, "config.json", *words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_cells", "5"),
        ("n_cells", 0),
        ("n_cells", True),
        ("n_cells", 10**30),
        ("stem_pool", 0),
        ("stem_kernel", 8),
        ("window", 61),
        ("tower_channels", 7),
        ("tower_channels", []),
        ("tower_channels", [7, None]),
        ("batch_norm_eps", float("nan")),
        ("dropout", 1),
        ("bottleneck", [4]),
    ],
)
def test_nonsense_sizes_are_refused(ours, name, value):
    config = json.loads((ours / "config.json").read_text())["config"]
    edit_json(ours / "config.json", config=config | {name: value})
    refused(ours, str(ours / "config.json"), name if value != 61 else "window of 61")


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff", '{"format": '])
def test_broken_json_is_refused(ours, text):
    (ours / "config.json").write_bytes(text.encode("latin-1"))
    refused(ours, "config.json", "is not")


def test_tensors_that_do_not_fit_are_listed(ours):
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["extra"] = tensors.pop("head.bias")
        tensors["dense.weight"] = torch.ones(4, 49)

    edit_tensors(ours, edit)
    refused(
        ours,
        "missing: head.bias (5,)",
        "dense.weight (4, 49) where (4, 50) is expected",
        "surplus: extra (5,)",
    )


def test_long_lists_are_cut(ours):
    edit_tensors(ours, dict.clear)
    refused(ours, "stem.conv.weight (6, 4, 9), ", "more")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param(torch.full((5,), torch.inf), "head.bias holds NaN or infinite", id="inf"),
        pytest.param(torch.ones(5, dtype=torch.int8), "head.bias is torch.int8", id="int8"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(ours, value, words):
    edit_tensors(ours, lambda tensors: tensors.update({"head.bias": value}))
    refused(ours, words)


# Files that are something else


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.h5"])
def test_a_pickle_is_never_opened(ours, name):
    class Payload:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (Path(ours / "owned"),)

    path = ours / name
    path.write_bytes(pickle.dumps(Payload()))
    refused(path, "pickle", "never opened")
    if name == "model.safetensors":
        refused(ours, "pickle", "never opened")
    assert not (ours / "owned").exists()
    pickle.loads(path.read_bytes())  # the payload does work
    assert (ours / "owned").exists()


def test_a_torch_file_is_never_opened(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "pickle or a zip", "never opened")
    refused(tmp_path, "holds no model.safetensors", "model.pt")


@pytest.mark.parametrize("kept", [0, 5, 100, 2000, -1])
def test_a_truncated_file_is_refused(ours, kept):
    path = ours / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    refused(ours, "fetch or write it again")


def test_a_pointer_of_git_lfs_is_named(ours):
    (ours / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(ours, "git lfs pull")


def test_weights_without_description_are_refused(ours):
    (ours / "config.json").unlink()
    refused(ours / "model.safetensors", "holds no config.json")


def test_scvi_tools_network_is_refused(tmp_path):
    tensors = {"cell_embedding": torch.ones(32, 5), "cell_bias": torch.ones(5)}
    save_file(tensors, tmp_path / "model.safetensors")
    refused(tmp_path, "is of scvi-tools' SCBASSET", "another network")


def test_half_the_bytes(tmp_path, model):
    model.batch_norm.running_var[0] = 1e-9  # float16 would make it 0
    save_checkpoint(model, tmp_path / "half", dtype=torch.float16)
    tensors = load_file(tmp_path / "half" / "model.safetensors")
    assert tensors["dense.weight"].dtype == torch.float16
    loaded = load_model(tmp_path / "half")
    assert loaded.dense.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.dense.weight, model.dense.weight, rtol=1e-3, atol=1e-4)
    assert loaded.batch_norm.running_var[0] == model.batch_norm.running_var[0]
    again = convert(tmp_path / "half", tmp_path / "again", dtype=torch.float16)
    torch.testing.assert_close(again.dense.weight, loaded.dense.weight, rtol=0, atol=0)


def test_a_folder_of_nothing_is_refused(tmp_path):
    refused(tmp_path, "holds no model.safetensors (it holds nothing)")


# multimolecule


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_precision_loads_as_float32(theirs, dtype):
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor

    edit_tensors(theirs, edit)
    model = load_model(theirs)
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert torch.allclose(model.head.weight, load_model(KERAS).head.weight, rtol=0.01)


def test_an_n_that_is_not_the_mean_is_refused(theirs):
    edit_tensors(theirs, lambda tensors: tensors[STEM][3, 4, 2].add_(1e-4))
    refused(theirs, STEM, "is not the mean")


def test_a_stem_without_n_is_misshapen(theirs):
    edit_tensors(theirs, lambda tensors: tensors.update({STEM: torch.ones(16, 4, 17)}))
    refused(theirs, f"{STEM} (16, 4, 17) where (16, 5, 17) is expected")


def test_tensors_are_named_as_in_the_file(theirs):
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["sequence_head.bias"] = tensors.pop("sequence_head.decoder.bias")

    edit_tensors(theirs, edit)
    refused(theirs, "missing: sequence_head.decoder.bias (10,)", "surplus: sequence_head.bias")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hidden_act": "gelu"}, "'quick_gelu'"),
        ({"model_type": "bert"}, "'bert'"),
        ({"num_labels": 11}, "sequence_head.decoder.weight (10, 8) where (11, 8) is expected"),
        ({"sequence_length": 1345}, "window of 1345"),
        ({"tower_channels": [16, 18]}, "surplus"),
    ],
)
def test_a_description_of_another_network_is_refused(theirs, values, words):
    edit_json(theirs / "config.json", **values)
    refused(theirs, str(theirs), words)


def test_sizes_and_provenance_of_multimolecule():
    model = load_model(MULTIMOLECULE)
    assert model.config == load_model(KERAS).config
    assert list(model.cells.index) == [f"cell_{i}" for i in range(10)]
    assert model.provenance["source"] == str(MULTIMOLECULE)
    assert model.provenance["format"] == "multimolecule"
    assert len(model.provenance["sha256"]) == 64


# Where a model is


@pytest.fixture
def hub(monkeypatch) -> list[str]:
    """A hub that has `owner/name`, and the requests it got."""
    requests: list[str] = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        requests.append(name)
        assert sorted(allow_patterns) == ["cells.tsv", "config.json", "model.safetensors"]
        if name != "owner/name":
            raise OSError("404\nRepository Not Found")
        return str(MULTIMOLECULE)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return requests


def test_a_hub_id_is_downloaded(hub):
    model = load_model("owner/name")
    assert same_tensors(model, load_model(KERAS))
    assert model.provenance["source"] == "owner/name"
    assert model.provenance["revision"] == "multimolecule_tiny"


def test_a_hub_that_does_not_answer_is_one_sentence(hub):
    refused("owner/other", "no path owner/other", "(404)", "downloaded folder")
    assert hub == ["owner/other"]


def test_a_path_goes_before_a_hub_id(hub, tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(model, "owner/name")
    assert load_model("owner/name").config == CONFIG
    assert hub == []


@pytest.mark.parametrize("source", ["name", "a/b/c", "./a", "/a/b", "models/x.h5", "a/b.pt"])
def test_what_is_neither_path_nor_hub_id_is_one_sentence(hub, source):
    refused(source, "there is no model", "multimolecule/scbasset")
    assert hub == []


def test_huggingface_hub_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("owner/name", "pip install 'scbasset-ism[hub]'")


@pytest.mark.network
def test_the_published_model():
    assert load_model("multimolecule/scbasset").config == Config()
