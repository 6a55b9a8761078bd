"""Attributions of all cells from the bottleneck's are Captum's of each cell, and add up."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from conftest import TINY_CONFIG

from scbasset_ism import attribution
from scbasset_ism.attribution import AttributionOptions, attribute, baselines
from scbasset_ism.bases import Codes, N
from scbasset_ism.contributions import Contributions, completeness_error, save_modisco
from scbasset_ism.errors import ScbassetError
from scbasset_ism.model import Scbasset, one_hot

FAST: dict[str, Any] = {"max_steps": 16}
CELLS, BASES, BOTTLENECK = TINY_CONFIG.n_cells, 4, TINY_CONFIG.bottleneck


@pytest.fixture
def codes() -> Codes:
    """Two windows; the first has a run of N."""
    codes = np.random.default_rng(0).integers(0, 4, (2, TINY_CONFIG.window)).astype(np.uint8)
    codes[0, 200:260] = N
    return codes


def weight_of(model: Scbasset) -> np.ndarray:
    return model.head.weight.detach().numpy()


def captum_of_cell(
    model: Scbasset, codes: Codes, starts: Codes, cell: int, n_steps: int
) -> np.ndarray:
    """Captum on one cell's logit, averaged over (windows, baselines, window): all four bases."""
    x = one_hot(torch.from_numpy(codes), model.head.weight.dtype)
    found = []
    for start in starts.swapaxes(0, 1):
        baseline = one_hot(torch.from_numpy(start), x.dtype)
        integral = IntegratedGradients(model).attribute(x, baseline, target=cell, n_steps=n_steps)
        found.append(integral.detach().numpy())
    return np.mean(found, axis=0)


@pytest.mark.parametrize("baseline", ["n", "shuffle"])
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_every_cell_is_that_of_captum_on_its_logit(
    tiny_model: Scbasset, codes: Codes, baseline: Any, dtype: torch.dtype, atol: float
) -> None:
    model = tiny_model.to(dtype)
    options = AttributionOptions(baseline=baseline, n_shuffles=3, batch_size=5, **FAST)
    found = attribute(model, codes, options=options)
    logits = found.logits(weight_of(model))
    assert logits.shape == (2, CELLS, TINY_CONFIG.window)
    assert found.hypothetical.dtype == np.dtype(str(dtype).removeprefix("torch."))
    starts = baselines(codes, options)
    for cell in range(CELLS):
        want = captum_of_cell(model, codes, starts, cell, 16).sum(axis=1)  # over the bases
        np.testing.assert_allclose(logits[:, cell], want, rtol=0, atol=atol)
        other = logits[:, (cell + 1) % CELLS]
        assert np.abs(other - want).max() > 1e-3 > atol
    assert np.abs(logits).max() > 0.01


def test_groups_are_means_of_cells(tiny_model: Scbasset, codes: Codes) -> None:
    found = attribute(tiny_model, codes, options=AttributionOptions(**FAST))
    weight = weight_of(tiny_model)
    group = weight[[0, 3]].mean(axis=0, keepdims=True)
    each = found.logits(weight)
    np.testing.assert_allclose(found.logits(group)[:, 0], each[:, [0, 3]].mean(1), atol=1e-6)


@pytest.mark.parametrize("baseline", ["n", "shuffle"])
def test_they_add_up_to_the_difference_in_logits(
    tiny_model: Scbasset, codes: Codes, baseline: Any
) -> None:
    model = tiny_model.double()
    options = AttributionOptions(baseline=baseline, n_shuffles=3, tolerance=0.1, max_steps=256)
    found = attribute(model, codes, options=options)
    starts = baselines(codes, options)
    with torch.no_grad():
        after = model(one_hot(torch.from_numpy(codes), torch.float64)).numpy()
        before = [
            model(one_hot(torch.from_numpy(start), torch.float64)).numpy().mean(0)
            for start in starts
        ]
    rise = after - np.array(before)
    weight = weight_of(model)
    np.testing.assert_allclose(found.difference @ weight.T, rise, atol=1e-12)
    deviation = np.abs(found.logits(weight).sum(axis=2) - rise).max(axis=1)
    np.testing.assert_allclose(found.error, deviation / np.abs(rise).max(axis=1), atol=1e-10)
    assert found.is_complete.all()
    assert found.error.max() < 0.1
    assert (found.n_steps >= attribution.FIRST_STEPS).all()


def test_steps_are_doubled_only_where_the_error_is_large(
    tiny_model: Scbasset, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attribution, "FIRST_STEPS", 4)
    coarse = attribute(tiny_model, codes, options=AttributionOptions(max_steps=4, tolerance=1e-9))
    assert coarse.n_steps.tolist() == [4, 4]
    assert not coarse.is_complete.any()
    between = float(coarse.error.mean())  # one of the two is good enough
    options = AttributionOptions(max_steps=2048, tolerance=between)
    found = attribute(tiny_model, codes, options=options)
    easy = int(coarse.error.argmin())
    assert found.n_steps[easy] == 4 < found.n_steps[1 - easy]
    assert found.is_complete.all()
    np.testing.assert_array_equal(found.hypothetical[easy], coarse.hypothetical[easy])
    stopped = attribute(tiny_model, codes, options=AttributionOptions(max_steps=9, tolerance=1e-9))
    assert stopped.n_steps.tolist() == [8, 8]


def test_completeness_error_is_in_logits_of_the_worst_cell() -> None:
    weight = np.array([[1.0, 0.0], [0.0, 10.0], [0.0, 0.0]])
    total = np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    difference = np.array([[1.0, 1.0], [3.0, 4.0], [0.0, 0.0]])
    assert completeness_error(total, difference, weight).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("baseline", ["n", "shuffle"])
def test_hypothetical_contributions(tiny_model: Scbasset, codes: Codes, baseline: Any) -> None:
    """Captum's gradients along the path, times the step from the baseline to each base."""
    model = tiny_model.double()
    options = AttributionOptions(baseline=baseline, n_shuffles=2, **FAST)
    found = attribute(model, codes, options=options)
    logits = found.hypothetical_logits(weight_of(model))
    assert logits.shape == (2, CELLS, TINY_CONFIG.window, BASES)
    x, starts, want = one_hot(torch.from_numpy(codes), torch.float64), baselines(codes, options), 0
    for start in starts.swapaxes(0, 1):
        b = one_hot(torch.from_numpy(start), torch.float64)
        integral = IntegratedGradients(model, multiply_by_inputs=False)
        gradient = integral.attribute(x, b, target=2, n_steps=16).detach()
        for base in range(BASES):
            step = torch.eye(BASES, dtype=torch.float64)[base][:, None] - b
            want = want + np.eye(BASES)[base] * (gradient * step).sum(1)[..., None].numpy()
    np.testing.assert_allclose(logits[:, 2], want / starts.shape[1], rtol=0, atol=1e-10)
    own = np.take_along_axis(logits, np.minimum(codes, 3)[:, None, :, None].astype(int), 3)[..., 0]
    known = (codes != N)[:, None].repeat(CELLS, axis=1)
    np.testing.assert_allclose(found.logits(weight_of(model))[known], own[known], atol=1e-12)
    assert (found.logits(weight_of(model))[~known] == 0).all()
    assert not known.all()


def test_gradient_correction(tiny_model: Scbasset, codes: Codes) -> None:
    found = attribute(tiny_model, codes, options=AttributionOptions(**FAST))
    before, after = found.hypothetical, found.corrected().hypothetical
    np.testing.assert_allclose(after.sum(axis=2), 0, atol=1e-6)
    np.testing.assert_allclose(np.diff(after, axis=2), np.diff(before, axis=2), atol=1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_input_x_gradient_and_saliency_are_those_of_captum(
    tiny_model: Scbasset, codes: Codes
) -> None:
    model = tiny_model.double()
    options = AttributionOptions(method="input-x-gradient", batch_size=1)
    found = attribute(model, codes, options=options)
    x = one_hot(torch.from_numpy(codes), torch.float64).requires_grad_()
    weight = weight_of(model)
    assert np.isnan(found.error).all()
    assert found.is_complete.all()
    known = codes != N
    for cell in range(CELLS):
        want = InputXGradient(model).attribute(x, target=cell).detach().numpy().sum(axis=1)
        np.testing.assert_allclose(found.logits(weight)[:, cell][known], want[known], atol=1e-12)
        want = Saliency(model).attribute(x, target=cell).numpy().max(axis=1)
        np.testing.assert_allclose(found.saliency(weight)[:, cell], want, atol=1e-12)
    with pytest.raises(ScbassetError, match="take the method input-x-gradient"):
        attribute(model, codes, options=AttributionOptions(**FAST)).saliency(weight)


def test_shuffles_belong_to_the_window_and_the_seed(codes: Codes) -> None:
    options = AttributionOptions(baseline="shuffle", n_shuffles=3)
    first = baselines(codes, options)
    assert first.shape == (2, 3, TINY_CONFIG.window)
    np.testing.assert_array_equal(baselines(codes[::-1], options), first[::-1])
    other = baselines(codes, AttributionOptions(baseline="shuffle", n_shuffles=3, seed=1))
    assert (other != first).any(axis=2).all()
    assert (first[:, 0] != first[:, 1]).any(axis=1).all()


def test_batches_change_nothing(tiny_model: Scbasset, codes: Codes) -> None:
    model = tiny_model.double()

    def run(some: Codes, batch_size: int) -> Contributions:
        return attribute(model, some, options=AttributionOptions(batch_size=batch_size, **FAST))

    many = np.concatenate([codes, codes[:, ::-1], codes[:1, ::-1]])
    whole = run(many, 64)
    for batch_size in (1, 4, 5, 6):
        np.testing.assert_allclose(
            run(many, batch_size).hypothetical, whole.hypothetical, rtol=0, atol=1e-12
        )
    assert run(codes[:0], 64).own.shape == (0, TINY_CONFIG.window, BOTTLENECK)


def test_the_model_stays_as_it_was(tiny_model: Scbasset, codes: Codes) -> None:
    before = {name: x.clone() for name, x in tiny_model.state_dict().items()}
    expected = attribute(tiny_model, codes, options=AttributionOptions(**FAST)).hypothetical
    tiny_model.train()
    found = attribute(tiny_model, codes, options=AttributionOptions(**FAST)).hypothetical
    np.testing.assert_array_equal(found, expected)  # without dropout and batch statistics
    assert tiny_model.training
    assert all(torch.equal(before[name], x) for name, x in tiny_model.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_model.parameters())


@pytest.mark.parametrize(
    "options",
    [{"n_shuffles": 0}, {"max_steps": 0}, {"batch_size": 0}, {"seed": -1}, {"tolerance": 0.0}],
    ids=["shuffles", "steps", "batch", "seed", "tolerance"],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ScbassetError, match="must be"):
        AttributionOptions(**options)


def test_windows_of_another_length(tiny_model: Scbasset) -> None:
    with pytest.raises(ScbassetError, match=r"\(1, 7\); the model reads \(windows, 1344\)"):
        attribute(tiny_model, np.zeros((1, 7), np.uint8))


def test_without_captum_there_is_one_sentence(
    tiny_model: Scbasset, codes: Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ScbassetError, match=r"pip install 'scbasset-ism\[attribution\]'"):
        attribute(tiny_model, codes)


def test_files_for_modisco(tmp_path: Path, tiny_model: Scbasset, codes: Codes) -> None:
    """The layout of modisco-lite: (windows, 4, window), hypothetical attributions and one-hot."""
    found = attribute(tiny_model, codes, options=AttributionOptions(**FAST))
    weight = weight_of(tiny_model)[1:2]
    hypothetical = found.hypothetical_logits(weight)[:, 0]
    save_modisco(tmp_path / "modisco", codes, hypothetical)
    raw, shap = (np.load(tmp_path / "modisco" / f"{name}.npz")["arr_0"] for name in ("raw", "shap"))
    assert raw.shape == shap.shape == (2, BASES, TINY_CONFIG.window)
    assert raw.dtype == shap.dtype == np.float32
    assert (raw.argmax(axis=1)[codes != N] == codes[codes != N]).all()
    np.testing.assert_array_equal(raw.sum(axis=1), codes != N)
    own = (raw * shap).sum(axis=1)  # what modisco does with them
    np.testing.assert_allclose(own, found.logits(weight)[:, 0], atol=1e-6)


def test_what_modisco_can_not_read(tmp_path: Path, codes: Codes) -> None:
    maps = np.zeros((*codes.shape, BASES), np.float32)
    with pytest.raises(ScbassetError, match=r"need \(2, 1344, 4\)"):
        save_modisco(tmp_path, codes, maps.swapaxes(1, 2))
    maps[1, 5, 2] = np.nan
    with pytest.raises(ScbassetError, match="leave them out"):
        save_modisco(tmp_path, codes, maps)
