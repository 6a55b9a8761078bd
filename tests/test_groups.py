"""What groups and axes say, against the plain statistics of every cell."""

import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from fake_scores import write_scores

from scbasset_ism import groups as module
from scbasset_ism import store
from scbasset_ism.errors import GroupError, ScbassetError
from scbasset_ism.frames import Floats
from scbasset_ism.groups import (
    Groups,
    GroupScorer,
    SlopeScorer,
    choose_labels,
    specificity,
    tabulate_groups,
    tabulate_slopes,
    with_obs,
)
from scbasset_ism.reader import Scores

N_VARIANTS, N_CELLS, BOTTLENECK = 11, 40, 6
RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(size=(N_CELLS, BOTTLENECK)).astype(np.float32) + 0.5
DELTA = RNG.normal(size=(N_VARIANTS, BOTTLENECK)).astype(np.float32)
LABELS = pd.Series(
    [*("alone",), *("B",) * 3, *("T",) * 20, *("",) * 4, *(None,) * 2, *("NK",) * 10], name="type"
)
AXIS = pd.Series(np.where(np.arange(N_CELLS) % 7 == 3, np.nan, RNG.normal(size=N_CELLS)), name="t")


def plain_groups(delta: Floats, labels: pd.Series) -> dict[str, pd.DataFrame]:
    """The definition: every cell's delta logit, and pandas."""
    logits = pd.DataFrame(delta.astype(np.float64) @ WEIGHT.T.astype(np.float64))  # (rows, cells)
    named = labels.where(labels != "").to_numpy()
    by = logits.T.groupby(named)
    mean = by.mean().T
    signs = pd.DataFrame(
        {
            name: (np.sign(mean[name]) == np.sign(logits.loc[:, named == name]).T).mean()
            for name in mean
        }
    )
    return {"mean": mean, "sd": by.std(ddof=0).T, "sign_share": signs}


def plain_slope(y: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """The definition: least squares on every cell, and its covariance."""
    design = np.stack([np.ones_like(x), x], axis=1)
    fitted, residuals, *_ = np.linalg.lstsq(design, y, rcond=None)
    variance = residuals[0] / (len(x) - 2) * np.linalg.inv(design.T @ design)
    return fitted[1], np.sqrt(variance[1, 1])


@pytest.mark.parametrize("n_variants", [0, 1, 4, 5, N_VARIANTS])
@pytest.mark.parametrize("block", [1, 4 * N_CELLS, 1 << 20])
def test_statistics_are_those_of_the_cells(
    monkeypatch: pytest.MonkeyPatch, n_variants: int, block: int
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    found = GroupScorer(Groups.of(LABELS), WEIGHT)(DELTA[:n_variants])
    want = plain_groups(DELTA, LABELS)
    assert found.groups.names.tolist() == ["B", "NK", "T", "alone"] == list(want["mean"])
    assert found.groups.sizes.tolist() == [3, 10, 20, 1]
    for name, values in want.items():
        np.testing.assert_allclose(getattr(found, name), values[:n_variants], atol=1e-5)
    assert want["sd"]["T"].min() > 0.1  # there is something to compare
    assert (found.sd[:, 3] < 1e-6).all()


def test_statistics_of_other_cells_differ() -> None:
    """The control: the comparison above sees a single cell in the wrong group."""
    moved = LABELS.copy()
    moved.iloc[3] = "T"
    found = GroupScorer(Groups.of(moved), WEIGHT)(DELTA)
    for name, values in plain_groups(DELTA, LABELS).items():
        assert not np.allclose(getattr(found, name), values, atol=1e-5), name


def test_variants_without_score_and_without_effect() -> None:
    delta = np.stack([np.full(BOTTLENECK, np.nan), np.zeros(BOTTLENECK)]).astype(np.float32)
    found = GroupScorer(Groups.of(LABELS), WEIGHT)(delta)
    for values in (found.mean, found.sd, found.sign_share, found.tau[:, None]):
        assert np.isnan(values[0]).all()
    assert (found.mean[1] == 0).all()
    assert (found.sd[1] == 0).all()
    assert np.isnan(found.sign_share[1]).all()
    assert np.isnan(found.tau[1])


@pytest.mark.parametrize(
    ("mean", "tau"),
    [
        pytest.param([1, 1, 1], 0, id="everywhere"),
        pytest.param([0, -2, 0], 1, id="one-group"),
        pytest.param([2, -2, 0], 0.5, id="opposite-effects-are-two"),
        pytest.param([0, 8, 0, 0, 0, 2, 0, 2, 0, 0, 0, 0], 0.95, id="table-of-the-publication"),
        pytest.param([3], np.nan, id="a-single-group"),
        pytest.param([0, 0], np.nan, id="nothing"),
    ],
)
def test_tau(mean: list[float], tau: float) -> None:
    found = specificity(np.array([mean], np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [tau], atol=0.005)


def test_slopes_are_those_of_the_cells() -> None:
    found = SlopeScorer(AXIS, WEIGHT)(DELTA)
    placed = AXIS.notna().to_numpy()
    logits = DELTA.astype(np.float64) @ WEIGHT[placed].T
    want = np.array([plain_slope(row, AXIS[placed].to_numpy()) for row in logits])
    np.testing.assert_allclose(found.slope, want[:, 0], atol=1e-5)
    np.testing.assert_allclose(found.slope_se, want[:, 1], atol=1e-5)
    assert found.n_cells == placed.sum() < N_CELLS
    shifted = SlopeScorer(AXIS.shift(1), WEIGHT)(DELTA)  # the control
    assert not np.allclose(shifted.slope, want[:, 0], atol=1e-2)


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        pytest.param(LABELS, "holds no numbers", id="text"),
        pytest.param(pd.Series([True, False] * 20, name="b"), "holds no numbers", id="bool"),
        pytest.param(pd.Series([1.0] * N_CELLS, name="c"), "40 cells at 1 places", id="constant"),
        pytest.param(pd.Series([1.0, 2.0], name="c"), "2 cells at 2 places", id="two-cells"),
    ],
)
def test_what_is_no_axis(axis: pd.Series, words: str) -> None:
    with pytest.raises(GroupError, match=words):
        SlopeScorer(axis, WEIGHT)


def test_no_group() -> None:
    with pytest.raises(GroupError, match="no cell belongs to a group"):
        Groups.of(pd.Series(["", None, np.nan]))


def test_labels_become_text() -> None:
    groups = Groups.of(pd.Series(pd.Categorical([2, 10, 2, None], categories=[2, 10, 99])))
    assert groups.names.tolist() == ["10", "2"]  # and none of the unused one
    assert groups.codes.tolist() == [1, 0, 1, -1]
    clusters = Groups.of(pd.Series([1, 1.5, None, True]))
    assert clusters.names.tolist() == ["1", "1.5", "True"]


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scores:
    """Eleven variants in shards of four; the third has no score."""
    monkeypatch.setattr(store, "SHARD_ROWS", {"dense": 4, "factored": 4})
    delta = DELTA.copy()
    delta[2] = np.nan
    names = pd.Index([f"c{i}" for i in range(N_CELLS)], dtype=object, name="cell_id")
    cells = pd.DataFrame({"type": LABELS.to_numpy(), "t": AXIS.to_numpy()}, index=names)
    return write_scores(tmp_path / "s.zarr", delta, WEIGHT, cells=cells)


@pytest.mark.parametrize("top", [None, 1, 2, 99])
@pytest.mark.parametrize("block", [1, 8, 1 << 20])
def test_the_table_of_groups(
    scores: Scores, monkeypatch: pytest.MonkeyPatch, block: int, top: int | None
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    groups = Groups.of(choose_labels(scores, "type"))
    table = pd.concat(tabulate_groups(scores, groups, top=top))
    shown = min(top or 4, 4)
    rows = [row for row in range(N_VARIANTS) if row != 2]
    assert table["row"].tolist() == [row for row in rows for _ in range(shown)]
    assert table["variant_name"].tolist() == [f"20:{1000 + row}:A:C" for row in table["row"]]
    want = plain_groups(DELTA, LABELS)
    for row in rows:
        own = table[table["row"] == row].set_index("group")
        order = want["mean"].loc[row].abs().sort_values(ascending=False).index[:shown]
        assert own.index.tolist() == order.tolist()
        assert own["rank"].tolist() == list(range(1, shown + 1))
        for name, values in want.items():
            np.testing.assert_allclose(own[name], values.loc[row, order], atol=1e-5)
        size = want["mean"].loc[row].abs()
        assert own["tau"].iloc[0] == pytest.approx((1 - size / size.max()).sum() / 3, abs=1e-5)


def test_the_table_of_slopes(scores: Scores) -> None:
    table = pd.concat(tabulate_slopes(scores, choose_labels(scores, "t")))
    assert len(table) == N_VARIANTS - 1
    want = SlopeScorer(AXIS, WEIGHT)(np.delete(DELTA, 2, axis=0))
    np.testing.assert_allclose(table["slope"], want.slope, atol=1e-6)
    np.testing.assert_allclose(table["slope_se"], want.slope_se, atol=1e-6)


def test_a_store_without_scores(tmp_path: Path) -> None:
    empty = write_scores(tmp_path / "e.zarr", np.full((2, 3), np.nan), np.eye(4, 3))
    groups = Groups.of(pd.Series(list("aabb")))
    (table,) = tabulate_groups(empty, groups)
    assert table.empty
    assert "sign_share" in table


def test_queries(scores: Scores) -> None:
    assert choose_labels(scores, None, query="type == 'B'").dropna().unique() == ["type == 'B'"]
    both = choose_labels(scores, "type", query="t > 0 and cell_id != 'c5'")
    kept = (AXIS > 0).to_numpy() & (np.arange(N_CELLS) != 5)
    assert both.notna().tolist() == kept.tolist()
    with pytest.raises(GroupError, match="no column 'tissue'; they have 'type', 't'"):
        choose_labels(scores, "tissue")


TABLE = pd.DataFrame(
    {"cell type": ["B", "T", None], "depth": [1, 20, 3], "ok": [True, False, True]},
    index=pd.Index(["a", "b", "c"], name="cell_id"),
)


@pytest.mark.parametrize(("name", "zarr"), [("c.h5ad", 3), ("c.zarr", 3), ("c.zarr", 2)])
def test_columns_of_an_anndata(tmp_path: Path, name: str, zarr: int) -> None:
    obs = pd.DataFrame({"depth": [5.0, 6.0], "time": [0.5, 0.25]}, index=["c", "a"])
    data = anndata.AnnData(np.zeros((2, 1), np.float32), obs=obs)
    if name.endswith(".h5ad"):
        data.write_h5ad(tmp_path / name)
    else:
        with anndata.settings.override(zarr_write_format=zarr), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that format 2 will not be the default for long
            data.write_zarr(tmp_path / name)
    table, n_known = with_obs(TABLE, tmp_path / name)
    assert n_known == 2
    assert table.index.tolist() == ["a", "b", "c"]
    assert table["time"].fillna(-1).tolist() == [0.25, -1, 0.5]
    assert table["depth"].fillna(-1).tolist() == [6, -1, 5]  # the AnnData's
    assert table["ok"].tolist() == [True, False, True]


def test_an_anndata_of_no_use(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    path.write_text("text")
    with pytest.raises(ScbassetError, match="can't be read as an AnnData file"):
        with_obs(TABLE, path)
    anndata.AnnData(obs=pd.DataFrame(index=["x", "y"])).write_h5ad(path)
    with pytest.raises(GroupError, match=r"none of the cells of the store: .*'a' here.*'x' there"):
        with_obs(TABLE, path)
    with warnings.catch_warnings(action="ignore"):  # anndata says that names are not unique
        anndata.AnnData(obs=pd.DataFrame(index=["a", "a"])).write_h5ad(path)
        with pytest.raises(GroupError, match="'a' is the name of several cells"):
            with_obs(TABLE, path)
