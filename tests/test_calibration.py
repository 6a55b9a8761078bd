"""How large effects are among those of a background, against counting."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import write_vcf
from fake_scores import FINGERPRINT, write_scores

from scbasset_ism import calibration as module
from scbasset_ism.calibration import Background, cutoff_table, open_background
from scbasset_ism.errors import CalibrationError
from scbasset_ism.genome import Genome
from scbasset_ism.groups import Groups, tabulate_groups, tabulate_slopes
from scbasset_ism.model import Scbasset
from scbasset_ism.reader import Scores
from scbasset_ism.scoring import ScoreOptions, score_variants

N_BACKGROUND, N_CELLS, BOTTLENECK = 203, 9, 4
RNG = np.random.default_rng(8)
WEIGHT = RNG.normal(size=(N_CELLS, BOTTLENECK)).astype(np.float32)
BACKGROUND = RNG.standard_t(3, size=(N_BACKGROUND, BOTTLENECK)).astype(np.float32)
DELTA = RNG.normal(size=(7, BOTTLENECK)).astype(np.float32)
LABELS = pd.Series(list("aaabbbbcc"), name="type")


def plain_percentile(effect: float, background: np.ndarray) -> float:
    """The definition: count the smaller ones."""
    smaller = sum(abs(b) < abs(effect) for b in background)
    return float(np.sign(effect)) * 100 * smaller / (len(background) + 1)


@pytest.fixture
def background(tmp_path: Path) -> Background:
    delta = np.insert(BACKGROUND, [5, 90], np.nan, axis=0)  # two have no score
    cells = pd.DataFrame(
        {"type": LABELS.to_numpy()},
        index=pd.Index([f"c{i}" for i in range(N_CELLS)], dtype=object, name="cell_id"),
    )
    write_scores(tmp_path / "b.zarr", delta, WEIGHT, cells=cells)
    return Background(tmp_path / "b.zarr")


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    return write_scores(tmp_path / "s.zarr", DELTA, WEIGHT)


def test_percentiles_and_z(background: Background) -> None:
    assert len(background) == N_BACKGROUND
    weight = Groups.of(LABELS).mean_weight(WEIGHT)
    found, effect, own = background.calibrate(weight), DELTA @ weight.T, BACKGROUND @ weight.T
    want = [
        [plain_percentile(effect[v, g], own[:, g]) for g in range(3)] for v in range(len(DELTA))
    ]
    np.testing.assert_allclose(found.percentile(effect), want, atol=1e-4)
    np.testing.assert_allclose(
        found.z(effect), effect / np.sqrt((own.astype(float) ** 2).mean(0)), rtol=1e-5
    )
    shifted = np.roll(effect, 1, axis=1)  # the control: other groups' effects
    assert not np.allclose(found.percentile(shifted), want, atol=1)


def test_swapped_alleles_swap_the_sign(background: Background) -> None:
    found = background.calibrate(WEIGHT)
    effect = DELTA @ WEIGHT.T
    np.testing.assert_array_equal(found.percentile(-effect), -found.percentile(effect))
    np.testing.assert_array_equal(found.z(-effect), -found.z(effect))


def test_the_ends(background: Background) -> None:
    found = background.calibrate(WEIGHT[:1])
    effect = np.array([[1e9], [-1e9], [0], [np.nan]], np.float32)
    percentile = found.percentile(effect)[:, 0]
    edge = 100 * N_BACKGROUND / (N_BACKGROUND + 1)
    np.testing.assert_allclose(percentile, [edge, -edge, 0, np.nan], atol=1e-4)
    own = (BACKGROUND @ WEIGHT[:1].T)[:, :1]
    ranks = np.sort(np.abs(found.percentile(own))[:, 0])
    np.testing.assert_allclose(ranks, 100 * np.arange(N_BACKGROUND) / (N_BACKGROUND + 1), atol=1e-4)


def test_tables_have_the_columns(scores: Scores, background: Background) -> None:
    groups = Groups.of(LABELS)
    table = pd.concat(tabulate_groups(scores, groups, background=background))
    weight = groups.mean_weight(WEIGHT)
    own = dict(zip(groups.names, (BACKGROUND @ weight.T).T, strict=True))
    cases = zip(table["mean"], table["group"], strict=True)
    want = [plain_percentile(mean, own[group]) for mean, group in cases]
    np.testing.assert_allclose(table["percentile"], want, atol=1e-4)
    for _, rows in table.groupby("row"):  # ranked by z
        assert rows["z"].abs().is_monotonic_decreasing
        assert rows["rank"].tolist() == [1, 2, 3]
    slopes = pd.concat(
        tabulate_slopes(scores, pd.Series(np.arange(9.0), name="t"), background=background)
    )
    line = np.arange(9.0) - 4
    along = BACKGROUND @ (line @ WEIGHT / (line @ line))
    want = [plain_percentile(slope, along) for slope in slopes["slope"]]
    np.testing.assert_allclose(slopes["percentile"], want, atol=0.6)  # ties by rounding
    np.testing.assert_allclose(slopes["z"], slopes["slope"] / np.sqrt((along**2).mean()), rtol=1e-4)


def test_summaries_over_all_cells(background: Background) -> None:
    found = background.overall(DELTA)
    logits, own = DELTA @ WEIGHT.T, BACKGROUND @ WEIGHT.T
    size, own_size = (np.sqrt((x.astype(float) ** 2).mean(1)) for x in (logits, own))
    mean = [plain_percentile(m, own.mean(1)) for m in logits.mean(1)]
    np.testing.assert_allclose(found["delta_logit_mean_percentile"], mean, atol=1e-4)
    rms = [plain_percentile(s, own_size) for s in size]
    np.testing.assert_allclose(found["delta_logit_rms_percentile"], rms, atol=1e-4)
    assert (found["delta_logit_rms_percentile"] >= 0).all()
    scale = np.sqrt((own.mean(1).astype(float) ** 2).mean())
    np.testing.assert_allclose(found["delta_logit_mean_z"], logits.mean(1) / scale, rtol=1e-4)


@pytest.mark.parametrize("block", [1, 1 << 22])
def test_cutoffs(background: Background, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    table = cutoff_table(background, "type")
    logits = np.abs(BACKGROUND @ WEIGHT.T)
    assert table.index.tolist() == [
        "mean of all cells",
        "largest of 9 cells",
        "type: a",
        "type: b",
        "type: c",
        "largest of 3 groups",
    ]
    assert table.loc["largest of 9 cells", "99%"] == pytest.approx(
        np.quantile(logits.max(1), 0.99), rel=1e-4
    )
    b = np.abs((BACKGROUND @ WEIGHT.T)[:, 3:7].mean(1))
    assert table.loc["type: b", "90%"] == pytest.approx(np.quantile(b, 0.9), rel=1e-4)
    assert (table.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        pytest.param({"model weights": "b" * 64}, "another model.*aaaaaaaaaaaa", id="model"),
        pytest.param({"rc": True}, "another choice of strands", id="rc"),
        pytest.param({"shifts": 3}, "other shifts", id="shifts"),
    ],
)
def test_other_backgrounds_are_refused(
    tmp_path: Path, scores: Scores, other: dict[str, object], words: str
) -> None:
    write_scores(tmp_path / "b.zarr", BACKGROUND, WEIGHT, fingerprint=FINGERPRINT | other)
    with pytest.raises(CalibrationError, match=words):
        open_background(tmp_path / "b.zarr", scores)


def test_a_small_background_is_refused(tmp_path: Path, scores: Scores) -> None:
    write_scores(tmp_path / "b.zarr", BACKGROUND[:99], WEIGHT)
    with pytest.raises(CalibrationError, match="99 scored variants; a background needs 100"):
        open_background(tmp_path / "b.zarr", scores)


def test_score_with_a_background(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
) -> None:
    bases = tiny_sequences["2"]
    swap = {"A": "C", "C": "G", "G": "T", "T": "A"}
    records = [f"2 {p} . {bases[p - 1]} {swap[bases[p - 1]]}" for p in range(1000, 1105)]
    own = write_vcf(tmp_path / "v.vcf", *records[:3], "2 1050 . A <DEL>")
    common = write_vcf(tmp_path / "b.vcf", *records)
    options = ScoreOptions(layout="factored")
    written = score_variants(common, tiny_genome, tiny_model, tmp_path / "b.zarr", options=options)
    chosen = ScoreOptions(layout="factored", background=str(tmp_path / "b.zarr"))
    scores = score_variants(own, tiny_genome, tiny_model, tmp_path / "s.zarr", options=chosen)
    table, means = scores.variants(), written.variants()["delta_logit_mean"].to_numpy()
    want = [plain_percentile(mean, means) for mean in table["delta_logit_mean"][:3]]
    np.testing.assert_allclose(table["delta_logit_mean_percentile"][:3], want, atol=1.01)
    assert table["delta_logit_mean_percentile"].isna().tolist() == [False] * 3 + [True]
    np.testing.assert_array_equal(
        np.sign(table["delta_logit_mean_z"][:3]), np.sign(table["delta_logit_mean"][:3])
    )
    assert scores.attributes["background"]["rows"] == 105
    averaged = ScoreOptions(rc=True, background=str(tmp_path / "b.zarr"))
    with pytest.raises(CalibrationError, match="strands"):
        score_variants(own, tiny_genome, tiny_model, tmp_path / "rc.zarr", options=averaged)
    assert not (tmp_path / "rc.zarr").exists()
