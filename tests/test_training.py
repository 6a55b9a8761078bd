"""Training: steps against plain PyTorch, kills, frozen trunks, and that something is learned."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn
from torch.nn import functional as F

from scbasset_ism import training
from scbasset_ism.accessibility import Accessibility
from scbasset_ism.bases import decode, reverse_complement
from scbasset_ism.checkpoint import load_model
from scbasset_ism.errors import CheckpointError, StoreError, TrainingError
from scbasset_ism.evaluation import evaluate, measure, predict_spans
from scbasset_ism.examples import Examples
from scbasset_ism.genome import Genome
from scbasset_ism.model import Config, Scbasset, numbered_cells, one_hot, random_model
from scbasset_ism.recipe import Recipe, scaled_config
from scbasset_ism.regions import Region
from scbasset_ism.splits import split_randomly
from scbasset_ism.training import TrainOptions, begin_model, forward, train, training_step
from scbasset_ism.training_state import TrainState
from scbasset_ism.views import all_views

N_CELLS = 5
RECIPE = Recipe(epochs=3, batch_size=16, channels=6, bottleneck=3, shifts=2, precision="float32")


def some_examples(n: int = 60, shifts: int = 2) -> Examples:
    """Random peaks; a stretch of A opens one half of the cells and a stretch of C the other."""
    rng = np.random.default_rng(0)
    spans = rng.integers(0, 4, (n, 1344 + 2 * shifts)).astype(np.uint8)
    kind = np.arange(n) % 2
    spans[kind == 0, 600:720] = 0
    spans[kind == 1, 600:720] = 1
    is_open = np.zeros((n, N_CELLS), bool)
    is_open[kind == 0, :3] = is_open[kind == 1, 3:] = True
    is_open ^= rng.random(is_open.shape) < 0.05
    peaks = [Region("1", 100 * i, 100 * i + 50, f"peak{i}", 0) for i in range(n)]
    cells = numbered_cells(N_CELLS).assign(type=list("AAACC"))
    data = Accessibility(peaks, sparse.csr_array(is_open), cells, "here")
    return Examples(data, spans, split_randomly(n, 0))


@pytest.fixture(scope="module")
def examples() -> Examples:
    return some_examples()


def double_model() -> Scbasset:
    return random_model(scaled_config(N_CELLS, replace(RECIPE, dropout=0.0))).double()


def some_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 5, (7, 1344), dtype=torch.uint8, generator=generator)
    return codes, (torch.rand(7, N_CELLS, generator=generator) < 0.4).double()


@pytest.mark.parametrize("is_training", [True, False], ids=["training", "eval"])
def test_the_forward_pass_is_the_models(is_training: bool) -> None:
    model, plain = double_model().train(is_training), double_model().train(is_training)
    codes, _ = some_batch()
    x = one_hot(codes, torch.float64)
    torch.testing.assert_close(forward(model, x), plain(x), rtol=0, atol=1e-11)
    for (name, mine), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)
    moved, still = (m.stem.batch_norm.running_mean for m in (model, double_model()))
    assert torch.equal(moved, still) != is_training


def plain_steps(model: Scbasset, recipe: Recipe, n: int) -> None:
    """The definition: PyTorch's own layers, loss and Adam."""
    adam = torch.optim.Adam(model.parameters(), recipe.learning_rate, recipe.betas, recipe.epsilon)
    for seed in range(n):
        codes, labels = some_batch(seed)
        adam.zero_grad()
        nn.BCEWithLogitsLoss()(model(one_hot(codes, torch.float64)), labels).backward()
        adam.step()


@pytest.mark.parametrize("n", [1, 3])
def test_steps_are_those_of_plain_pytorch(n: int) -> None:
    recipe = replace(RECIPE, dropout=0.0)
    model, plain = double_model().train(), double_model().train()
    plain_steps(plain, recipe, n)
    state = TrainState(model, recipe)
    state.train_mode()
    for seed in range(n):
        training_step(state, *some_batch(seed), precision="float32", rate=recipe.learning_rate)
    begun = dict(double_model().named_parameters())
    for (name, mine), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
        assert (mine - begun[name]).abs().max() > 1e-3  # it moved, so the bound means something
    for (name, mine), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_another_rate_is_another_step() -> None:
    recipe = replace(RECIPE, dropout=0.0)
    model, plain = double_model().train(), double_model().train()
    plain_steps(plain, recipe, 1)
    training_step(TrainState(model, recipe), *some_batch(), precision="float32", rate=0.009)
    assert (model.dense.weight - plain.dense.weight).abs().max() > 1e-4


def test_batches_hold_every_peak_from_some_view(examples: Examples) -> None:
    recipe = replace(RECIPE, batch_size=9)
    batches = list(examples.batches(recipe, 0))
    assert len(batches) == examples.n_batches(recipe) == len(examples.split.train) // 9
    spans = {decode(examples.spans[row]): row for row in examples.split.train}
    seen, shifts, strands = [], set(), set()
    for codes, labels in batches:
        assert codes.shape == (9, 1344)
        for window, label in zip(codes, labels, strict=True):
            views = {False: decode(window), True: decode(reverse_complement(window))}
            row, shift, reverse = next(
                (row, span.find(text), reverse)
                for span, row in spans.items()
                for reverse, text in views.items()
                if text in span
            )
            seen.append(row)
            shifts.add(shift)
            strands.add(reverse)
            np.testing.assert_array_equal(label, examples.labels(np.array([row]))[0])
    assert len(set(seen)) == len(seen)
    assert shifts == {0, 1, 2, 3, 4}
    assert strands == {True, False}
    again, other = next(examples.batches(recipe, 0)), next(examples.batches(recipe, 1))
    np.testing.assert_array_equal(again[0], batches[0][0])
    assert (other[0] != again[0]).any()


def test_without_augmentation_windows_are_those_of_the_peaks() -> None:
    plain = some_examples(shifts=0)
    recipe = replace(RECIPE, rc=False, shifts=0, batch_size=1000)
    codes, _ = next(plain.batches(recipe, 0))
    assert len(codes) == len(plain.split.train)
    assert {decode(c) for c in codes} == {decode(plain.spans[row]) for row in plain.split.train}


def test_it_learns_and_its_checkpoint_is_used_at_once(tmp_path: Path) -> None:
    examples = some_examples(120)
    recipe = replace(RECIPE, epochs=12, schedule="one-cycle", averaging=0.5)
    train(examples, tmp_path / "model", recipe, options=TrainOptions(notes={"source": "x.h5ad"}))
    model = load_model(tmp_path / "model")
    assert list(model.cells["type"]) == list("AAACC")
    assert model.provenance["origin_source"] == "x.h5ad"
    assert model.provenance["origin_learning_rate"] == "0.01"
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    found = examples.measure(model, examples.split.test, recipe, "cpu")
    assert metrics["test"]["cells_auroc"] == pytest.approx(found.cells_auroc)
    # 6 peaks of which a twentieth of the labels is noise
    everything = examples.measure(model, np.arange(120), recipe, "cpu")
    assert everything.cells_auroc > 0.9
    assert everything.peaks_auroc > 0.9
    sets = [
        line.split("\t") for line in (tmp_path / "model" / "peaks.bed").read_text().splitlines()
    ]
    assert [row for row, fields in enumerate(sets) if fields[4] == "test"] == list(
        examples.split.test
    )
    history = (tmp_path / "model" / "history.tsv").read_text().splitlines()
    assert len(history) == 13
    assert (tmp_path / "model" / "training.svg").read_bytes().startswith(b"<?xml")
    assert not (tmp_path / "model.progress").exists()


class KilledError(Exception):
    """Stands for a kill between two epochs."""


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Dies in the middle of the third epoch."""
    plain, calls = training.training_step, iter(range(1000))

    def dying(*args, **kwargs) -> float:
        if next(calls) == 8:  # 3 steps an epoch
            raise KilledError
        return plain(*args, **kwargs)

    monkeypatch.setattr(training, "training_step", dying)
    yield monkeypatch
    monkeypatch.setattr(training, "training_step", plain)


@pytest.mark.parametrize("averaging", [0.0, 0.9], ids=["plain", "averaged"])
def test_a_killed_training_goes_on_to_the_same_weights(
    tmp_path: Path, examples: Examples, killer: pytest.MonkeyPatch, averaging: float
) -> None:
    recipe = replace(RECIPE, averaging=averaging, schedule="one-cycle")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with pytest.raises(KilledError):
        train(examples, killed, recipe)
    killer.undo()
    with pytest.raises(TrainingError, match="was interrupted: go on with --resume"):
        train(examples, killed, recipe)
    other = replace(recipe, learning_rate=0.02)
    with pytest.raises(StoreError, match=r"learning_rate was 0\.01 and is 0\.02"):
        train(examples, killed, other, options=TrainOptions(resume=True))
    train(examples, killed, recipe, options=TrainOptions(resume=True))
    train(examples, whole, recipe)
    for name in ("model.safetensors", "metrics.json", "peaks.bed"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    train(examples, tmp_path / "seeded", replace(recipe, seed=1))
    seeded = (tmp_path / "seeded" / "model.safetensors").read_bytes()
    assert seeded != (whole / "model.safetensors").read_bytes()


def test_there_must_be_something_to_go_on_from(tmp_path: Path, examples: Examples) -> None:
    options = TrainOptions(resume=True)
    with pytest.raises(TrainingError, match="no interrupted training"):
        train(examples, tmp_path / "model", RECIPE, options=options)
    (tmp_path / "model.progress" / "training.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="is damaged"):
        train(examples, tmp_path / "model", RECIPE, options=options)


def test_a_finished_model_is_not_replaced_unasked(tmp_path: Path, examples: Examples) -> None:
    recipe = replace(RECIPE, epochs=1)
    train(examples, tmp_path / "model", recipe)
    with pytest.raises(CheckpointError, match="exists"):
        train(examples, tmp_path / "model", recipe)
    train(examples, tmp_path / "model", recipe, options=TrainOptions(overwrite=True))


def test_a_frozen_trunk_stays_as_it_was(tmp_path: Path, examples: Examples) -> None:
    init = random_model(scaled_config(3, RECIPE))
    recipe = replace(RECIPE, freeze_trunk=True)
    model = train(examples, tmp_path / "model", recipe, init=init)
    trunk = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    for name, value in trunk.items():
        assert torch.equal(value, init.state_dict()[name]), name
    assert not torch.equal(model.head.weight, begin_model(examples, recipe, init).head.weight)
    assert model.head.weight.shape == (N_CELLS, 3)
    with pytest.raises(TrainingError, match="--init"):
        train(examples, tmp_path / "other", recipe)


def test_fine_tuning_keeps_the_head_of_the_same_cells(examples: Examples) -> None:
    same = random_model(scaled_config(N_CELLS, RECIPE), seed=5)
    assert torch.equal(begin_model(examples, RECIPE, same).head.weight, same.head.weight)
    other = random_model(scaled_config(N_CELLS, RECIPE), seed=5)
    other.cells = other.cells.rename(index="other_{}".format)
    begun = begin_model(examples, RECIPE, other)
    assert not torch.equal(begun.head.weight, other.head.weight)
    assert torch.equal(begun.dense.weight, other.dense.weight)


def test_intercepts_start_at_the_log_odds(examples: Examples) -> None:
    share = examples.labels(examples.split.train).mean(axis=0)
    bias = begin_model(examples, RECIPE).head.bias.detach()
    np.testing.assert_allclose(torch.sigmoid(bias).numpy(), share, atol=1e-6)


def test_it_stops_when_nothing_gets_better(tmp_path: Path, examples: Examples) -> None:
    frozen = replace(RECIPE, epochs=50, patience=2, learning_rate=1e-12)
    train(examples, tmp_path / "model", frozen)
    history = (tmp_path / "model" / "history.tsv").read_text().splitlines()
    assert len(history) - 1 < 10


def test_a_loss_that_explodes_stops_the_training(tmp_path: Path, examples: Examples) -> None:
    with pytest.raises(TrainingError, match="take a lower --learning-rate"):
        train(examples, tmp_path / "model", replace(RECIPE, learning_rate=1e30))


def test_the_rate_goes_up_and_down() -> None:
    recipe = Recipe(schedule="one-cycle")
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert max(rates) == rates[25] == pytest.approx(0.01)
    assert rates[0] < 0.001
    assert rates[-1] < 1e-5
    assert Recipe().rate(77, 100) == 0.01


@pytest.mark.parametrize(
    "values",
    [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": 0}, {"averaging": 1}, {"shifts": -1}],
    ids=lambda values: next(iter(values)),
)
def test_nonsense_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        Recipe(**values)


def test_the_publications_sizes_are_those_of_288_channels() -> None:
    assert scaled_config(2034, Recipe()) == Config()


def test_evaluate_is_measure_on_the_peaks_of_the_file(tiny_genome: Genome, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    peaks = [Region("chr1", 100 * i, 100 * i + 51, f"peak{i}", 0) for i in range(50)]
    is_open = rng.random((50, N_CELLS)) < 0.4
    model = random_model(scaled_config(N_CELLS, RECIPE), seed=5)
    shuffled = [3, 0, 4, 1, 2]
    data = Accessibility(
        peaks, sparse.csr_array(is_open[:, shuffled]), model.cells.iloc[shuffled], "here"
    )
    windows = [
        tiny_genome.text("1", p.window_start(1344), p.window_start(1344) + 1344) for p in peaks
    ]
    logits = model.predict(windows).numpy()
    found = evaluate(model, data, tiny_genome)
    loss = F.binary_cross_entropy_with_logits(
        torch.from_numpy(logits), torch.from_numpy(is_open.astype(np.float32))
    )
    assert found.loss == pytest.approx(loss.item(), abs=1e-6)
    assert (found.peaks, found.cells) == (50, N_CELLS)
    above = [logits[is_open[:, i], i][:, None] > logits[~is_open[:, i], i] for i in range(N_CELLS)]
    assert found.cells_auroc == pytest.approx(np.mean([a.mean() for a in above]), abs=1e-6)
    depth = np.log10(is_open.sum(axis=0))
    r = np.corrcoef(model.head.bias.detach().numpy(), depth)[0, 1]
    assert found.depth_correlation == pytest.approx(r, abs=1e-6)
    bed = tmp_path / "some.bed"
    bed.write_text("1\t0\t1000\n")
    some = evaluate(model, data, tiny_genome, regions=bed, rc=True, shifts=1)
    assert some.peaks == 10
    spans = data.inside(tiny_genome).take(np.arange(10)).read_spans(tiny_genome, 1346)
    views = all_views(1344, rc=True, shifts=1)
    predicted = predict_spans(model, spans, views, device="cpu")
    assert some == measure(predicted, sparse.csr_array(is_open[:10]))
