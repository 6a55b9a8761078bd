"""Matching, draws and what is read off them, against plain loops."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scbasset_ism import controls as module
from scbasset_ism.controls import (
    compare,
    draw,
    drawn_scores,
    false_discovery_rate,
    nearest_controls,
)

RNG = np.random.default_rng(2)


def test_nearest_controls_by_hand() -> None:
    pool = pd.DataFrame({"size": [1.0, 2, 3, 400, 500], "gc": [0.1, 0.9, 0.5, 0.5, 0.5]})
    credible = pd.DataFrame({"size": [9000.0, 0], "gc": [0.5, 0.1]})
    # ranks of size: .1 .3 .5 .7 .9; of gc: .1 .9 .5 .5 .5; credible: (1, .5) and (0, .1)
    assert nearest_controls(credible, pool, 3).tolist() == [[4, 3, 2], [0, 2, 3]]
    assert nearest_controls(credible, pool, 99).shape == (2, 5)


@pytest.mark.parametrize("n_features", [1, 2, 3])
@pytest.mark.parametrize("n_controls", [1, 2, 60, 500])
@pytest.mark.parametrize("n", [1, 7, 50])
def test_nearest_controls(n_features: int, n_controls: int, n: int) -> None:
    names = ["size", "gc", "maf"][:n_features]
    pool = pd.DataFrame(RNG.normal(size=(n_controls, n_features)).round(1), columns=names)  # ties
    credible = pd.DataFrame(RNG.normal(size=(9, n_features)) * 2, columns=names)
    credible.iloc[0] = pool.iloc[0]

    def rank(values: pd.Series, feature: str) -> np.ndarray:
        known = pool[feature].to_numpy()[:, None]
        own = values.to_numpy()
        return ((known < own).mean(0) + (known <= own).mean(0)) / 2

    distance = sum((rank(credible[f], f)[:, None] - rank(pool[f], f)) ** 2 for f in names)
    want = np.sort(distance, axis=1)[:, :n]  # of ties by rounding either may come first
    found = nearest_controls(credible, pool, n)
    assert found.shape == (9, min(n, n_controls))
    assert all(len(set(row)) == len(row) for row in found)
    np.testing.assert_allclose(np.take_along_axis(distance, found, axis=1), want, atol=1e-12)


def test_draws_are_of_the_nearest() -> None:
    nearest = np.array([[1, 2], [5, 7], [0, 3]])
    drawn = draw(nearest, 200, np.random.default_rng(0))
    assert drawn.shape == (200, 3)
    for credible, own in enumerate(nearest):
        values, counts = np.unique(drawn[:, credible], return_counts=True)
        assert values.tolist() == sorted(own)
        assert (counts > 60).all()
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.2  # each for itself


@pytest.mark.parametrize("block", [1, 3, 20, 4096])
@pytest.mark.parametrize("n_draws", [1, 3, 7])
def test_drawn_scores(monkeypatch: pytest.MonkeyPatch, block: int, n_draws: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    values = RNG.normal(size=(20, 4)).astype(np.float32)
    drawn = RNG.integers(20, size=(n_draws, 6))
    drawn[0] = 3  # the same control for all
    weight = RNG.normal(size=6)
    want = [sum(weight[v] * values[u].astype(float) for v, u in enumerate(row)) for row in drawn]
    np.testing.assert_allclose(drawn_scores(drawn, weight, values.__getitem__), want, atol=1e-12)


@pytest.mark.parametrize("two_sided", [True, False])
def test_compare(*, two_sided: bool) -> None:
    draws, observed = RNG.normal(2, 3, size=(99, 5)), RNG.normal(2, 3, size=5)
    found = compare(observed, draws, two_sided=two_sided)
    pooled = []
    for unit in range(5):
        mean, sd = draws[:, unit].mean(), draws[:, unit].std(ddof=1)
        z, own = (observed[unit] - mean) / sd, (draws[:, unit] - mean) / sd
        assert found.z[unit] == pytest.approx(z)
        far = sum(abs(x) >= abs(z) if two_sided else x >= z for x in own)
        assert found.p[unit] == pytest.approx((1 + far) / 100)
        pooled += list(np.abs(own) if two_sided else own)
    far = [sum(x >= (abs(z) if two_sided else z) for x in pooled) for z in found.z]
    np.testing.assert_allclose(found.pooled_p, (1 + np.array(far)) / (1 + len(pooled)))


def test_compare_what_never_varies() -> None:
    found = compare(np.array([1.0, 5]), np.array([[1.0, 1], [1, 2]]), two_sided=True)
    assert np.isnan([found.z[0], found.p[0], found.pooled_p[0]]).all()
    assert found.p[1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_false_discovery_rate(n: int) -> None:
    p = np.round(RNG.random(n) ** 3, 2)  # with ties
    want = stats.false_discovery_control(p) if n else p
    np.testing.assert_allclose(false_discovery_rate(p), want)
    holed = np.insert(p, [0, n], np.nan)
    np.testing.assert_allclose(false_discovery_rate(holed), np.insert(want, [0, n], np.nan))
