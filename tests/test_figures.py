"""Figures of stores, and the command that draws them."""

import warnings
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import TINY_CONFIG, write_vcf

from scbasset_ism import figures
from scbasset_ism.attributing import AttributionRunOptions, attribute_windows
from scbasset_ism.cells import select_cells
from scbasset_ism.cli import main
from scbasset_ism.coordinates import read_coordinates
from scbasset_ism.errors import ScbassetError, StoreError
from scbasset_ism.genome import Genome
from scbasset_ism.model import random_model
from scbasset_ism.reader import Scores, open_scores
from scbasset_ism.saturation import IsmOptions, saturate
from scbasset_ism.saturations import Saturations
from scbasset_ism.scoring import ScoreOptions, score_variants
from scbasset_ism.variants import Variant


@dataclass
class Stores:
    scores: Scores
    found: Saturations


@pytest.fixture(scope="module")
def stores(tmp_path_factory, tiny_fasta, tiny_sequences):
    folder = tmp_path_factory.mktemp("stores")
    model, genome = random_model(TINY_CONFIG), Genome(tiny_fasta)
    bases = tiny_sequences["1"].upper()
    kinds = ["a", "b", "a", "", "b"] * model.config.n_cells
    model.cells = model.cells.assign(
        kind=kinds[: len(model.cells)], x=range(len(model.cells)), y=0.5
    )
    other = "C" if bases[1000] != "C" else "G"
    vcf = write_vcf(
        folder / "v.vcf",
        f"1 1001 rs1 {bases[1000]} {other}",
        f"1 1101 rs2 {bases[1100:1103]} {bases[1100]}",
        f"1 1201 rs3 {bases[1200]} <DEL>",
    )
    options = IsmOptions(span=20, allele="both", precision="float32")
    return Stores(
        score_variants(vcf, genome, model, folder / "s.zarr", options=ScoreOptions()),
        saturate(vcf, genome, model, folder / "i.zarr", options=options),
    )


def title(ax):
    return ax.get_title(loc="left")


class TestScores:
    def test_map(self, stores):
        ax, bar = figures.variant_map(stores.scores, "rs1").axes
        shown = sorted(ax.collections[0].get_array())
        assert shown == sorted(stores.scores.variant(0))
        assert title(ax).endswith("rs1")
        assert "alternate - reference" in bar.get_ylabel()

    def test_map_of_other_coordinates(self, stores):
        places = read_coordinates("x,y", stores.scores.cells)
        ax = figures.variant_map(stores.scores, 1, coordinates=places).axes[0]
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")

    def test_bars(self, stores):
        ax = figures.variant_bars(stores.scores, 0, by="kind").axes[0]
        means = stores.scores.group_mean("kind", [0]).iloc[0]
        widths = sorted(bar.get_width() for bar in ax.patches)
        np.testing.assert_allclose(widths, sorted(means), rtol=1e-5)

    def test_distribution(self, stores):
        ax = figures.variant_distribution(stores.scores, 0, groups=["a", "x > 1"]).axes[0]
        n = len(stores.scores.cells)
        texts = [text.get_text() for text in ax.get_legend().get_texts()]
        assert texts[2] == f"x > 1 ({n - 2})"

    def test_without_a_score(self, stores):
        with pytest.raises(StoreError, match="has no score: SYMBOLIC"):
            figures.variant_map(stores.scores, "rs3")

    def test_variants_are_found_by_id(self, stores):
        scores = open_scores(stores.scores.path)
        assert scores.variant("rs2").equals(scores.variant(1).rename("rs2"))
        with pytest.raises(StoreError, match="has 0 rows named 'rs4'"):
            scores.variant("rs4")


class TestWindows:
    def test_reference_above_alternate(self, stores):
        name = stores.found.row_names[0]
        figure = figures.logos(stores.found, name, groups=["a", "b"], span=11)
        names = [f"{g}, {row}" for g in "ab" for row in (name, f"{name}/alt")]
        assert [title(ax) for ax in figure.axes] == names
        assert {ax.get_xlim() for ax in figure.axes} == {(995.5, 1006.5)}
        assert len({ax.get_ylim() for ax in figure.axes}) == 1

    def test_letters_are_what_the_reader_gives(self, stores):
        ax = figures.logos(stores.found, 0, groups=["b"]).axes[0]
        found = stores.found
        cells = np.flatnonzero(found.cells["kind"] == "b")
        values = found.to_logo(0, cells.tolist()).to_numpy()
        letters = ["ACGT".index(base) for base in found.sequence(0)]
        own = values[range(20), letters]
        low, high = ax.get_ylim()
        assert low <= own.min() < 0.9 * low or own.min() >= 0
        assert high >= own.max() > 0.9 * high or own.max() <= 0

    @pytest.mark.parametrize(("row", "last"), [(0, 1001), (1, 1001), (2, 1103), (3, 1102)])
    def test_the_variant_is_marked(self, stores, row, last):
        view = figures._view(stores.found, row, stores.found.windows().iloc[row], 10)
        first = 1001 if row < 2 else 1102
        assert view.mark == range(first, last + 1)
        letter = view.sequence[first - view.start]
        assert row >= 2 or letter == stores.found.row_names[0].split(":")[2 + row]

    def test_substitutions_share_a_scale(self, stores):
        figure = figures.substitutions(stores.found, stores.found.row_names[0], groups=["a", "b"])
        images = [ax.get_images()[0] for ax in figure.axes if title(ax)]
        assert len(images) == 4
        assert len({image.norm.vmax for image in images}) == 1
        cells = np.flatnonzero(stores.found.cells["kind"] == "a").tolist()
        np.testing.assert_array_equal(images[0].get_array().T, stores.found.of(0, cells))

    def test_profiles(self, stores):
        ax = figures.profiles(stores.found, 0, by="kind").axes[0]
        names = [label.get_text() for label in ax.get_yticklabels()]
        assert sorted(names) == ["a", "b"]
        values = stores.found.to_logo(0, names[1], "kind").to_numpy()
        letters = ["ACGT".index(base) for base in stores.found.sequence(0)]
        np.testing.assert_array_equal(ax.get_images()[0].get_array()[1], values[range(20), letters])

    @pytest.mark.parametrize(
        ("window", "message"), [("rs9", "no window of the name 'rs9'"), (5, "SYMBOLIC")]
    )
    def test_no_window(self, stores, window, message):
        with pytest.raises(StoreError, match=message):
            figures.logos(stores.found, window)


def test_principal_components_keep_distances_as_well_as_two_numbers_can():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 8)) + 3
    places = figures.principal_components(plane).to_numpy()
    for points in (places, plane):
        assert points.shape[0] == 50
    distances = [np.linalg.norm(p[:, None] - p[None], axis=2) for p in (places, plane)]
    np.testing.assert_allclose(*distances, atol=1e-9)
    assert figures.principal_components(np.ones((1, 8))).shape == (1, 2)


class TestSelectCells:
    cells = pd.DataFrame(
        {"kind": ["T", "B", "B"], "other": ["x", "T", "y"], "depth": [1, 20, 30]},
        index=pd.Index(["c1", "c2", "x"], name="cell_id"),
    )

    @pytest.mark.parametrize(
        ("group", "members"),
        [
            ("c2", [1]),
            ("x", [2]),
            ("B", [1, 2]),
            ("30", [2]),
            ("kind == 'T'", [0]),
            ("depth > 10 and kind.str.startswith('B')", [1, 2]),
            ("cell_id == ['c1', 'x']", [0, 2]),
        ],
    )
    def test_meaning(self, group, members):
        assert np.flatnonzero(select_cells(self.cells, group)).tolist() == members

    @pytest.mark.parametrize(
        ("group", "message"),
        [
            ("T", "in several columns: ask for kind == 'T'"),
            ("Z", "no cell has the id or label 'Z'.*kind, other, depth"),
            ("depth", "no query"),
            ("depth >", "no query"),
            ("depth > 99", "no cell fulfils"),
        ],
    )
    def test_nothing(self, group, message):
        with pytest.raises(ScbassetError, match=message):
            select_cells(self.cells, group)


class TestCoordinates:
    cells = pd.DataFrame(
        {"u": [1.5, 2], "v": [3, 4], "kind": ["T", "B"], "gap": [1, np.nan]},
        index=pd.Index(["c1", "c2"], name="cell_id"),
    )

    @pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
    def test_of_an_anndata_in_the_order_of_the_cells(self, tmp_path, suffix):
        path = tmp_path / f"atlas.{suffix}"
        atlas = anndata.AnnData(obs=pd.DataFrame(index=["c0", "c2", "c1"]))
        atlas.obsm["X_umap"] = np.array([[0.0, 0, 9], [1, 2, 9], [3, 4, 9]])
        atlas.obsm["X_one"] = np.ones((3, 1))
        with warnings.catch_warnings(action="ignore"):  # of formats to come
            getattr(atlas, "write_h5ad" if suffix == "h5ad" else "write_zarr")(path)
        found = read_coordinates(f"{path}:X_umap", self.cells)
        assert found.to_numpy().tolist() == [[3, 4], [1, 2]]
        assert list(found) == ["umap 1", "umap 2"]
        for source, cells, message in [
            (f"{path}:X_pca", self.cells, "no embedding 'X_pca' in obsm; it has X_one, X_umap"),
            (f"{path}:X_one", self.cells, "X_one has one column"),
            (f"{path}:X_umap", self.cells.rename({"c2": "c9"}), "lacks 1 of 2 cells, c9 first"),
        ]:
            with pytest.raises(ScbassetError, match=message):
                read_coordinates(source, cells)

    def test_of_the_table(self):
        assert read_coordinates("v, u", self.cells).to_numpy().tolist() == [[3, 1.5], [4, 2]]

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("u", "neither two columns"),
            ("u,w", "neither two columns"),
            ("u,kind", "are no numbers"),
            ("u,gap", "some cells have none"),
            ("missing.h5ad:X_umap", "can't be read"),
        ],
    )
    def test_wrong(self, source, message):
        with pytest.raises(ScbassetError, match=message):
            read_coordinates(source, self.cells)


def test_attributions_are_drawn_alike(stores, tmp_path):
    pytest.importorskip("captum", reason="needs the extra `attribution`")
    model, name = random_model(TINY_CONFIG), stores.found.row_names[0]
    model.cells = stores.scores.cells.drop(columns="intercept")
    genome = Genome(stores.found.attributes["genome"]["path"])
    options = AttributionRunOptions(span=20, tolerance=1.0, allele="both")
    variant = Variant.parse(name)
    found = attribute_windows([variant], genome, model, tmp_path / "a.zarr", options=options)
    figure = figures.logos(found, name, groups=["a", "b"])
    titles = [f"{g}, {row}" for g in "ab" for row in (name, f"{name}/alt")]
    assert [title(ax) for ax in figure.axes] == titles
    ax = figures.profiles(found, 0, by="kind").axes[0]
    group = ax.get_yticklabels()[0].get_text()
    drawn = ax.get_images()[0].get_array()[0]
    np.testing.assert_array_equal(drawn, found.logits(0, group, "kind"))
    output = tmp_path / "picture.svg"
    for args, code in ((["--kind", "profiles", "--by", "kind"], 0), (["--kind", "map"], 2)):
        result = CliRunner().invoke(main, ["plot", str(found.path), *args, "-o", str(output)])
        assert result.exit_code == code, result.output


class TestCommand:
    @pytest.mark.parametrize(
        "args",
        [
            ["s", "--variant", "rs1"],
            ["s", "--kind", "map", "--coordinates", "x,y"],
            ["s", "--kind", "bars", "--by", "kind"],
            ["s", "--kind", "distribution", "--group", "a", "--group", "b"],
            ["i"],
            ["i", "--kind", "substitutions", "--group", "kind == 'a'"],
            ["i", "--kind", "profiles", "--by", "kind", "--span", "9"],
        ],
    )
    def test_every_kind(self, stores, tmp_path, args):
        store = {"s": stores.scores, "i": stores.found}[args[0]]
        output = tmp_path / "picture.svg"
        result = CliRunner().invoke(main, ["plot", str(store.path), *args[1:], "-o", str(output)])
        assert result.exit_code == 0, result.output
        assert ET.parse(output).getroot().tag.endswith("svg")

    @pytest.mark.parametrize(
        ("args", "code", "message"),
        [
            (["i", "--kind", "map"], 2, "its pictures are logo, substitutions, profiles"),
            (["s", "--kind", "bars"], 2, "name a column"),
            (["s", "--kind", "bars", "--by", "sort"], 1, "no column 'sort'"),
            (["s", "--by", "kind"], 2, "map takes no by"),
            (["s", "--variant", "rs7"], 1, "0 rows named 'rs7'"),
            (["i", "--variant", "rs7"], 1, "no window of the name"),
            (["i", "--group", "rs7"], 1, "no cell has the id"),
            (["i", "-o", "x.gif"], 2, "ends in .svg, .pdf or .png"),
            (["i", "-o", "no/where.svg"], 1, "can't be written"),
        ],
    )
    def test_wrong_use(self, stores, tmp_path, args, code, message):
        store = {"s": stores.scores, "i": stores.found}[args[0]]
        output = [] if "-o" in args else ["-o", str(tmp_path / "p.svg")]
        result = CliRunner().invoke(main, ["plot", str(store.path), *args[1:], *output])
        assert result.exit_code == code
        assert message in result.output
