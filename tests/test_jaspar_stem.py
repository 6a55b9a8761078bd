"""The example that begins a training with known motifs picks those that tell cells apart."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from scbasset_ism.bases import encode, reverse_complement
from scbasset_ism.model import one_hot
from scbasset_ism.recipe import Recipe

ROOT = Path(__file__).parents[1]
SITES = {
    "AP1": "TGACTCA",
    "GATA": "AGATAAG",
    "CTCF": "TGGCCACCAGGGGGCGCTA",  # longer than a kernel
    "SPI1": "AAAGAGGAAGTG",
    "NRF1": "TGCGCATGCGC",
    "HNF1": "GTTAATNATTAA",
}
_RNG = np.random.default_rng(0)
SITES |= {f"decoy{i}": "".join(_RNG.choice(list("ACGT"), 10)) for i in range(30)}


@pytest.fixture(scope="module")
def stem() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stem", ROOT / "examples/jaspar_stem.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def matrices(tmp_path: Path) -> Path:
    lines = []
    for i, (name, site) in enumerate(SITES.items()):
        lines.append(f">MA{i:04}.1\t{name}")
        for base in "ACGT":
            counts = " ".join("90" if x == base else "25" if x == "N" else "3" for x in site)
            lines.append(f"{base}  [ {counts} ]")
    (path := tmp_path / "jaspar.txt").write_text("\n".join(lines))
    return path


def test_motifs_match_their_sites_on_either_strand(stem: ModuleType, matrices: Path) -> None:
    names, kernels = stem.read_motifs(matrices, 17)
    assert names == list(SITES)
    assert kernels.shape == (len(SITES), 4, 17)
    np.testing.assert_allclose(kernels.sum(axis=1), 0, atol=1e-5)
    rng = np.random.default_rng(0)
    plain = rng.integers(0, 4, (1, 200), dtype=np.uint8)
    for i, site in enumerate(SITES.values()):
        planted = plain.copy()
        planted[0, 90 : 90 + len(site)] = encode(site.replace("N", "A"))
        both = np.concatenate([planted, reverse_complement(planted)])
        matches = stem.best_matches(both, kernels)[:, i]
        largest = kernels[i].max(axis=0).sum()
        np.testing.assert_allclose(matches, largest, rtol=1e-5)


def test_the_motifs_that_open_cells_are_picked(stem: ModuleType, matrices: Path) -> None:
    names, kernels = stem.read_motifs(matrices, 17)
    rng = np.random.default_rng(1)
    spans = rng.integers(0, 4, (600, 400), dtype=np.uint8)
    is_open = rng.random((600, 4)) < 0.5
    for cell, name in enumerate(["GATA", "SPI1"]):
        site, first = encode(SITES[name]), 150 + 50 * cell
        spans[is_open[:, cell], first : first + len(site)] = site
    examples = SimpleNamespace(
        split=SimpleNamespace(train=np.arange(600)),
        spans=spans,
        labels=lambda rows: is_open[rows].astype(np.float32),
    )
    assert {names[i] for i in stem.pick(examples, kernels, 2)} == {"GATA", "SPI1"}


def test_the_stem_holds_them_on_both_strands(stem: ModuleType, matrices: Path) -> None:
    _, kernels = stem.read_motifs(matrices, 17)
    model = stem.motif_stem(kernels[:6], Recipe(channels=16))
    weight = model.stem.conv.weight.detach()
    sizes = weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(sizes[:12], sizes[:1].expand(12))
    sequence = one_hot(torch.from_numpy(encode("C" * 40 + SITES["GATA"] + "C" * 40)[None]))
    assert model.stem.conv(sequence)[0, :12].amax(dim=1).argmax() == 1  # GATA, forward
