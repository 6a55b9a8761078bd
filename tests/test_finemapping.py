"""Trait scores against plain loops; a planted signal is found, and nothing where there is none."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fake_scores import write_scores
from scipy import stats

from scbasset_ism import controls
from scbasset_ism.calibration import Background
from scbasset_ism.cli import main
from scbasset_ism.errors import CredibleSetError
from scbasset_ism.finemap_tables import (
    allele_table,
    cell_table,
    group_table,
    obs_table,
    scdrs_table,
    share_table,
    trait_table,
    variant_table,
    write_finemap,
)
from scbasset_ism.finemapping import Finemap, FinemapOptions, finemap
from scbasset_ism.genome import Genome
from scbasset_ism.groups import Groups
from scbasset_ism.reader import Scores

N, N_CELLS, BOTTLENECK = 700, 24, 4
N_TRAITS, N_CREDIBLE = 50, 8
RNG = np.random.default_rng(11)
LABELS = pd.Series(["T"] * 8 + ["B"] * 10 + ["NK"] * 6, name="type")
WEIGHT = RNG.normal(size=(N_CELLS, BOTTLENECK))
WEIGHT[:8, 0] += 6  # T cells answer to the first number of the bottleneck
DELTA = RNG.normal(size=(N, BOTTLENECK)) * RNG.lognormal(size=(N, 1))
DELTA[:20] = RNG.normal(size=(20, BOTTLENECK)) * 0.2
DELTA[:20, 0] += np.where(np.arange(20) % 2, 1, -1) * 2  # the planted variants
POSITIONS = 700 + 6 * np.arange(N)


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    names = [f"1:{position}:A:C" for position in POSITIONS]
    cells = pd.DataFrame(
        {"type": LABELS.to_numpy()},
        index=pd.Index([f"c{i}" for i in range(N_CELLS)], dtype=object, name="cell_id"),
    )
    return write_scores(tmp_path / "s.zarr", DELTA, WEIGHT, cells=cells, variants=names)


def credible(rows: np.ndarray, trait: str, beta: np.ndarray, pip: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trait": trait,
            "locus": "L",
            "chrom": "1",
            "pos": POSITIONS[rows],
            "other": "A",
            "effect": "C",
            "pip": pip,
            "beta": beta,
            "maf": np.nan,
            "is_credible": True,
        }
    )


def planted() -> pd.DataFrame:
    rows = np.arange(20)
    return credible(rows, "planted", np.where(rows % 2, 0.3, -0.3), np.linspace(0.2, 0.9, 20))


def nothing() -> pd.DataFrame:
    """Many traits whose variants are any, with any sign."""
    rows = RNG.permutation(np.arange(20, N))[: N_TRAITS * N_CREDIBLE].reshape(N_TRAITS, -1)
    tables = [
        credible(own, f"null{i}", RNG.normal(size=N_CREDIBLE), RNG.uniform(0.05, 1, N_CREDIBLE))
        for i, own in enumerate(rows)
    ]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture
def found(scores: Scores, tiny_genome: Genome) -> Finemap:
    return finemap(scores, planted(), tiny_genome, groups=Groups.of(LABELS))


def test_scores_and_null_are_those_of_plain_loops(found: Finemap, tiny_genome: Genome) -> None:
    (trait,) = found.traits
    table, logits = planted(), DELTA.astype(np.float32).astype(float) @ WEIGHT.T
    sign = np.sign(table["beta"])
    np.testing.assert_allclose(
        trait.signed[:N_CELLS],
        sum(table["pip"][v] * sign[v] * logits[v] for v in range(20)),
        atol=1e-4,
    )
    unsigned = sum(table["pip"][v] * np.abs(logits[v]) for v in range(20))
    np.testing.assert_allclose(trait.unsigned[:N_CELLS], unsigned, atol=1e-4)
    np.testing.assert_allclose(trait.unsigned[N_CELLS], unsigned[8:18].mean(), atol=1e-4)  # B
    pool = np.arange(20, N)
    size = np.sqrt((logits**2).mean(1))
    gc = []
    for position in POSITIONS:
        start = position - 1 - 672
        bases = tiny_genome.text("1", max(0, start), min(6000, start + 1344)).upper()
        gc.append(sum(b in "GC" for b in bases) / sum(b in "ACGT" for b in bases))
    features = pd.DataFrame({"size": size, "gc": gc})
    order = trait.variants["row"].to_numpy()
    nearest = controls.nearest_controls(features.iloc[order], features.iloc[pool])
    drawn = controls.draw(nearest, 1000, np.random.default_rng([0, 0]))
    draws = np.zeros((1000, 2, N_CELLS))
    for number, row in enumerate(drawn):
        for v, u in zip(order, pool[row], strict=True):
            scaled = logits[u] * size[v] / size[u]  # of the credible variant's size
            draws[number, 0] += table["pip"][v] * sign[v] * scaled
            draws[number, 1] += table["pip"][v] * np.abs(scaled)
    for null, values in zip(
        (trait.signed_null, trait.unsigned_null), draws.swapaxes(0, 1), strict=True
    ):
        assert null is not None
        np.testing.assert_allclose(null.mean[:N_CELLS], values.mean(0), atol=1e-3)
        np.testing.assert_allclose(null.sd[:N_CELLS], values.std(0, ddof=1), rtol=1e-3)
    z = (unsigned - draws[:, 1].mean(0)) / draws[:, 1].std(0, ddof=1)
    np.testing.assert_allclose(trait.unsigned_null.z[:N_CELLS], z, rtol=1e-2, atol=1e-2)
    shuffled = np.roll(z, 1)  # the control
    assert not np.allclose(trait.unsigned_null.z[:N_CELLS], shuffled, rtol=1e-2, atol=1e-2)


def test_a_planted_signal_is_found(found: Finemap) -> None:
    groups = group_table(found).set_index("group")
    assert groups["z"].idxmax() == "T"
    assert groups.loc["T", "p"] == pytest.approx(1 / 1001)
    assert groups.loc["T", "fdr"] < 0.01
    assert groups.loc["T", "signed_z"] > 4  # the trait-raising allele opens
    assert groups.loc["T", "signed_p"] == pytest.approx(1 / 1001)
    assert (groups.drop(index="T")["p"] > 0.05).all()
    cells = cell_table(found).set_index("cell_id")
    best = cells["z"].sort_values(ascending=False).index[:8]
    assert set(best) == {f"c{i}" for i in range(8)}


def test_nothing_is_found_where_there_is_nothing(scores: Scores, tiny_genome: Genome) -> None:
    found = finemap(scores, nothing(), tiny_genome, groups=Groups.of(LABELS))
    assert len(found.traits) == N_TRAITS
    table = group_table(found)
    for group, rows in table.groupby("group"):
        for name in ("p", "signed_p"):
            assert stats.kstest(rows[name], "uniform").pvalue > 0.01, (group, name)
            assert 0.38 < rows[name].mean() < 0.62
    assert (table.groupby("trait")["fdr"].min() < 0.05).mean() <= 0.1


def test_draws_are_seeded(scores: Scores, tiny_genome: Genome) -> None:
    def z(seed: int) -> list[float]:
        options = FinemapOptions(draws=200, seed=seed)
        made = finemap(scores, planted(), tiny_genome, options=options)
        return list(cell_table(made)["z"])

    assert z(3) == z(3)
    assert z(3) != z(4)


def test_swapped_alleles_change_nothing(
    scores: Scores, tiny_genome: Genome, found: Finemap, caplog: pytest.LogCaptureFixture
) -> None:
    table = planted()
    table.loc[::3, ["other", "effect"]] = ["C", "A"]
    table.loc[::3, "beta"] *= -1
    with caplog.at_level(logging.INFO):
        turned = finemap(scores, table, tiny_genome, groups=Groups.of(LABELS))
    assert "13 SAME, 7 SWAPPED" in caplog.text
    pd.testing.assert_frame_equal(cell_table(turned), cell_table(found))
    assert trait_table(turned)["n_swapped"].tolist() == [7]
    assert len(allele_table(turned)) == 7
    assert allele_table(found).empty
    table.loc[::3, "beta"] *= -1  # the control: with the sign forgotten
    forgotten = finemap(scores, table, tiny_genome)
    assert not np.allclose(cell_table(forgotten)["signed_score"], cell_table(found)["signed_score"])


def test_a_variant_in_two_credible_sets(scores: Scores, tiny_genome: Genome) -> None:
    table = pd.concat([planted(), planted().iloc[:1].assign(pip=0.5, locus="M")], ignore_index=True)
    (trait,) = finemap(scores, table, tiny_genome).traits
    own = trait.variants.set_index("row")
    assert len(own) == 20
    assert own.loc[0, "pip"] == pytest.approx(1 - 0.8 * 0.5)
    assert own.loc[0, "locus"] == "M"


def test_without_betas_nothing_is_signed(scores: Scores, tiny_genome: Genome) -> None:
    made = finemap(scores, planted().assign(beta=np.nan), tiny_genome)
    cells = cell_table(made)
    assert cells[["signed_score", "signed_z", "signed_p", "signed_fdr"]].isna().all(axis=None)
    assert cells["z"].notna().all()


def test_frequencies_are_matched_where_they_are_known(scores: Scores, tiny_genome: Genome) -> None:
    rows = np.arange(20, 300)
    others = credible(rows, "planted", np.ones(280), np.full(280, 0.001)).assign(is_credible=False)
    table = pd.concat([planted(), others], ignore_index=True)
    table["maf"] = np.random.default_rng(0).uniform(0, 0.5, len(table))
    (trait,) = finemap(scores, table, tiny_genome).traits
    assert trait.matched_on == ("size", "gc", "maf")
    assert trait.n_controls == 280  # those whose frequency is known
    table.loc[3, "maf"] = np.nan
    (trait,) = finemap(scores, table, tiny_genome).traits
    assert trait.matched_on == ("size", "gc")
    assert trait.n_controls == N - 20


def test_too_few_controls(
    scores: Scores, tiny_genome: Genome, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    table = credible(np.arange(N - 50), "all", np.ones(N - 50), np.full(N - 50, 0.5))
    with caplog.at_level(logging.INFO):
        made = finemap(scores, table, tiny_genome)
    assert "50 controls in its loci, fewer than 100" in caplog.text
    cells = cell_table(made)
    assert cells["score"].notna().all()
    assert cells[["z", "p", "fdr"]].isna().all(axis=None)
    assert "scdrs/all.score.gz" not in write_finemap(made, tmp_path / "out")


def test_nothing_in_common(scores: Scores, tiny_genome: Genome) -> None:
    with pytest.raises(CredibleSetError, match="none of the 20 rows is a credible variant"):
        finemap(scores, planted().assign(chrom="7"), tiny_genome)


def test_variants_are_ranked(scores: Scores, tiny_genome: Genome, tmp_path: Path) -> None:
    write_scores(tmp_path / "b.zarr", DELTA[20:], WEIGHT)
    background = Background(tmp_path / "b.zarr")
    table = planted()
    table.loc[:4, "locus"] = "K"
    made = finemap(scores, table, tiny_genome, groups=Groups.of(LABELS), background=background)
    variants = variant_table(made)
    assert variants["locus"].tolist() == ["K"] * 5 + ["L"] * 15
    assert variants["rank"].tolist() == [*range(1, 6), *range(1, 16)]
    weight = np.stack([WEIGHT[name == LABELS].mean(0) for name in ("B", "NK", "T")])
    z = DELTA @ weight.T / np.sqrt(((DELTA[20:] @ weight.T) ** 2).mean(0))
    for own in variants.to_dict("records"):
        best = np.abs(z[own["row"]]).argmax()
        assert own["group"] == ["B", "NK", "T"][best]
        assert own["z"] == pytest.approx(z[own["row"], best], rel=1e-3)
        assert own["priority"] == pytest.approx(own["pip"] * abs(own["z"]), rel=1e-3)
        assert own["trait_delta"] == pytest.approx(np.sign(own["beta"]) * own["delta"])
    for _, rows in variants.groupby("locus"):
        assert rows["priority"].is_monotonic_decreasing


def test_shares_add_up(found: Finemap) -> None:
    shares, groups = share_table(found), group_table(found).set_index("group")
    sums = shares.groupby("group")[["share", "score", "signed_score"]].sum()
    np.testing.assert_allclose(sums["share"], 1, rtol=1e-6)
    np.testing.assert_allclose(sums["score"], groups["score"][sums.index], rtol=1e-5)
    np.testing.assert_allclose(sums["signed_score"], groups["signed_score"][sums.index], atol=1e-4)


def test_what_other_tools_read(found: Finemap, tmp_path: Path) -> None:
    names = write_finemap(found, tmp_path, suffix=".parquet")
    assert sorted(names) == sorted(
        path.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix in {".parquet", ".gz"}
    )
    (trait,) = found.traits
    scdrs = pd.read_csv(tmp_path / "scdrs/planted.score.gz", sep="\t", index_col=0)
    assert scdrs.index.tolist() == found.scores.cells.index.tolist()
    assert list(scdrs) == ["raw_score", "norm_score", "mc_pval", "pval", "nlog10_pval", "zscore"]
    np.testing.assert_allclose(scdrs["norm_score"], cell_table(found)["z"])
    normal = np.clip(stats.norm.isf(scdrs["pval"]), -10, 10)
    np.testing.assert_allclose(scdrs["zscore"], normal, atol=1e-6)
    assert len(scdrs_table(found, trait)) == N_CELLS
    obs = pd.read_parquet(tmp_path / "obs.parquet").set_index("cell_id")
    pd.testing.assert_index_equal(obs.index, found.scores.cells.index)
    np.testing.assert_allclose(obs["planted_z"].astype(float), cell_table(found)["z"])
    assert list(obs_table(found))[:3] == ["cell_id", "planted_score", "planted_z"]
    vector = trait_table(found).filter(like="bottleneck_").to_numpy()[0]
    np.testing.assert_allclose(WEIGHT @ vector, cell_table(found)["signed_score"], atol=1e-4)


def test_the_command(scores: Scores, tiny_fasta: Path, tmp_path: Path) -> None:
    sets = tmp_path / "sets.tsv"
    planted().drop(columns=["maf", "is_credible"]).to_csv(sets, sep="\t", index=False)
    sets.write_text(sets.read_text().replace("other\teffect", "ref\talt"))
    out = tmp_path / "out"
    args = ["finemap", str(scores.path), str(sets), "--genome", str(tiny_fasta), "--by", "type"]
    result = CliRunner().invoke(main, [*args, "--draws", "200", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "20 SAME" in result.output
    assert "1 traits, 8 files" in result.output
    groups = pd.read_csv(out / "groups.tsv", sep="\t").set_index("group")
    assert groups["z"].idxmax() == "T"
    wrong = CliRunner().invoke(main, [*args[:2], str(tiny_fasta), *args[3:], "-o", str(out)])
    assert wrong.exit_code == 1
    assert wrong.output.strip().splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in wrong.output
