"""The report: what stands in the page, that nothing in it acts, and that it works in a browser."""

import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import TINY_CONFIG, write_vcf

from scbasset_ism import report
from scbasset_ism.cli import main
from scbasset_ism.errors import ScbassetError, StoreError
from scbasset_ism.genome import Genome
from scbasset_ism.model import random_model
from scbasset_ism.reader import open_scores
from scbasset_ism.saturation import IsmOptions, saturate
from scbasset_ism.scoring import score_variants

EVIL = "<script>document.title='hacked'</script>"
WORSE = "</script><img src=x onerror=\"document.title='hacked'\">"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_fasta, tiny_sequences):
    folder, genome = tmp_path_factory.mktemp("report"), Genome(tiny_fasta)
    model, bases = random_model(TINY_CONFIG), tiny_sequences["1"].upper()
    model.cells = model.cells.assign(
        name=["a", "b", WORSE, "d", "e"], kind=["x", "x", EVIL, "", "y"]
    )
    snvs = [
        f"1 {pos} {name} {bases[pos - 1]} {'C' if bases[pos - 1] != 'C' else 'G'}"
        for pos, name in [(1001, "rs1"), (1101, EVIL), (1201, "rs3")]
    ]
    vcf = write_vcf(folder / "v.vcf", *snvs, f"1 1301 {EVIL}2 {bases[1300]} <DEL>")
    score_variants(vcf, genome, model, folder / "s.zarr")
    options = IsmOptions(span=20, allele="both", precision="float32")
    saturate(vcf, genome, model, folder / "i.zarr", options=options)
    other = random_model(TINY_CONFIG, seed=9)
    saturate(vcf, genome, other, folder / "other.zarr", options=options)
    stores = [str(folder / "s.zarr"), "--ism", str(folder / "i.zarr")]
    output = ["-o", str(folder / "report.html")]
    result = CliRunner().invoke(main, ["report", *stores, "--by", "kind", *output])
    assert result.exit_code == 0, result.output
    return folder


class Page(HTMLParser):
    """Collects the text of cells of tables, the scripts, and what the page would load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.texts, self.scripts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data):
        kept = self.scripts if self.tags and self.tags[-1] == "script" else self.texts
        kept.append(data.strip())


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def test_every_scored_variant_stands_in_the_page_and_those_without_a_score_too(page):
    for text in (EVIL, "rs1", "rs3", f"{EVIL}2", "SYMBOLIC"):
        assert text in page.texts


def test_nothing_from_a_file_becomes_markup(folder, page):
    assert page.tags.count("script") == 2
    assert page.tags.count("img") == 3
    text = (folder / "report.html").read_text()
    assert EVIL not in text
    assert WORSE not in text


def test_it_needs_no_network(page):
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"https?://(?!www\.w3\.org)", "".join(page.scripts))


def test_the_page_can_multiply_to_the_scores(folder, page):
    scores = open_scores(folder / "s.zarr")
    data = json.loads(page.scripts[0])
    delta, weight, groups = (
        np.frombuffer(b64decode(data[name]), dtype="<f4").reshape(-1, data["bottleneck"])
        for name in ("delta", "weight", "group_weight")
    )
    rows = scores.strongest(9, 1)["row"].to_numpy()
    np.testing.assert_allclose(delta @ weight.T, scores.delta_logit[rows], rtol=1e-5)
    means = scores.group_mean("kind").iloc[rows]
    np.testing.assert_allclose(delta @ groups.T, means, rtol=1e-5)
    assert data["groups"] == list(means)
    assert data["sizes"] == [1, 2, 1]
    places = np.frombuffer(b64decode(data["places"]), dtype="<f4")
    assert (places.min(), places.max()) == (0, 1)


@pytest.fixture
def finemapped(tmp_path):
    """Two traits, one of them evil."""
    traits = pd.DataFrame(
        {"trait": ["red cells", EVIL], "n_credible": 2, "n_loci": 1, "sum_pip": 0.9}
    ).assign(n_controls=50, bottleneck_0=[1.0, 2], bottleneck_1=[0.0, 1], bottleneck_2=[0.5, 0])
    groups = {"trait": "red cells", "group": ["x", "y"], "score": [0.1, 0.2], "z": [1.5, 2.5]}
    variants = {"trait": EVIL, "locus": "l1", "variant_name": ["v1", "v2"], "pip": [0.2, 0.7]}
    variants |= {"delta": [-1.0, 0.5], "group": "x", "priority": [0.2, 0.35]}
    for name, table in {
        "traits": traits,
        "groups": pd.DataFrame(groups).assign(p=0.01, fdr=0.02),
        "variants": pd.DataFrame(variants),
    }.items():
        table.to_csv(tmp_path / f"{name}.tsv", sep="\t", index=False)
    return tmp_path


def test_traits(folder, finemapped):
    scores = open_scores(folder / "s.zarr")
    text = report.render(scores, by="kind", finemapped=finemapped)
    page = Page(text)
    assert EVIL not in text
    for words in ("red cells", "2.50", "v2", "0.700", "\u22121.000"):
        assert any(words in found for found in page.texts)
    assert page.texts.index("v2") < page.texts.index("v1")
    delta = np.frombuffer(b64decode(json.loads(page.scripts[0])["delta"]), dtype="<f4")
    assert delta[-6:].tolist() == [1, 0, 0.5, 2, 1, 0]
    with pytest.raises(ScbassetError, match="no folder of `finemap`"):
        report.render(scores, finemapped=folder)


def test_of_many_cells_a_sample_is_on_the_map(folder, monkeypatch):
    monkeypatch.setattr(report, "MOST_CELLS", 2)
    page = Page(report.render(open_scores(folder / "s.zarr")))
    assert len(json.loads(page.scripts[0])["cells"]) == 2


def test_without_groups_and_logos(folder):
    text = report.render(open_scores(folder / "s.zarr"), n_variants=2)
    assert Page(text).tags.count("img") == 0
    assert text.count("data-number=") == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["s.zarr", "--by", "sort"], "no column 'sort'"),
        (["i.zarr"], "was written by `ism`"),
        (["s.zarr", "--ism", "other.zarr"], "made with another model"),
        (["s.zarr", "--coordinates", "x,y"], "neither two columns"),
        (["s.zarr", "-o", "report.html"], "give --overwrite"),
        (["s.zarr", "-o", "no/where.html"], "can't be written"),
    ],
)
def test_wrong_use(folder, monkeypatch, args, message):
    monkeypatch.chdir(folder)
    output = [] if "-o" in args else ["-o", "new.html"]
    result = CliRunner().invoke(main, ["report", *args, *output])
    assert result.exit_code == 1
    assert message in result.output
    assert not (folder / "new.html").exists()


def test_nothing_to_report(tmp_path, tiny_genome, tiny_model):
    vcf = write_vcf(tmp_path / "v.vcf", "1 1301 . A <DEL>")
    scores = score_variants(vcf, tiny_genome, tiny_model, tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="no variant has a score"):
        report.write_report(scores, tmp_path / "report.html")


@pytest.fixture(scope="module")
def browser(folder):
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    service = pytest.importorskip("selenium.webdriver.chrome.service").Service
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1300,2000",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=service(driver))
    browser.get((folder / "report.html").as_uri())
    yield browser
    browser.quit()


class TestBrowser:
    def rows(self, browser):
        shown = browser.find_elements("css selector", "#table tbody tr:not([hidden])")
        return [row.find_elements("tag name", "td")[1].text for row in shown]

    def test_loads_without_errors_and_nothing_acts(self, browser):
        assert browser.get_log("browser") == []
        assert browser.title == "Variant effects: s.zarr"
        assert sorted(self.rows(browser)) == sorted([EVIL, "rs1", "rs3"])

    def test_sorts(self, browser):
        by_effect = self.rows(browser)
        header = browser.find_elements("css selector", "#table thead button")[2]
        header.click()
        assert self.rows(browser) == ["rs3", EVIL, "rs1"]
        header.click()
        assert self.rows(browser) == ["rs1", EVIL, "rs3"]
        browser.find_elements("css selector", "#table thead button")[3].click()
        assert self.rows(browser) == by_effect

    def test_filters(self, browser):
        search = browser.find_element("id", "search")
        search.send_keys("rs3")
        assert self.rows(browser) == ["rs3"]
        assert browser.find_element("id", "found").text == "1 of 3 variants"
        search.send_keys("\b\b\b")
        assert len(self.rows(browser)) == 3

    def test_switches_the_variant_by_keyboard(self, browser, folder):
        scores = open_scores(folder / "s.zarr")
        button = browser.find_elements("css selector", "#table tbody button")[-1]
        name = button.text
        pixels = browser.find_element("id", "map").screenshot_as_png
        button.send_keys("\ue007")  # Enter
        assert browser.find_element("id", "chosen").text.startswith(name)
        cells = browser.find_elements("css selector", "#cells tbody tr")
        best = np.abs(scores.variant(name).to_numpy()).max()
        assert cells[0].find_elements("tag name", "td")[1].text[1:] == f"{best:.3f}"
        groups = browser.find_elements("css selector", "#groups tbody tr")
        shown = [row.find_elements("tag name", "td")[0].text for row in groups]
        means = scores.group_mean("kind").loc[name].sort_values(ascending=False)
        assert shown == list(means.index)
        assert browser.find_element("id", "map").screenshot_as_png != pixels
        assert browser.get_log("browser") == []

    def test_logos_are_drawn(self, browser):
        sizes = browser.execute_script(
            "return Array.from(document.images).map((image) => image.naturalWidth)"
        )
        assert len(sizes) == 3
        assert min(sizes) > 300


def test_a_trait_on_the_map(browser, folder, finemapped):
    scores = open_scores(folder / "s.zarr")
    report.write_report(scores, finemapped / "r.html", finemapped=finemapped)
    browser.get((finemapped / "r.html").as_uri())
    browser.find_element("css selector", ".trait button").click()
    assert browser.find_element("id", "chosen").text == "Trait red cells: signed score"
    first = browser.find_elements("css selector", "#cells tbody td")[1].text
    signed = scores.cell_weight @ [1, 0, 0.5]
    assert first[1:] == f"{np.abs(signed).max():.3f}"
    assert browser.get_log("browser") == []


def test_what_can_not_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScbassetError, match="can't be written"):
        report.write_report(open_scores(folder / "s.zarr"), tmp_path / "file" / "report.html")
