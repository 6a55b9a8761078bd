"""Stores are AnnData on disk, hold what was written, and say what is wrong with them."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from numcodecs.bitround import BitRound

from scbasset_ism import reader
from scbasset_ism import store as store_module
from scbasset_ism.encoder import Encoder, Writer, bitround
from scbasset_ism.errors import StoreError
from scbasset_ism.finishing import try_to_finish
from scbasset_ism.frames import Floats
from scbasset_ism.places import Folder, place_of
from scbasset_ism.progress import Progress
from scbasset_ism.reader import Scores, describe_store, open_predictions, open_scores
from scbasset_ism.store import Cells, Plan, Schema, check_room

BOTTLENECK, N_CELLS = 3, 7
STATUSES = pd.CategoricalDtype(["SCORED", "SYMBOLIC"])
CELLS = Cells(
    pd.DataFrame(
        {
            "cell_type": pd.Categorical(["b", "a", "a", "c", "b", "b", "a"]),
            "donor": list("xyxyxyx"),
            "depth": np.arange(7),
            "tissue": ["gut", None, "gut", "lung", np.nan, "lung", "gut"],
            "is_doublet": [True, False] * 3 + [False],
        },
        index=pd.Index([f"AAAC-{i}" for i in range(N_CELLS)], name="cell_id"),
    ),
    np.random.default_rng(1).normal(size=(N_CELLS, BOTTLENECK)).astype(np.float32),
    np.random.default_rng(2).normal(size=N_CELLS).astype(np.float32),
)


def rows(n: int, first: int = 0) -> tuple[pd.DataFrame, dict[str, Floats]]:
    """Rows of a store; every fifth has no score."""
    numbers = np.arange(first, first + n)
    scored = numbers % 5 != 3
    obs = pd.DataFrame(
        {
            "variant_position": numbers + 1000,
            "variant_id": np.array([f"rs{i}" for i in numbers], dtype=object),
            "status": pd.Categorical(np.where(scored, "SCORED", "SYMBOLIC"), dtype=STATUSES),
            "n_fraction": numbers.astype(np.float32) / 100,
        },
        index=pd.Index([f"1:{i}:A:C" for i in numbers], dtype=object, name="variant_name"),
    )
    factors = {
        name: np.random.default_rng([seed, first]).normal(size=(n, BOTTLENECK)).astype(np.float32)
        for seed, name in enumerate(("delta_bottleneck", "ref_bottleneck"))
    }
    for values in factors.values():
        values[~scored] = np.nan
    return obs, factors


SCHEMA = Schema("score", rows(0)[0], ("delta_bottleneck", "ref_bottleneck"), has_intercept=False)


def encoder(plan: Plan, schema: Schema = SCHEMA) -> Encoder:
    return Encoder(schema, plan, cells=CELLS, uns={}, attributes={"version": "0"})


def begin(path: Path, files: Encoder, *, overwrite: bool = False) -> Progress:
    progress = Progress(place_of(path))
    progress.begin(files.manifest({"variants": "a"}), files.skeleton, overwrite=overwrite)
    return progress


def finish(progress: Progress) -> None:
    assert try_to_finish(progress, lambda _: None) == []


def write_scores(path: Path, n_rows: int, layout: str = "dense", batch: int = 4) -> Scores:
    files = encoder(Plan(n_rows, N_CELLS, BOTTLENECK, layout))
    progress = begin(path, files)
    writer = Writer(files, progress, range(files.plan.n_shards))
    for shard in range(files.plan.n_shards):
        inside = files.plan.rows(shard)
        for first in range(inside.start, inside.stop, batch):
            writer.append(*rows(min(batch, inside.stop - first), first))
    writer.close()
    finish(progress)
    return open_scores(path)


def expected(n_rows: int, batch: int = 4) -> Floats:
    batches = [rows(min(batch, n_rows - i), i)[1] for i in range(0, n_rows, batch)]
    delta = np.concatenate(
        [np.empty((0, 3), np.float32)] + [b["delta_bottleneck"] for b in batches]
    )
    return delta @ CELLS.weight.T


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SHARD_ROWS", {"dense": 8, "factored": 8})
    monkeypatch.setattr(store_module, "CHUNK_ROWS", 4)
    monkeypatch.setattr(store_module, "CELL_BLOCK", 2)


@pytest.mark.parametrize("block", [1, 5 * N_CELLS, 1 << 24])
@pytest.mark.parametrize("n_rows", [0, 1, 4, 27])
@pytest.mark.parametrize(("n_variants", "n_cells"), [(1, 1), (4, 3), (100, 100)])
def test_strongest(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    n_rows: int,
    n_variants: int,
    n_cells: int,
) -> None:
    monkeypatch.setattr(reader, "_BLOCK", block)
    scores = write_scores(tmp_path / "s.zarr", n_rows)
    found = scores.strongest(n_variants, n_cells)
    long = pd.DataFrame(expected(n_rows)).stack().dropna()  # by (row, cell)
    rows = long.abs().groupby(level=0).max().sort_values(ascending=False).index[:n_variants]
    want = [
        (row, f"AAAC-{cell}", delta)
        for row in rows
        for cell, delta in long[row].sort_values(key=abs, ascending=False)[:n_cells].items()
    ]
    assert found["row"].tolist() == [row for row, _, _ in want]
    assert found["cell_id"].tolist() == [cell for _, cell, _ in want]
    np.testing.assert_allclose(found["delta_logit"], [delta for _, _, delta in want], atol=2e-5)
    assert found.index.tolist() == [f"1:{row}:A:C" for row, _, _ in want]
    assert 3 not in found["row"].tolist()  # it has no score


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("layout", ["dense", "factored"])
@pytest.mark.parametrize("n_rows", [0, 1, 7, 8, 9, 27])
def test_reader_gives_what_was_written(tmp_path: Path, layout: str, n_rows: int) -> None:
    scores = write_scores(tmp_path / "s.zarr", n_rows, layout)
    want = expected(n_rows)
    np.testing.assert_allclose(scores.delta_logit[:, :], want, atol=2e-5)
    assert len(scores) == n_rows
    table = scores.variants()
    assert table["status"].tolist() == [
        "SYMBOLIC" if i % 5 == 3 else "SCORED" for i in range(n_rows)
    ]
    assert table.index.tolist() == [f"1:{i}:A:C" for i in range(n_rows)]
    assert np.isnan(scores.delta_logit[:, :]).all(axis=1).tolist() == [
        i % 5 == 3 for i in range(n_rows)
    ]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("layout", ["dense", "factored"])
@pytest.mark.parametrize("n_rows", [0, 1, 27])
def test_other_tools_open_it(tmp_path: Path, layout: str, n_rows: int) -> None:
    path = tmp_path / "s.zarr"
    write_scores(path, n_rows, layout)
    eager = anndata.read_zarr(path)
    lazy = anndata.experimental.read_lazy(path)
    tree = xarray.open_datatree(path, engine="zarr")
    assert eager.shape == lazy.shape == (n_rows, N_CELLS)
    assert eager.obs["status"].tolist() == open_scores(path).variants()["status"].tolist()
    assert eager.var["tissue"].tolist() == ["gut", "", "gut", "lung", "", "lung", "gut"]
    assert eager.var["cell_type"].tolist() == CELLS.table["cell_type"].tolist()
    np.testing.assert_array_equal(eager.var["intercept"], CELLS.intercept)
    np.testing.assert_array_equal(eager.varm["cell_weight"], CELLS.weight)
    assert tree["obsm"]["delta_bottleneck"].dims == ("variants", "bottleneck")
    if layout == "factored":
        assert eager.X is None
        return
    np.testing.assert_allclose(eager.X, expected(n_rows), atol=2e-5)
    np.testing.assert_array_equal(np.asarray(lazy.X), eager.X)
    np.testing.assert_array_equal(tree["X"].values, eager.X)
    assert tree["X"].dims == ("variants", "cells")


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("layout", ["dense", "factored"])
def test_selections(tmp_path: Path, layout: str) -> None:
    scores, want = write_scores(tmp_path / "s.zarr", 12, layout), expected(12)
    keep = np.arange(12) % 2 == 0
    selections = [
        (scores.delta_logit[4], want[4]),
        (scores.delta_logit[-1], want[-1]),
        (scores.delta_logit[[7, 2], 1:3], want[[7, 2], 1:3]),
        (scores.delta_logit[keep, [6, 0]], want[keep][:, [6, 0]]),
        (scores.delta_logit[2:5, 3], want[2:5, 3]),
        (scores.delta_logit[3:-2], want[3:-2]),
        (scores.delta_logit[9:2], want[9:2]),
        (scores.delta_logit[1::4], want[1::4]),
        (scores.delta_logit[:], want),
        (scores.cell("AAAC-4"), want[:, 4]),
        (scores.cell(4), want[:, 4]),
        (scores.variant("1:9:A:C"), want[9]),
        (scores.variant(9), want[9]),
    ]
    for i, (found, wanted) in enumerate(selections):
        np.testing.assert_allclose(found, wanted, atol=2e-5, err_msg=f"selection {i}")
    assert scores.cell(4).index.tolist() == scores.variants().index.tolist()
    assert scores.variant(9).index.tolist() == CELLS.table.index.tolist()


@pytest.mark.parametrize(
    "rows",
    [None, slice(2, 11), slice(8, 8), slice(1, 12, 4), [7, 1], 4],
    ids=["all", "slice", "nothing", "steps", "list", "one"],
)
@pytest.mark.usefixtures("small_shards")
def test_group_mean_is_the_mean_over_the_group(tmp_path: Path, rows: object) -> None:
    scores, want = write_scores(tmp_path / "s.zarr", 12, "factored"), expected(12)
    labels = CELLS.table["cell_type"].to_numpy()
    selected = want[np.atleast_1d(np.arange(12)[slice(None) if rows is None else rows])]
    means = scores.group_mean("cell_type", rows=rows)
    numbers = np.atleast_1d(np.arange(12)[slice(None) if rows is None else rows])
    assert means.index.tolist() == [f"1:{i}:A:C" for i in numbers]
    assert means.columns.tolist() == ["a", "b", "c"]
    for group in "abc":
        np.testing.assert_allclose(means[group], selected[:, labels == group].mean(1), atol=2e-5)
    tissue = scores.group_mean("tissue", rows=rows)
    assert tissue.columns.tolist() == ["gut", "lung"]
    np.testing.assert_allclose(tissue["lung"], selected[:, [3, 5]].mean(1), atol=2e-5)
    given = scores.group_mean(["u", None, None, "u", None, "v", None], rows=rows)
    assert given.columns.tolist() == ["u", "v"]
    np.testing.assert_allclose(given["u"], selected[:, [0, 3]].mean(1), atol=2e-5)


def test_predictions_add_the_intercept(tmp_path: Path) -> None:
    obs = pd.DataFrame(index=pd.Index(["r0", "r1"], dtype=object, name="region_name"))
    h = np.random.default_rng(3).normal(size=(2, BOTTLENECK)).astype(np.float32)
    schema = Schema("predict", obs.iloc[:0], ("bottleneck",), has_intercept=True)
    plan = Plan(2, N_CELLS, BOTTLENECK, "dense")
    files = encoder(plan, schema)
    progress = begin(tmp_path / "p.zarr", files)
    Writer(files, progress, [0]).append(obs, {"bottleneck": h})
    finish(progress)
    want = h @ CELLS.weight.T + CELLS.intercept
    predictions = open_predictions(tmp_path / "p.zarr")
    np.testing.assert_allclose(predictions.logit[:, :], want, atol=1e-6)
    np.testing.assert_allclose(anndata.read_zarr(tmp_path / "p.zarr").X, want, atol=1e-6)
    mean = predictions.group_mean("cell_type")["a"]
    np.testing.assert_allclose(mean, want[:, CELLS.table["cell_type"] == "a"].mean(1), atol=1e-6)


@pytest.mark.parametrize("n_cells", [1, 255, 256, 257, 2034, 300_000])
def test_shards_stay_small_and_hold_whole_chunks(n_cells: int) -> None:
    plan = Plan(10**6, n_cells, 32, "dense")
    assert plan.shard_rows * n_cells * 4 <= max(store_module.MAX_SHARD_BYTES, 16 * n_cells * 4)
    assert plan.shard_rows % min(store_module.CHUNK_ROWS, plan.shard_rows) == 0


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    "array", ["X", "obsm/delta_bottleneck", "obs/variant_id", "obs/status/codes"]
)
def test_a_flipped_bit_is_an_error(tmp_path: Path, array: str) -> None:
    path = tmp_path / "s.zarr"
    write_scores(path, 8)
    chunk = next(file for file in sorted((path / array / "c").rglob("*")) if file.is_file())
    damaged = bytearray(chunk.read_bytes())
    damaged[5] ^= 1
    chunk.write_bytes(damaged)
    with pytest.raises((ValueError, RuntimeError)):
        zarr.open_group(path, mode="r")[array][:]


def test_shapes_are_checked_before_zarr_cuts_them() -> None:
    obs, factors = rows(3)
    factors["ref_bottleneck"] = factors["ref_bottleneck"][:, :2]
    with pytest.raises(StoreError, match=r"ref_bottleneck has shape \(3, 2\)"):
        encoder(Plan(3, N_CELLS, BOTTLENECK, "dense")).shard(0, obs, factors)


@pytest.mark.parametrize(("n_rows", "words"), [(2, "ended at row 2 where 3"), (4, r"\(4,\)")])
def test_rows_are_counted(tmp_path: Path, n_rows: int, words: str) -> None:
    files = encoder(Plan(3, N_CELLS, BOTTLENECK, "factored"))
    progress = begin(tmp_path / "s.zarr", files)
    writer = Writer(files, progress, [0])
    with pytest.raises(StoreError, match=words):  # noqa: PT012
        writer.append(*rows(n_rows))
        writer.close()
    assert try_to_finish(progress, lambda _: None) == [0]
    with pytest.raises(StoreError, match="unfinished"):
        open_scores(tmp_path / "s.zarr")


def test_existing_outputs(tmp_path: Path) -> None:
    path, other = tmp_path / "s.zarr", tmp_path / "thesis"
    write_scores(path, 2)
    other.mkdir()
    files = encoder(Plan(3, N_CELLS, BOTTLENECK, "dense"))
    for place in (path, other):
        with pytest.raises(StoreError, match="exists: choose another output"):
            begin(place, files)
    with pytest.raises(StoreError, match="not one of our stores"):
        begin(other, files, overwrite=True)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["s.zarr", "thesis"]
    assert len(open_scores(path)) == 2
    begin(path, files, overwrite=True)
    with pytest.raises(StoreError, match="unfinished"):
        open_scores(path)


def test_a_full_disk_is_refused_with_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, plan = SCHEMA, Plan(10**6, 2034, 32, "dense")
    progress = Progress(place_of(tmp_path / "s.zarr"))
    free = plan.bytes(2)["factored"]
    monkeypatch.setattr(Folder, "free", lambda _: free)
    with pytest.raises(StoreError, match=r"needs 8\.5 GB .* or take --layout factored"):
        check_room(progress, schema, plan, overwrite=False)
    check_room(progress, schema, Plan(10**6, 2034, 32, "factored"), overwrite=False)
    monkeypatch.setattr(Folder, "free", lambda _: free - 1)
    with pytest.raises(StoreError, match=r"choose another disk$"):
        check_room(progress, schema, plan, overwrite=False)


@pytest.mark.usefixtures("small_shards")
def test_only_what_is_missing_needs_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = encoder(Plan(20, N_CELLS, BOTTLENECK, "dense"))
    progress = begin(tmp_path / "s.zarr", files)
    whole = files.plan.bytes(2)["dense"]
    monkeypatch.setattr(Folder, "free", lambda _: whole / 2)
    with pytest.raises(StoreError, match="choose another disk"):
        check_room(progress, SCHEMA, files.plan, overwrite=False)
    writer = Writer(files, progress, range(3))
    writer.append(*rows(8))
    writer.append(*rows(8, 8))
    check_room(progress, SCHEMA, files.plan, overwrite=False)


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a store"):
        open_scores(tmp_path / "nothing.zarr")
    path = tmp_path / "s.zarr"
    write_scores(path, 2)
    with pytest.raises(StoreError, match="written by `score`"):
        open_predictions(path)
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["format_version"] = 99
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="has format 99"):
        open_scores(path)


def test_unknown_names_are_errors(tmp_path: Path) -> None:
    scores = write_scores(tmp_path / "s.zarr", 3)
    with pytest.raises(StoreError, match="0 cells named 'nobody'"):
        scores.cell("nobody")
    with pytest.raises(StoreError, match="0 rows named"):
        scores.variant("1:99:A:C")
    with pytest.raises(StoreError, match="cell 7 is out of range"):
        scores.cell(7)
    with pytest.raises(StoreError, match="they have 'cell_type', 'donor'"):
        scores.group_mean("organ")
    with pytest.raises(StoreError, match="2 labels for 7 cells"):
        scores.group_mean(["a", "b"])


def test_describe_store(tmp_path: Path) -> None:
    write_scores(tmp_path / "s.zarr", 3)
    description = describe_store(tmp_path / "s.zarr")
    assert description["arrays"]["X"] == [3, N_CELLS]
    assert description["arrays"]["obsm/ref_bottleneck"] == [3, BOTTLENECK]
    assert description["status"] == "complete"
    json.dumps(description)


def test_bitround_is_that_of_numcodecs() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(500, 7)) * 10.0 ** rng.integers(-30, 30, size=(500, 7))
    values[:3, 0] = [0.0, -0.0, 1 + 2.0**-11]  # the last lies between two: to the even one
    values = values.astype(np.float32)
    rounded = bitround(values)
    want = BitRound(store_module.BITS_KEPT).encode(values).view(np.float32).reshape(values.shape)
    np.testing.assert_array_equal(rounded, want)
    error = np.abs(rounded - values)[3:] / np.abs(values[3:])
    assert 4e-4 < error.max() <= 2.0**-11 < 4.9e-4
    odd = np.array([[np.nan, np.inf, -np.inf], [0, 1, 2]], dtype=np.float32)
    odd[1, 0] = np.uint32(0x7FFFFFFF).view(np.float32)  # another NaN
    np.testing.assert_array_equal(bitround(odd), odd)


def test_bitround_opens_elsewhere_and_is_smaller(tmp_path: Path) -> None:
    sizes = {}
    for precision in ("float32", "bitround"):
        files = encoder(Plan(4096, N_CELLS, BOTTLENECK, "dense", precision))
        path = tmp_path / f"{precision}.zarr"
        progress = begin(path, files)
        Writer(files, progress, [0]).append(*rows(4096))
        finish(progress)
        x = anndata.read_zarr(path).X
        want = rows(4096)[1]["delta_bottleneck"] @ CELLS.weight.T
        np.testing.assert_allclose(x, want, rtol=4.9e-4)
        np.testing.assert_array_equal(xarray.open_datatree(path, engine="zarr")["X"].values, x)
        assert np.array_equal(x, want, equal_nan=True) == (precision == "float32")
        sizes[precision] = (path / "X/c/0/0").stat().st_size
    assert sizes["bitround"] < 0.65 * sizes["float32"]
