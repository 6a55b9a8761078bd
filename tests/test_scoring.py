"""Scores against the definition: edit the text, run the plain network twice, subtract."""

import hashlib
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from conftest import TINY_CONTIGS, write_fasta, write_vcf
from numpy.typing import NDArray

from scbasset_ism import scoring
from scbasset_ism.bases import encode
from scbasset_ism.delta import Deltas, Edits, Engine
from scbasset_ism.device import Scorer, on_device, pick_device
from scbasset_ism.errors import (
    DeviceError,
    GenomeError,
    ReferenceMismatchError,
    SelfCheckError,
    StoreError,
)
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset, one_hot
from scbasset_ism.scoring import ScoreOptions, sampled_rows, score_variants
from scbasset_ism.variants import Variant
from scbasset_ism.vcf import Scan

WINDOW = 1344
COMPLEMENT = str.maketrans("ACGTacgt", "TGCAtgca")
STATUSES = {
    "1 1001 snv {1001} {1001!}": "SCORED",
    "1 1100 mnv {1100+2} {1100!+2}": "SCORED",
    "1 1200 del {1200+4} {1200}": "SCORED",
    "1 1300 ins {1300} {1300}ACGTT": "SCORED",
    "1 1400 complex {1400+3} {1400!}": "SCORED",
    "1 3 edge {3} {3!}": "SCORED",
    "1 1500 multi {1500} {1500!},<DEL>,*": "SCORED SYMBOLIC SPANNING_DELETION",
    "1 1600 none {1600} .": "MISSING_ALT",
    "1 1601 letters {1601} R": "NON_ACGT",
    "9 5 contig A C": "CONTIG_MISSING",
    "2 4000 off A C": "OFF_CONTIG",
    "2 1500 del2 {2:1500+8} {2:1500}": "SCORED",
}


@pytest.fixture
def table(tmp_path: Path, tiny_sequences: dict[str, str]) -> Path:
    """A VCF with every kind of record."""
    return write_vcf(
        tmp_path / "v.vcf",
        *(fill(record, tiny_sequences) for record in STATUSES),
        contigs=TINY_CONTIGS | {"9": 100},
    )


def fill(record: str, sequences: dict[str, str]) -> str:
    """Put bases of the genome in: {[contig:]pos[!][+length]}, ! for other bases."""
    chrom = record.split()[0]
    while "{" in record:
        before, _, rest = record.partition("{")
        place, _, after = rest.partition("}")
        contig, _, place = place.rpartition(":")
        place, _, length = place.partition("+")
        start = int(place.rstrip("!")) - 1
        bases = sequences[contig or chrom][start : start + int(length or 1)].upper()
        if place.endswith("!"):
            bases = bases.translate(str.maketrans("ACGT", "CGTA"))
        record = before + bases + after
    return record


def plain_bottleneck(model: Scbasset, texts: list[str]) -> NDArray[np.float64]:
    codes = torch.from_numpy(np.stack([encode(text) for text in texts]))
    with torch.inference_mode():
        return model.eval().double().encode(one_hot(codes, torch.float64)).numpy()


def definition(
    model: Scbasset,
    sequence: str,
    line: str,
    shifts: tuple[int, ...] = (0,),
    *,
    rc: bool = False,
) -> NDArray[np.float64]:
    """Delta bottleneck by hand: trimmed alleles, edited text, both fillings of an indel."""
    _, pos, _, ref, alt = line.split()
    start = int(pos) - 1
    while ref[-1:] == alt[-1:] and ref and alt:
        ref, alt = ref[:-1], alt[:-1]
    while ref[:1] == alt[:1] and ref and alt:
        ref, alt, start = ref[1:], alt[1:], start + 1
    while not (ref and alt) and sequence[start - 1].upper() == (ref or alt)[-1]:  # left-align
        start -= 1
        ref, alt = (sequence[start].upper() + text[:-1] if text else "" for text in (ref, alt))
    padded = "N" * 3000 + sequence + "N" * 3000
    edited = padded[: start + 3000] + alt + padded[start + 3000 + len(ref) :]
    begin, moved = start + 3000 - WINDOW // 2, len(alt) - len(ref)
    deltas = []
    for shift in shifts:
        first = begin + shift
        texts = [padded[first:][:WINDOW], edited[first:][:WINDOW], edited[first + moved :][:WINDOW]]
        strands = [texts, [text[::-1].translate(COMPLEMENT) for text in texts]]
        for strand in strands[: 1 + rc]:
            h = plain_bottleneck(model, strand)
            deltas.append(h[1:].mean(0) - h[0])
    return np.mean(deltas, axis=0)


@pytest.mark.parametrize("batch_size", [1, 4, 14, 15, 256])
def test_every_kind_of_record(
    tmp_path: Path,
    table: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    batch_size: int,
) -> None:
    options = ScoreOptions(batch_size=batch_size, device="cpu")
    scores = score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    rows = scores.variants()
    assert rows["status"].tolist() == " ".join(STATUSES.values()).split()
    assert len(scores) == 14
    scored = (rows["status"] == "SCORED").to_numpy()
    assert np.isnan(scores.delta_logit[:, :]).all(1).tolist() == (~scored).tolist()
    assert scores.attributes["counts"]["SCORED"] == scored.sum() == 8
    delta = scores.delta_bottleneck[:]
    assert np.abs(delta[scored]).max(axis=1).min() > 1e-3
    row = 0
    for record, statuses in STATUSES.items():
        line = fill(record, tiny_sequences).replace(",<DEL>,*", "")
        if statuses.startswith("SCORED"):
            want = definition(tiny_model, tiny_sequences[line.split()[0]], line)
            np.testing.assert_allclose(delta[row], want, atol=1e-5, err_msg=line)
        row += len(statuses.split())
    logits = scores.delta_logit[:, :][scored]
    np.testing.assert_allclose(rows["delta_logit_mean"][scored], logits.mean(1), atol=1e-5)
    np.testing.assert_allclose(rows["delta_logit_sd"][scored], logits.std(1), atol=1e-5)


def test_the_reference_is_kept_too(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    base = tiny_sequences["1"][2999].upper()
    variants = [Variant("1", 2999, base, "C" if base != "C" else "G")]
    scores = score_variants(variants, tiny_genome, tiny_model, tmp_path / "s.zarr")
    want = plain_bottleneck(tiny_model, [tiny_sequences["1"][2999 - 672 :][:WINDOW]])
    np.testing.assert_allclose(scores.ref_bottleneck[:], want, atol=1e-5)


@pytest.mark.parametrize("shifts", [1, 3])
def test_shifts_are_averaged(
    tmp_path: Path,
    table: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    shifts: int,
) -> None:
    options = ScoreOptions(shifts=shifts)
    scores = score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    everywhere = tuple(range(-shifts, shifts + 1))
    for row, record in ((0, "1 1001 snv {1001} {1001!}"), (2, "1 1200 del {1200+4} {1200}")):
        line = fill(record, tiny_sequences)
        want = definition(tiny_model, tiny_sequences["1"], line, everywhere)
        np.testing.assert_allclose(scores.delta_bottleneck[row], want, atol=1e-5)
        aside = definition(tiny_model, tiny_sequences["1"], line, everywhere[:-1])
        assert np.abs(scores.delta_bottleneck[row] - aside).max() > 1e-4


def test_rc_averages_both_strands(
    tmp_path: Path,
    table: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
) -> None:
    options = ScoreOptions(rc=True, shifts=1)
    scores = score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    for row, record in (
        (0, "1 1001 snv {1001} {1001!}"),
        (1, "1 1100 mnv {1100+2} {1100!+2}"),
        (3, "1 1300 ins {1300} {1300}ACGTT"),
    ):
        line = fill(record, tiny_sequences)
        both, one = (
            definition(tiny_model, tiny_sequences["1"], line, (-1, 0, 1), rc=rc)
            for rc in (True, False)
        )
        np.testing.assert_allclose(scores.delta_bottleneck[row], both, atol=1e-5)
        assert np.abs(both - one).max() > 1e-3


class TestReferenceMismatch:
    @pytest.fixture
    def swapped(self, tmp_path: Path, tiny_sequences: dict[str, str]) -> Path:
        """Eleven right records, and one whose REF and ALT are exchanged."""
        right = [f"1 {pos} . {{{pos}}} {{{pos}!}}" for pos in range(1000, 1011)]
        records = [fill(record, tiny_sequences) for record in [*right, "1 1050 . {1050!} {1050}"]]
        return write_vcf(tmp_path / "swapped.vcf", *records)

    def test_skip(
        self, tmp_path: Path, swapped: Path, tiny_genome: Genome, tiny_model: Scbasset
    ) -> None:
        scores = score_variants(swapped, tiny_genome, tiny_model, tmp_path / "s.zarr")
        assert scores.attributes["counts"]["REF_MISMATCH"] == 1
        assert np.isnan(scores.delta_logit[11]).all()

    def test_flip_restores_the_sign(
        self,
        tmp_path: Path,
        swapped: Path,
        tiny_genome: Genome,
        tiny_model: Scbasset,
        tiny_sequences: dict[str, str],
    ) -> None:
        options = ScoreOptions(ref_mismatch="flip")
        scores = score_variants(
            swapped, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options
        )
        straight = fill("1 1050 . {1050} {1050!}", tiny_sequences)
        want = definition(tiny_model, tiny_sequences["1"], straight)
        np.testing.assert_allclose(scores.delta_bottleneck[11], -want, atol=1e-5)
        text = tiny_sequences["1"][1049 - 672 :][:WINDOW].upper()
        genome_h = plain_bottleneck(tiny_model, [text])[0]
        np.testing.assert_allclose(scores.ref_bottleneck[11], genome_h + want, atol=1e-5)

    def test_another_assembly_stops_the_run(
        self,
        tmp_path: Path,
        tiny_genome: Genome,
        tiny_model: Scbasset,
        tiny_sequences: dict[str, str],
    ) -> None:
        records = [f"1 {pos} . {{{pos}!}} {{{pos}}}" for pos in range(1000, 1002)]
        records += [f"1 {pos} . {{{pos}}} {{{pos}!}}" for pos in range(1002, 1019)]
        vcf = write_vcf(tmp_path / "v.vcf", *(fill(r, tiny_sequences) for r in records))
        with pytest.raises(ReferenceMismatchError, match="2 of the first 19 of 19 rows"):
            score_variants(vcf, tiny_genome, tiny_model, tmp_path / "s.zarr")
        records.append("1 1019 . {1019} {1019!}")
        vcf = write_vcf(tmp_path / "w.vcf", *(fill(r, tiny_sequences) for r in records))
        assert len(score_variants(vcf, tiny_genome, tiny_model, tmp_path / "w.zarr")) == 20


def test_no_variants_make_an_empty_store(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    vcf = write_vcf(tmp_path / "v.vcf")
    scores = score_variants(vcf, tiny_genome, tiny_model, tmp_path / "s.zarr")
    assert len(scores) == 0
    assert anndata.read_zarr(tmp_path / "s.zarr").shape == (0, 5)


def test_equal_variants_have_equal_scores(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    """One deletion in a repeat, written in four ways."""
    sequence = tiny_sequences["1"][:1000] + "GACACACACAG" + tiny_sequences["1"][1011:]
    genome = Genome(write_fasta(tmp_path / "repeat.fa", {"1": sequence}))
    writings = [
        "1 1001 . GAC G",
        "1 1003 . CAC C",
        "1 1002 . ACA A",
        "1 1001 . GACACACACAG GACACACAG",
    ]
    vcf = write_vcf(tmp_path / "v.vcf", *writings, contigs={"1": 6000})
    scores = score_variants(vcf, genome, tiny_model, tmp_path / "s.zarr")
    delta = scores.delta_bottleneck[:]
    assert np.abs(delta[0]).max() > 1e-3
    assert scores.variants()["window_start"].nunique() == 1
    np.testing.assert_allclose(delta, np.repeat(delta[:1], 4, axis=0), atol=1e-6)


def test_peak_windows(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    (tmp_path / "p.bed").write_text("chr1\t900\t1101\tpeak\n")
    places = (950, 1050, 3000)
    records = [fill(f"1 {pos} . {{{pos}}} {{{pos}!}}", tiny_sequences) for pos in places]
    vcf = write_vcf(tmp_path / "v.vcf", *records)
    options = ScoreOptions(peaks=str(tmp_path / "p.bed"))
    scores = score_variants(vcf, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    assert scores.variants()["peak"].tolist() == ["peak", "peak", ""]
    assert scores.variants()["window_start"].tolist() == [328, 328, 2999 - 672]
    reference = tiny_sequences["1"][328:][:WINDOW].upper()
    for row, (pos, record) in enumerate(zip(places[:2], records, strict=False)):
        offset = pos - 1 - 328
        alternate = reference[:offset] + record.split()[4] + reference[offset + 1 :]
        h = plain_bottleneck(tiny_model, [reference, alternate])
        np.testing.assert_allclose(scores.delta_bottleneck[row], h[1] - h[0], atol=1e-5)


def test_numbers_that_are_not_finite_fail_the_row(
    tmp_path: Path, table: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    with torch.no_grad():
        tiny_model.dense.weight[0, 0] = float("inf")
    scores = score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr")
    assert scores.attributes["counts"]["SCORED"] == 0
    assert scores.attributes["counts"]["FAILED"] == 8
    assert np.isnan(scores.delta_bottleneck[:]).all()


def test_the_model_is_left_as_it_was(
    tmp_path: Path, table: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    tiny_model.train()
    tiny_model.tower[2].eval()
    modes = [module.training for module in tiny_model.modules()]
    score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr")
    assert [module.training for module in tiny_model.modules()] == modes
    assert all(torch.equal(before[name], t) for name, t in tiny_model.state_dict().items())


def test_what_is_wrong_is_said_before_anything_is_written(
    tmp_path: Path, table: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    out = tmp_path / "s.zarr"
    alien = write_vcf(tmp_path / "alien.vcf", "scaffold_7 5 . A C", contigs={"scaffold_7": 100})
    with pytest.raises(GenomeError, match="no contig in common"):
        score_variants(alien, tiny_genome, tiny_model, out)
    with pytest.raises(DeviceError, match="device 'abacus'"):
        score_variants(table, tiny_genome, tiny_model, out, options=ScoreOptions(device="abacus"))
    assert not out.exists()
    score_variants(table, tiny_genome, tiny_model, out)
    with pytest.raises(StoreError, match="--overwrite"):
        score_variants(table, tiny_genome, tiny_model, out)
    again = score_variants(
        table, tiny_genome, tiny_model, out, options=ScoreOptions(overwrite=True)
    )
    assert len(again) == 14


def test_an_interrupted_run_is_unfinished(
    tmp_path: Path,
    table: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(self: Scorer, batch: object, check: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring.Scorer, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr")
    with pytest.raises(StoreError, match="unfinished"):
        scoring.open_scores(tmp_path / "s.zarr")


def test_devices(tiny_model: Scbasset) -> None:
    assert pick_device("cpu").type == "cpu"
    assert on_device(tiny_model, torch.device("cpu")) is tiny_model
    assert on_device(tiny_model, torch.device("meta")) is not tiny_model
    with pytest.raises(DeviceError, match="take auto or cpu"):
        pick_device("cuda:99")


def test_provenance(tmp_path: Path, table: Path, tiny_genome: Genome, tiny_model: Scbasset) -> None:
    scores = score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr")
    attributes = scores.attributes
    assert attributes["variants"]["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert attributes["genome"]["contig_md5"] == {n: tiny_genome.md5(n) for n in ("1", "2")}
    assert len(attributes["model"]["weights_sha256"]) == 64
    assert attributes["options"]["rc"] is False
    stored = anndata.read_zarr(scores.path).uns
    assert dict(zip(stored["contig_id"], stored["contig_length"], strict=True)) == TINY_CONTIGS


class TestSelfCheck:
    @pytest.mark.parametrize("batch_size", [4, 256])
    def test_every_run_checks_itself(
        self,
        tmp_path: Path,
        table: Path,
        tiny_genome: Genome,
        tiny_model: Scbasset,
        batch_size: int,
    ) -> None:
        options = ScoreOptions(batch_size=batch_size, shifts=1, rc=True)
        scores = score_variants(
            table, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options
        )
        check = scores.attributes["self_check"]
        assert check["edits"] == 4  # all rows are in the sample, and so many are substitutions
        assert 0 < check["relative_rms"] < 1e-4
        assert scores.attributes["options"]["precision"] == "float32"

    def test_an_engine_one_base_aside_stops_the_run(
        self,
        tmp_path: Path,
        table: Path,
        tiny_genome: Genome,
        tiny_model: Scbasset,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        right = Engine.__call__

        def aside(self: Engine, codes: torch.Tensor, edits: Edits) -> Deltas:
            return right(self, codes, Edits(edits.window, edits.offset + 1, edits.bases))

        monkeypatch.setattr(Engine, "__call__", aside)
        with pytest.raises(SelfCheckError, match="can't be trusted"):
            score_variants(table, tiny_genome, tiny_model, tmp_path / "s.zarr")

    def test_the_sample_is_of_the_file(self) -> None:
        scan = Scan("v.vcf", 1000, (), "ab" * 32)
        rows = sampled_rows(scan)
        assert len(set(rows.tolist())) == 64
        assert 0 <= rows.min() <= rows.max() < 1000
        assert rows.tolist() == sampled_rows(scan).tolist()
        assert rows.tolist() != sampled_rows(Scan("v.vcf", 1000, (), "cd" * 32)).tolist()
        assert sorted(sampled_rows(Scan("v.vcf", 3, (), "ab" * 32)).tolist()) == [0, 1, 2]
