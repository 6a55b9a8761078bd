"""The engine equals its definition: every position, width and edge, and it would be noticed."""

import pytest
import torch
from conftest import TINY_CONFIG
from torch import Tensor

import scbasset_ism.delta as delta_module
from scbasset_ism.delta import Deltas, Edits, Engine, all_substitutions, naive_delta
from scbasset_ism.model import Config, Scbasset, one_hot, random_model

# No two sizes are equal, kernels and pools are not those of the publication, and the last layers
# are shorter than what an edit reaches.
ODD_CONFIG = Config(
    n_cells=5,
    window=96,
    stem_channels=6,
    stem_kernel=7,
    stem_pool=2,
    tower_channels=(7, 9),
    tower_kernel=3,
    tower_pool=4,
    pointwise_channels=4,
    bottleneck=3,
)
SHORT_CONFIG = Config(
    n_cells=5,
    window=384,
    stem_channels=6,
    tower_channels=(7, 8, 9, 10, 11, 12),
    pointwise_channels=4,
    bottleneck=3,
)
CONFIGS = [pytest.param(ODD_CONFIG, id="odd"), pytest.param(SHORT_CONFIG, id="short")]


def random_codes(config: Config, windows: int, highest: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (windows, config.window)
    return torch.randint(0, highest + 1, shape, generator=generator, dtype=torch.uint8)


def random_edits(codes: Tensor, window: Tensor, offset: Tensor, width: int, seed: int = 0) -> Edits:
    """Patches of A C G T N at the given places, each different from the reference."""
    generator = torch.Generator().manual_seed(seed)
    bases = torch.randint(0, 5, (len(window), width), generator=generator, dtype=torch.uint8)
    bases[:, 0] = (codes[window, offset] + 1 + bases[:, 0] % 4) % 5
    return Edits(window, offset, bases)


def every_offset(codes: Tensor, width: int, seed: int = 0) -> Edits:
    windows, length = codes.shape
    window, offset = torch.cartesian_prod(
        torch.arange(windows), torch.arange(length - width + 1)
    ).unbind(1)
    return random_edits(codes, window, offset, width, seed)


def one_aside(codes: Tensor, edits: Edits) -> Edits:
    """The negative control: every edit one base further on, or back at the right edge."""
    last = codes.shape[1] - edits.width
    offset = torch.where(edits.offset < last, edits.offset + 1, edits.offset - 1)
    return Edits(edits.window, offset, edits.bases)


def error(deltas: Deltas, expected: Deltas) -> float:
    return max(
        (deltas.delta_bottleneck - expected.delta_bottleneck).abs().max().item(),
        (deltas.ref_bottleneck - expected.ref_bottleneck).abs().max().item(),
    )


def assert_exact(model: Scbasset, codes: Tensor, edits: Edits, tolerance: float = 1e-12) -> None:
    """The engine equals the definition, every edit matters, and a base aside would be seen."""
    engine, expected = Engine(model), naive_delta(model, codes, edits)
    signal = expected.delta_bottleneck.abs()
    assert signal.max() > 0.1
    assert error(engine(codes, edits), expected) < tolerance
    aside = engine(codes, one_aside(codes, edits)).delta_bottleneck
    # Not only the worst edit shows it: nearly each does (a pool may hide one).
    assert ((aside - expected.delta_bottleneck).abs().amax(1) > tolerance).float().mean() > 0.9


def test_saturation_of_the_published_window() -> None:
    model = random_model(TINY_CONFIG).double()
    codes = random_codes(TINY_CONFIG, 1, highest=3)
    codes[0, [0, 5, 6, 7, 600, 700, 1343]] = 4
    edits = all_substitutions(codes)
    assert len(edits) == 1344 * 3 + 7
    expected = naive_delta(model, codes, edits)
    saturation = Engine(model).saturate(codes)
    assert error(saturation.of(edits), expected) < 1e-12
    aside = saturation.delta_bottleneck.roll(1, dims=1)
    assert (aside - saturation.delta_bottleneck).abs().amax((0, 2, 3)).min() > 1e-9
    one_base_aside = type(saturation)(saturation.ref_bottleneck, aside)
    assert error(one_base_aside.of(edits), expected) > 0.1


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("width", [1, 2, 3, 5, 16, 50])
def test_every_offset(config: Config, width: int) -> None:
    codes = random_codes(config, 2)
    assert_exact(random_model(config).double(), codes, every_offset(codes, width))


@pytest.mark.parametrize("config", CONFIGS)
def test_every_width_to_50_near_both_edges(config: Config) -> None:
    model, codes = random_model(config).double(), random_codes(config, 1)
    for width in range(1, 51):
        last = config.window - width
        near = torch.cat([torch.arange(20), torch.arange(last - 19, last + 1)])
        edits = random_edits(codes, torch.zeros_like(near), near, width, seed=width)
        assert_exact(model, codes, edits)


@pytest.mark.parametrize("width", [1, 7, 50])
def test_published_window_at_both_edges_and_in_the_middle(width: int) -> None:
    codes = random_codes(TINY_CONFIG, 3)
    starts = torch.tensor([0, 640, TINY_CONFIG.window - width - 63])
    offset = (starts[:, None] + torch.arange(64)).flatten()
    edits = random_edits(codes, torch.arange(3).repeat(64), offset, width)
    assert_exact(random_model(TINY_CONFIG).double(), codes, edits)


def test_a_window_of_n() -> None:
    codes = torch.full((1, ODD_CONFIG.window), 4, dtype=torch.uint8)
    assert_exact(random_model(ODD_CONFIG).double(), codes, every_offset(codes, 1))


def test_an_edit_that_changes_nothing() -> None:
    codes = random_codes(ODD_CONFIG, 2)
    edits = Edits(torch.tensor([0, 1]), torch.tensor([3, 40]), codes[[0, 1], [3, 40]][:, None])
    assert not Engine(random_model(ODD_CONFIG))(codes, edits).delta_bottleneck.any()


def test_reference_base_of_a_saturation_is_0() -> None:
    codes = random_codes(ODD_CONFIG, 2, highest=3)
    delta = Engine(random_model(ODD_CONFIG)).saturate(codes).delta_bottleneck
    is_ref = torch.nn.functional.one_hot(codes.long(), 4).bool()
    assert not delta[is_ref].any()
    assert delta[~is_ref].any(-1).float().mean() > 0.9


@pytest.mark.parametrize("n_windows", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("n_edits", [0, 1, 15, 16, 17, 40])
def test_sizes_around_those_of_a_batch(
    n_windows: int, n_edits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_module, "CPU_WINDOWS", 4)
    monkeypatch.setattr(delta_module, "CPU_EDITS", 16)
    model, codes = random_model(ODD_CONFIG).double(), random_codes(ODD_CONFIG, n_windows)
    generator = torch.Generator().manual_seed(n_edits)
    window = torch.randint(0, n_windows, (n_edits,), generator=generator)
    offset = torch.randint(0, ODD_CONFIG.window - 2, (n_edits,), generator=generator)
    edits = random_edits(codes, window, offset, 3)
    deltas = Engine(model)(codes, edits)
    assert deltas.delta_bottleneck.shape == (n_edits, 3)
    torch.testing.assert_close(deltas.ref_bottleneck, model.encode(one_hot(codes, torch.float64)))
    if n_edits:
        assert error(deltas, naive_delta(model, codes, edits)) < 1e-12


def test_nothing_at_all() -> None:
    engine, codes = Engine(random_model(ODD_CONFIG)), random_codes(ODD_CONFIG, 0)
    none = torch.empty(0, dtype=torch.int64)
    deltas = engine(codes, Edits(none, none, torch.empty(0, 1, dtype=torch.uint8)))
    assert deltas.ref_bottleneck.shape == deltas.delta_bottleneck.shape == (0, 3)
    assert engine.encode(codes).shape == (0, 3)
    assert engine.saturate(codes).delta_bottleneck.shape == (0, 96, 4, 3)


def test_float32() -> None:
    model, codes = random_model(TINY_CONFIG), random_codes(TINY_CONFIG, 2)
    edits = every_offset(codes, 2)
    deltas = Engine(model)(codes, edits)
    exact = naive_delta(model.double(), codes, edits)
    assert error(deltas, exact) < 1e-5
    assert deltas.delta_bottleneck.dtype == torch.float32


def test_bfloat16_of_the_published_sizes() -> None:
    model, codes = random_model(), random_codes(Config(), 2)
    offset = torch.tensor([0, 3, 97, 500, 672, 901, 1290, 1342])
    edits = random_edits(codes, torch.arange(2).repeat(4), offset, 2)
    deltas = {p: Engine(model, p)(codes, edits) for p in ("float32", "bfloat16")}
    exact = naive_delta(model.double(), codes, edits).delta_bottleneck
    rms = exact.square().mean().sqrt()
    assert rms > 0.05
    for precision, allowed in (("float32", 1e-4), ("bfloat16", 1.2e-2)):
        difference = deltas[precision].delta_bottleneck - exact
        assert difference.square().mean().sqrt() < allowed * rms


@pytest.mark.slow
def test_bfloat16_of_a_whole_saturation() -> None:
    model, codes = random_model(), random_codes(Config(), 1, highest=3)
    edits = all_substitutions(codes)
    sample = torch.randperm(len(edits), generator=torch.Generator().manual_seed(0))[:256]
    edits = Edits(edits.window[sample], edits.offset[sample], edits.bases[sample])
    delta = Engine(model, "bfloat16").saturate(codes).of(edits).delta_bottleneck.double()
    exact = naive_delta(model.double(), codes, edits).delta_bottleneck
    assert (delta - exact).square().mean() < 0.01**2 * exact.square().mean()
    assert torch.corrcoef(torch.stack([delta.flatten(), exact.flatten()]))[0, 1] > 0.9999


@pytest.mark.slow
def test_published_sizes_in_float64() -> None:
    codes = random_codes(Config(), 1)
    offset = torch.tensor([0, 1, 2, 7, 8, 9, 255, 671, 672, 673, 1000, 1330, 1339])
    edits = random_edits(codes, torch.zeros_like(offset), offset, 5)
    assert_exact(random_model().double(), codes, edits)
