"""Predictions against the plain network on text."""

from pathlib import Path

import anndata
import numpy as np
import pytest
from conftest import random_dna, write_fasta

from scbasset_ism.errors import GenomeError, SequenceError
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions
from scbasset_ism.prediction import predict_regions, predict_sequences


def write_bed(path: Path, *lines: str) -> Path:
    path.write_text("".join(line.replace(" ", "\t") + "\n" for line in lines))
    return path


@pytest.mark.parametrize("layout", ["dense", "factored"])
@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_regions(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    layout: str,
    batch_size: int,
) -> None:
    lines = ["1 1000 1501 a", "chr2 1400 1500", "1 0 10", "7 5 6", "2 3000 3010"]
    bed = write_bed(tmp_path / "r.bed", *lines)
    options = RunOptions(layout=layout, batch_size=batch_size)
    found = predict_regions(bed, tiny_genome, tiny_model, tmp_path / "p.zarr", options=options)
    table = found.rows()
    assert table["status"].tolist() == ["SCORED"] * 3 + ["CONTIG_MISSING", "OFF_CONTIG"]
    assert table.index.tolist() == ["a", "chr2:1400-1500", "1:0-10", "7:5-6", "2:3000-3010"]
    assert table["window_start"].tolist()[:3] == [1250 - 672, 1450 - 672, 5 - 672]
    texts = [
        tiny_sequences["1"][1250 - 672 :][:1344],
        tiny_sequences["2"][1450 - 672 :][:1344],
        "N" * 667 + tiny_sequences["1"][: 1344 - 667],
    ]
    want = tiny_model.predict(texts).numpy()
    np.testing.assert_allclose(found.logit[:3, :], want, atol=1e-5)
    assert np.isnan(found.logit[3:, :]).all()
    assert found.attributes["counts"]["SCORED"] == 3
    if layout == "dense":
        np.testing.assert_allclose(anndata.read_zarr(found.path).X[:3], want, atol=1e-5)


def test_views_are_averaged(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    bed = write_bed(tmp_path / "r.bed", "1 1000 1501")
    options = RunOptions(rc=True, shifts=1)
    found = predict_regions(bed, tiny_genome, tiny_model, tmp_path / "p.zarr", options=options)
    texts = [tiny_sequences["1"][1250 - 672 + shift :][:1344].upper() for shift in (-1, 0, 1)]
    texts += [text[::-1].translate(str.maketrans("ACGT", "TGCA")) for text in texts]
    each = tiny_model.predict(texts).numpy()
    np.testing.assert_allclose(found.logit[0], each.mean(0), atol=1e-5)
    assert np.abs(each[1] - each.mean(0)).max() > 1e-3


def test_sequences(tmp_path: Path, tiny_model: Scbasset) -> None:
    texts = {f"s{i}": random_dna(1344, i) for i in range(3)}
    fasta = write_fasta(tmp_path / "s.fa", texts)
    found = predict_sequences(fasta, tiny_model, tmp_path / "p.zarr", options=RunOptions())
    assert found.rows().index.tolist() == ["s0", "s1", "s2"]
    want = tiny_model.predict(list(texts.values())).numpy()
    np.testing.assert_allclose(found.logit[:, :], want, atol=1e-5)
    one = predict_sequences(texts["s1"], tiny_model, tmp_path / "q.zarr", options=RunOptions())
    np.testing.assert_allclose(one.logit[0], want[1], atol=1e-5)


def test_what_does_not_fit(tmp_path: Path, tiny_model: Scbasset, tiny_genome: Genome) -> None:
    out, options = tmp_path / "p.zarr", RunOptions()
    with pytest.raises(SequenceError, match="sequence has 4 bases and the model reads 1,344"):
        predict_sequences("ACGT", tiny_model, out, options=options)
    fasta = write_fasta(tmp_path / "s.fa", {"good": "A" * 1344, "long": "A" * 1345})
    with pytest.raises(SequenceError, match="long has 1,345 bases"):
        predict_sequences(fasta, tiny_model, out, options=options)
    with pytest.raises(SequenceError, match="leave out --shifts"):
        predict_sequences("A" * 1344, tiny_model, out, options=RunOptions(shifts=1))
    alien = write_bed(tmp_path / "r.bed", "scaffold_7 5 9")
    with pytest.raises(GenomeError, match="no contig in common"):
        predict_regions(alien, tiny_genome, tiny_model, out, options=options)
    assert not out.exists()
