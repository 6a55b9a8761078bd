"""Edits, precision, memory, and what an engine leaves alone."""

import pytest
import torch
from conftest import TINY_CONFIG

from scbasset_ism.agreement import SelfCheck
from scbasset_ism.delta import (
    Deltas,
    Edits,
    Engine,
    all_substitutions,
    apply_edits,
    naive_delta,
    resolve_precision,
)
from scbasset_ism.errors import SelfCheckError
from scbasset_ism.model import Config, Scbasset, one_hot
from scbasset_ism.reference_pass import true_float32
from scbasset_ism.self_check import self_check


@pytest.fixture
def codes() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (3, TINY_CONFIG.window)
    return torch.randint(0, 5, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture
def edits(codes: torch.Tensor) -> Edits:
    """Two bases in each window; window 1 has two edits."""
    window = torch.tensor([2, 1, 0, 1])
    offset = torch.tensor([0, 672, 700, 1342])
    return Edits(window, offset, (codes[window][:, :2] + 1) % 5)


def test_apply_edits_writes_only_the_patch(codes: torch.Tensor, edits: Edits) -> None:
    alternate = apply_edits(codes, edits)
    assert alternate.shape == (4, TINY_CONFIG.window)
    for row, (window, offset) in enumerate(zip(edits.window, edits.offset, strict=True)):
        expected = codes[window].clone()
        expected[offset : offset + 2] = edits.bases[row]
        assert torch.equal(alternate[row], expected)


def test_all_substitutions() -> None:
    edits = all_substitutions(torch.tensor([[0, 4], [3, 1]], dtype=torch.uint8))
    listed = torch.stack([edits.window, edits.offset, edits.bases[:, 0].long()], dim=1).tolist()
    assert listed == [
        *([0, 0, base] for base in (1, 2, 3)),
        *([0, 1, base] for base in (0, 1, 2, 3)),
        *([1, 0, base] for base in (0, 1, 2)),
        *([1, 1, base] for base in (0, 2, 3)),
    ]


def test_naive_delta_is_alt_minus_ref(
    tiny_model: Scbasset, codes: torch.Tensor, edits: Edits
) -> None:
    deltas = naive_delta(tiny_model.double(), codes, edits, batch_size=3)
    with torch.inference_mode():
        alt = tiny_model.encode(one_hot(apply_edits(codes, edits), torch.float64))
        ref = tiny_model.encode(one_hot(codes, torch.float64))
    torch.testing.assert_close(deltas.ref_bottleneck, ref)
    torch.testing.assert_close(deltas.delta_bottleneck, alt - ref[edits.window])


def test_encode_is_that_of_the_model(tiny_model: Scbasset, codes: torch.Tensor) -> None:
    with torch.inference_mode():
        expected = tiny_model.double().encode(one_hot(codes, torch.float64))
    encoded = Engine(tiny_model).encode(codes)
    torch.testing.assert_close(encoded, expected, rtol=0, atol=1e-12)
    assert (encoded - expected.roll(1, 0)).abs().max() > 0.1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_memory_changes_nothing_but_the_speed(
    tiny_model: Scbasset, codes: torch.Tensor, edits: Edits, precision: str
) -> None:
    plenty = Engine(tiny_model, precision)(codes, edits)
    little = Engine(tiny_model, precision, memory=1)(codes, edits)
    torch.testing.assert_close(little.ref_bottleneck, plenty.ref_bottleneck)
    # Equal to rounding only, since frames of fewer edits may be narrower.
    torch.testing.assert_close(little.delta_bottleneck, plenty.delta_bottleneck, rtol=0, atol=1e-5)


def test_the_model_stays_as_it_was(tiny_model: Scbasset, codes: torch.Tensor, edits: Edits) -> None:
    before = {name: x.clone() for name, x in tiny_model.state_dict().items()}
    tiny_model.train()
    engine = Engine(tiny_model)
    first = engine(codes, edits)
    naive_delta(tiny_model, codes, edits)
    assert tiny_model.training
    assert all(torch.equal(before[name], x) for name, x in tiny_model.state_dict().items())
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.zero_()
    assert torch.equal(engine(codes, edits).delta_bottleneck, first.delta_bottleneck)


def test_chosen_float32_precision_comes_back() -> None:
    backends = (torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)
    chosen = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "tf32"
        with true_float32():
            assert [backend.fp32_precision for backend in backends] == ["ieee", "ieee"]
        assert [backend.fp32_precision for backend in backends] == ["tf32", "tf32"]
    finally:
        for backend, precision in zip(backends, chosen, strict=True):
            backend.fp32_precision = precision


def test_the_callers_choice_does_not_touch_the_deltas(
    tiny_model: Scbasset, codes: torch.Tensor, edits: Edits
) -> None:
    expected = Engine(tiny_model)(codes, edits).delta_bottleneck
    chosen = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(Engine(tiny_model)(codes, edits).delta_bottleneck, expected)
    finally:
        torch.set_float32_matmul_precision(chosen)


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", None])
@pytest.mark.parametrize("work", ["score", "ism"])
def test_auto_precision_on_a_cpu(
    capability: str | None, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    can = {} if capability is None else {capability: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: can)
    expected = "bfloat16" if capability and work == "ism" else "float32"
    assert resolve_precision("auto", torch.device("cpu"), work) == expected


@pytest.mark.parametrize(("major", "expected"), [(7, "float32"), (8, "bfloat16")])
def test_auto_precision_on_a_gpu(
    major: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (major, 0))
    assert resolve_precision("auto", torch.device("cuda"), "ism") == expected
    assert resolve_precision("auto", torch.device("mps"), "ism") == "float32"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("work", ["score", "ism"])
def test_a_named_precision_stays(precision: str, work: str) -> None:
    assert resolve_precision(precision, torch.device("cpu"), work) == precision


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_self_check_passes_what_the_engine_gives(
    tiny_model: Scbasset, codes: torch.Tensor, precision: str
) -> None:
    edits = all_substitutions(codes)
    deltas = Engine(tiny_model, precision).saturate(codes).of(edits)
    check = self_check(tiny_model, codes, edits, deltas)
    check.require(precision)
    assert check.edits == 64
    assert check.numbers == 64 * TINY_CONFIG.bottleneck
    assert 0 < check.rms_error <= check.max_error
    assert check.relative_rms < (1e-4 if precision == "float32" else 0.02)


def test_self_check_sees_one_wrong_edit(tiny_model: Scbasset, codes: torch.Tensor) -> None:
    edits = all_substitutions(codes[:1])
    some = Edits(edits.window[2000:2064], edits.offset[2000:2064], edits.bases[2000:2064])
    deltas = Engine(tiny_model)(codes[:1], some)
    largest = deltas.delta_bottleneck.abs().sum(1).argmax()
    for wrong in (torch.zeros(3), torch.full((3,), torch.nan)):
        broken = deltas.delta_bottleneck.clone()
        broken[largest] = wrong
        check = self_check(tiny_model, codes[:1], some, Deltas(deltas.ref_bottleneck, broken))
        with pytest.raises(SelfCheckError, match="of 64 edits"):
            check.require("bfloat16")


def test_self_check_takes_another_sample_with_another_seed(
    tiny_model: Scbasset, codes: torch.Tensor
) -> None:
    edits = all_substitutions(codes)
    deltas = Engine(tiny_model).saturate(codes).of(edits)
    first, again, other = (
        self_check(tiny_model, codes, edits, deltas, sample=5, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_self_checks_add_up() -> None:
    total = SelfCheck(2, 0.5, 1.0, 4.0, 9.0, 8) + SelfCheck(1, 0.25, 3.0, 12.0, 1.0, 8)
    assert total == SelfCheck(3, 0.5, 4.0, 16.0, 10.0, 16)
    assert (total.rms_error, total.relative_rms) == (0.5, 0.5)
    SelfCheck().require("float32")


def test_memory_bounds_the_batches() -> None:
    """Twice the memory, twice the batch, until the caches say otherwise."""
    config = Config(n_cells=5)
    engine = Engine(Scbasset(config), memory=2**26)
    windows = torch.empty(64, 1)
    half, whole = (len(engine._split(windows)[0][0]) for engine.memory in (2**25, 2**26))
    assert 2 * half <= whole <= 2 * half + 1
    assert engine._batch_edits(50) < engine._batch_edits(1) <= 384
