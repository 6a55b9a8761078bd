"""Verify finds every damaged file and every wrong score, and nothing where all is well."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import random_dna, write_fasta, write_vcf
from fake_job import write as write_fake
from test_runs import flip
from test_scoring import STATUSES, fill

from scbasset_ism import store as store_module
from scbasset_ism.errors import StoreError
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.pipeline import RunOptions
from scbasset_ism.prediction import predict_regions, predict_sequences
from scbasset_ism.progress import seal_root
from scbasset_ism.reader import open_predictions, open_scores, read_rows
from scbasset_ism.scoring import ScoreOptions, score_variants
from scbasset_ism.verification import verify_files, verify_scores


@pytest.fixture
def out(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
) -> Path:
    """Scores of every kind of record; one has its alleles exchanged, two lie in a peak."""
    (tmp_path / "p.bed").write_text("1\t900\t1120\tpeak\n")
    lines = [fill(r, tiny_sequences) for r in [*STATUSES, "1 1700 . {1700!} {1700}"]]
    variants = write_vcf(tmp_path / "v.vcf", *lines, contigs={"1": 6000, "2": 3000, "9": 9})
    options = ScoreOptions(
        peaks=str(tmp_path / "p.bed"), rc=True, shifts=1, ref_mismatch="flip", batch_size=4
    )
    score_variants(variants, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    return tmp_path / "s.zarr"


def test_a_sound_store(out: Path, tiny_genome: Genome, tiny_model: Scbasset) -> None:
    found = verify_scores(out, tiny_genome, tiny_model)
    assert found.problems == []
    assert found.n_sampled == 9
    assert found.largest > 1e-2
    assert 0 < found.error < 1e-5
    assert verify_scores(out, tiny_genome, tiny_model, sample=4).n_sampled == 4
    assert verify_scores(out, tiny_genome, tiny_model, sample=0).n_sampled == 0


@pytest.mark.parametrize("change", ["sign", "rows", "scale"])
def test_wrong_numbers_with_right_checksums(
    out: Path, tiny_genome: Genome, tiny_model: Scbasset, change: str
) -> None:
    root = zarr.open_group(out, mode="r+")
    for name in ("obsm/delta_bottleneck", "X"):
        values = root[name][:]
        changed = {"sign": -values, "rows": np.roll(values, 1, axis=0), "scale": 1.01 * values}
        root[name][:] = changed[change]
    assert verify_scores(out, tiny_genome, tiny_model).problems


def test_x_that_is_not_the_product(out: Path, tiny_genome: Genome, tiny_model: Scbasset) -> None:
    root = zarr.open_group(out, mode="r+")
    root["X"][3, 2] = root["X"][3, 2] + 1e-3
    assert "are not W times" in verify_scores(out, tiny_genome, tiny_model).problems[0]


def test_another_model_or_genome(
    out: Path, tiny_genome: Genome, tiny_model: Scbasset, tmp_path: Path
) -> None:
    sealed = json.loads((out / "zarr.json").read_bytes())
    sealed["attributes"]["genome"]["contig_md5"]["1"] = "0"
    (out / "zarr.json").write_bytes(seal_root(json.dumps(sealed).encode()))
    with pytest.raises(StoreError, match=r"another 1 \(MD5 0\)"):
        verify_scores(out, tiny_genome, tiny_model)
    tiny_model.head.weight.data[0, 0] += 1
    with pytest.raises(StoreError, match="written with other weights"):
        verify_scores(out, tiny_genome, tiny_model)


class TestPredictions:
    @pytest.fixture
    def regions(self, tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset) -> Path:
        """Regions at an edge, on another name of the contig, and on none."""
        bed = tmp_path / "r.bed"
        bed.write_text("1\t1000\t1501\n7\t5\t6\nchr2\t1400\t1500\n1\t0\t10\n1\t2300\t2401\n")
        options = RunOptions(rc=True, shifts=1, batch_size=2)
        predict_regions(bed, tiny_genome, tiny_model, tmp_path / "p.zarr", options=options)
        return tmp_path / "p.zarr"

    def test_regions(self, regions: Path, tiny_genome: Genome, tiny_model: Scbasset) -> None:
        found = verify_scores(regions, tiny_genome, tiny_model)
        assert found.problems == []
        assert found.unchecked == ""
        assert found.n_sampled == 4
        assert found.largest > 1e-2
        assert 0 < found.error < 1e-5
        assert verify_scores(regions, tiny_genome, tiny_model, sample=3).n_sampled == 3
        with pytest.raises(StoreError, match="written with a genome: give its --genome"):
            verify_scores(regions, None, tiny_model)

    @pytest.mark.parametrize("change", ["rows", "scale"])
    def test_wrong_numbers_with_right_checksums(
        self, regions: Path, tiny_genome: Genome, tiny_model: Scbasset, change: str
    ) -> None:
        predictions, root = open_predictions(regions), zarr.open_group(regions, mode="r+")
        numbers = predictions.bottleneck[:]
        numbers = {"rows": numbers[[2, 1, 0, 3, 4]], "scale": 1.01 * numbers}[change]
        root["obsm/bottleneck"][:] = numbers
        root["X"][:] = numbers @ predictions.cell_weight.T + predictions.cells["intercept"].values
        problems = verify_scores(regions, tiny_genome, tiny_model).problems
        assert len(problems) == {"rows": 2, "scale": 4}[change]
        assert "row 0 (1:1000-1501): its score is off by" in problems[0]

    def test_another_genome_or_model(
        self, regions: Path, tiny_sequences: dict[str, str], tiny_model: Scbasset, tmp_path: Path
    ) -> None:
        other = tiny_sequences | {"2": random_dna(3000, 9)}
        genome = Genome(write_fasta(tmp_path / "other.fa", other))
        with pytest.raises(StoreError, match="written with another 2"):
            verify_scores(regions, genome, tiny_model)
        tiny_model.head.bias.data[0] += 1
        with pytest.raises(StoreError, match="written with other weights"):
            verify_scores(regions, genome, tiny_model)

    def test_sequences(self, tmp_path: Path, tiny_model: Scbasset) -> None:
        texts = {f"s{i}": random_dna(1344, i) for i in range(3)}
        fasta, out = write_fasta(tmp_path / "s.fa", texts), tmp_path / "p.zarr"
        predict_sequences(fasta, tiny_model, out, options=RunOptions(rc=True))
        found = verify_scores(out, None, tiny_model, sample=2)
        assert (found.n_sampled, found.problems, found.unchecked) == (2, [], "")
        fasta.write_text(fasta.read_text().replace("A", "C", 1))
        found = verify_scores(out, None, tiny_model)
        assert (found.n_sampled, found.problems) == (0, [])
        assert found.unchecked == f"{fasta} is not the file that it was"
        fasta.unlink()
        assert verify_scores(out, None, tiny_model).unchecked == f"{fasta} is not here"

    def test_a_sequence_stands_for_itself(self, tmp_path: Path, tiny_model: Scbasset) -> None:
        out = tmp_path / "p.zarr"
        predict_sequences(random_dna(1344), tiny_model, out, options=RunOptions(layout="factored"))
        assert verify_scores(out, None, tiny_model).n_sampled == 1
        root = zarr.open_group(out, mode="r+")
        root["obsm/bottleneck"][:] = root["obsm/bottleneck"][:] * 1.01
        assert len(verify_scores(out, None, tiny_model).problems) == 1


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Path]:
    before = store_module.SHARD_ROWS, store_module.CHUNK_ROWS
    write_fake(tmp_path / "fake.zarr")
    yield tmp_path / "fake.zarr"
    store_module.SHARD_ROWS, store_module.CHUNK_ROWS = before


DAMAGE: dict[str, Callable[[Path], object]] = {
    "data of X": lambda out: flip(out / "X/c/2/0", 5),
    "index of X": lambda out: flip(out / "X/c/2/0", -12),
    "checksum of an index": lambda out: flip(out / "X/c/2/0", -1),
    "data of a factor": lambda out: flip(out / "obsm/delta_bottleneck/c/2/0", 3),
    "index of a factor": lambda out: flip(out / "obsm/ref_bottleneck/c/2/0", -20),
    "text": lambda out: flip(out / "obs/variant_id/c/2", 9),
    "categories": lambda out: flip(out / "obs/status/categories/c/0", 9),
    "cells": lambda out: flip(out / "varm/cell_weight/c/0/0", 9),
    "truncated shard": lambda out: os.truncate(out / "X/c/2/0", 20),
    "deleted shard": lambda out: (out / "X/c/2/0").unlink(),
    "deleted text": lambda out: (out / "obs/variant_id/c/2").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(fake: Path, damage: str) -> None:
    assert verify_files(open_scores(fake)).problems == []
    DAMAGE[damage](fake)
    try:
        problems = verify_files(open_scores(fake)).problems
    except StoreError as error:  # what is read on opening
        problems = [str(error)]
    assert len(problems) == 1
    assert "the store is damaged" in problems[0]


@pytest.mark.parametrize(
    "name", ["obsm/delta_bottleneck/c/2/0", "obs/variant_id/c/2", "obs/variant_position/c/2"]
)
def test_reading_finds_it_too(fake: Path, name: str) -> None:
    def read() -> None:
        scores = open_scores(fake)
        scores.variants()
        scores.cell(3)

    read()
    whole = (fake / name).read_bytes()
    for harm in (lambda: (fake / name).unlink(), lambda: flip(fake / name, 6)):
        harm()
        with pytest.raises(StoreError, match="the store is damaged"):
            read()
        (fake / name).write_bytes(whole)


def test_every_bit_of_a_shard_matters(fake: Path) -> None:
    """Walks a whole shard: data, index and checksums."""
    path = fake / "obsm/delta_bottleneck/c/2/0"
    scores, whole = open_scores(fake), path.read_bytes()
    for place in range(len(whole)):
        flip(path, place)
        with pytest.raises(StoreError, match="the store is damaged"):
            read_rows(scores.delta_bottleneck, slice(16, 24))
        path.write_bytes(whole)
    assert len(scores.cell(0)) == 380


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda text: text.replace('"rc": false', '"rc": true'), id="option"),
        pytest.param(lambda text: text.replace("Z", "z"), id="nothing"),
        pytest.param(lambda text: text.replace('"crc32": "', '"crc32": "f'), id="checksum"),
        pytest.param(lambda text: text.replace('"crc32"', '"crc"'), id="no checksum"),
    ],
)
def test_the_attributes_of_the_root(fake: Path, harm: Callable[[str], str]) -> None:
    text = (fake / "zarr.json").read_text()
    (fake / "zarr.json").write_text(harm(text))
    problems = verify_files(open_scores(fake)).problems
    assert len(problems) == (harm(text) != text)
    assert all("attributes or metadata are not as they were written" in p for p in problems)


def test_other_metadata_than_the_roots(fake: Path) -> None:
    (fake / "obs/variant_id/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"variant_id: its metadata are not those of the root"):
        verify_files(open_scores(fake))
