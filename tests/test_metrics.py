"""AUROC and AUPRC against their definitions, counted pair by pair."""

import numpy as np
import pytest
from scipy import sparse

from scbasset_ism import metrics
from scbasset_ism.metrics import correlation, mean, rank_columns


def pairs_auroc(truth: np.ndarray, values: np.ndarray) -> float:
    """Share of (open, closed) pairs in the right order; ties count half."""
    above = values[truth][:, None] - values[~truth]
    return float(np.mean((above > 0) + 0.5 * (above == 0)))


def steps_auprc(truth: np.ndarray, values: np.ndarray) -> float:
    """Precision at every threshold, weighted by the recall that it adds."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(values), reverse=True):
        chosen = values >= threshold
        now = truth[chosen].sum() / truth.sum()
        total, recall = total + (now - recall) * truth[chosen].mean(), now
    return total


@pytest.mark.parametrize("block", [3, 256])
def test_every_column_is_ranked(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", block)
    rng = np.random.default_rng(0)
    truth = rng.random((40, 7)) < 0.3
    values = rng.normal(size=(40, 7)).round(1)  # with ties
    truth[:, 2], truth[:, 5] = False, True
    found = rank_columns(sparse.csr_array(truth), lambda columns: values[:, columns])
    ranked = [0, 1, 3, 4, 6]
    assert found.n == 5
    assert np.isnan(found.auroc[[2, 5]]).all()
    assert np.isnan(found.auprc[[2, 5]]).all()
    for i in ranked:
        assert found.auroc[i] == pytest.approx(pairs_auroc(truth[:, i], values[:, i]), abs=1e-12)
        assert found.auprc[i] == pytest.approx(steps_auprc(truth[:, i], values[:, i]), abs=1e-12)
        assert found.chance[i] == truth[:, i].mean()
    assert pairs_auroc(truth[:, 0], -values[:, 0]) != pytest.approx(found.auroc[0])


def test_means_leave_out_what_is_not_defined() -> None:
    assert mean(np.array([0.5, np.nan, 0.7])) == pytest.approx(0.6)
    assert np.isnan(mean(np.array([np.nan])))


def test_correlation() -> None:
    assert correlation(np.arange(4), 3 - 2 * np.arange(4)) == pytest.approx(-1)
    assert np.isnan(correlation(np.ones(4), np.arange(4)))
    assert np.isnan(correlation(np.ones(0), np.ones(0)))
