"""The network's own rules: N, sizes, modes, predictions from text."""

import pytest
import torch
from conftest import TINY_CONFIG, random_dna

from scbasset_ism.errors import CheckpointError, SequenceError
from scbasset_ism.model import N_WEIGHT, Config, Scbasset, eval_mode, gelu, one_hot, random_model


def test_sizes_of_the_publication() -> None:
    with torch.device("meta"):
        model = Scbasset()
    assert sum(tensor.numel() for tensor in model.state_dict().values()) - 9 == 4_586_932
    assert model.config.final_length == 7
    assert model.dense.weight.shape == (32, 1792)


def test_n_is_the_mean_of_the_four_bases() -> None:
    model = random_model(TINY_CONFIG).double()
    codes = torch.tensor([[0], [1], [2], [3], [4]]).expand(5, 17)
    stem = model.stem.conv(gelu(one_hot(codes, torch.float64)))[:, :, 8]  # sees all 17 bases
    torch.testing.assert_close(stem[4], stem[:4].mean(0), atol=1e-14, rtol=0)
    assert not torch.allclose(stem[0], stem[:4].mean(0), atol=1e-3)
    exact = gelu(torch.tensor(N_WEIGHT, dtype=torch.float64))
    torch.testing.assert_close(exact * 4, gelu(torch.tensor(1.0, dtype=torch.float64)))


def test_one_hot_columns() -> None:
    x = one_hot(torch.tensor([[2, 4, 0]], dtype=torch.uint8))
    assert x.shape == (1, 4, 3)
    assert x[0, :, 0].tolist() == [0, 0, 1, 0]
    assert x[0, :, 1].unique().numel() == 1
    assert x[0, :, 2].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"window": 1343}, "1343 bases is not a multiple of 192"),
        ({"tower_kernel": 4}, "tower_kernel is 4; it must be odd"),
        ({"stem_kernel": 16}, "stem_kernel is 16; it must be odd"),
    ],
    ids=["window", "tower kernel", "stem kernel"],
)
def test_sizes_that_make_no_scbasset(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Config(**sizes)


def test_predict_reads_text(tiny_model: Scbasset) -> None:
    texts = [random_dna(1344, 1), "N" * 1344]
    logits = tiny_model.predict(texts)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(tiny_model.predict(texts[0].lower()), logits[:1])
    assert tiny_model.predict("ACGT" * 336).shape == (1, 5)


def test_predict_is_in_eval_mode_and_leaves_the_mode(tiny_model: Scbasset) -> None:
    text = random_dna(1344)
    want = tiny_model.predict(text)
    tiny_model.train()
    torch.testing.assert_close(tiny_model.predict(text), want)
    assert tiny_model.training
    assert tiny_model.dropout.training


@pytest.mark.parametrize("length", [0, 1343, 1345])
def test_another_length_is_an_error_with_both(tiny_model: Scbasset, length: int) -> None:
    with pytest.raises(SequenceError, match=f"has {length:,} bases and the model reads 1,344"):
        tiny_model.predict("A" * length)


def test_eval_mode_comes_back_after_an_error(tiny_model: Scbasset) -> None:
    tiny_model.train()
    tiny_model.stem.eval()
    modes = [module.training for module in tiny_model.modules()]

    def fail() -> None:
        with eval_mode(tiny_model):
            assert not any(module.training for module in tiny_model.modules())
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert [module.training for module in tiny_model.modules()] == modes


def test_random_models_have_large_effects_and_a_seed() -> None:
    before = torch.get_rng_state()
    model, same, other = (random_model(TINY_CONFIG, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.head.weight, same.head.weight)
    assert not torch.equal(model.head.weight, other.head.weight)
    codes = torch.randint(0, 4, (8, 1344), generator=torch.Generator().manual_seed(0))
    edited = codes.clone()
    edited[:, 672] = (edited[:, 672] + 1) % 4
    with torch.inference_mode():
        delta = model.encode(one_hot(edited)) - model.encode(one_hot(codes))
    assert delta.abs().max() > 0.05
    assert not model.training
