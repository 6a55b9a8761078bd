from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest
from conftest import SHARED, random_dna, write_fasta, write_vcf
from hypothesis import given
from hypothesis import strategies as st

from scbasset_ism.errors import VariantError
from scbasset_ism.variants import Status, Variant, normalize

CHROM = "20"


def fetch_from(sequence: str):
    """A `fetch` that refuses to be asked past the ends."""

    def fetch(chrom: str, start: int, stop: int) -> str:
        assert chrom == CHROM
        assert 0 <= start < stop <= len(sequence)
        return sequence[start:stop]

    return fetch


def edited(sequence: str, variant: Variant) -> str:
    """The sequence with ALT in place of REF."""
    assert sequence[variant.start : variant.stop] == variant.ref
    return sequence[: variant.start] + variant.alt + sequence[variant.stop :]


@st.composite
def sequences_and_variants(draw: st.DrawFn) -> tuple[str, Variant]:
    """A repetitive sequence, and a variant somewhere in it, its ends included."""
    sequence = draw(st.text("AC", min_size=1, max_size=200))
    start = draw(st.integers(0, len(sequence)))
    stop = draw(st.integers(start, min(start + 8, len(sequence))))
    ref, alt = sequence[start:stop], draw(st.text("AC", max_size=8))
    return sequence, Variant(CHROM, start, ref, alt or ("" if ref else "A"))


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        pytest.param("chr20:1000226:A:G", Variant("chr20", 1000225, "A", "G"), id="snv"),
        pytest.param("20:1:a:acgt", Variant("20", 0, "A", "ACGT"), id="lower-case-insertion"),
        pytest.param("20:5::G", Variant("20", 4, "", "G"), id="no-anchor"),
        pytest.param("HLA-A*01:01:7:A:T", Variant("HLA-A*01:01", 6, "A", "T"), id="colon-in-name"),
    ],
)
def test_parse_reads_what_str_writes(text, variant):
    assert Variant.parse(text) == variant
    assert Variant.parse(str(variant)) == variant


@pytest.mark.parametrize(
    "text",
    ["", "20:5:A", "20:x:A:G", "20:-5:A:G", "20:0:A:G", "20:1_0:A:G", "20:5:A:<DEL>", "20:5:N:A",
     "20:5:A:*", "20:5::", ":5:A:G", "20-5-A-G", "20:5:A:A,G"],
)  # fmt: skip
def test_parse_refuses_and_shows_other_text(text):
    with pytest.raises(VariantError, match=r"\S") as error:
        Variant.parse(text)
    assert text in str(error.value)


def test_properties():
    snv, mnv, deletion = (Variant.parse(f"20:5:{alleles}") for alleles in ("A:G", "AC:GT", "AC:"))
    assert [v.stop for v in (snv, mnv, deletion)] == [5, 6, 6]
    assert [v.is_snv for v in (snv, mnv, deletion)] == [True, False, False]
    assert [v.is_substitution for v in (snv, mnv, deletion)] == [True, True, False]


def test_status_numbers_stay():
    assert [status.name for status in sorted(Status)] == [
        "SCORED", "REF_MISMATCH", "SYMBOLIC", "SPANNING_DELETION", "MISSING_ALT", "NON_ACGT",
        "CONTIG_MISSING", "OFF_CONTIG", "TOO_LONG", "FAILED", "INCOMPLETE",
    ]  # fmt: skip


#                        0123456789
SEQUENCE = "GGTATATACCAAAAAAT"


@pytest.mark.parametrize(
    ("written", "normalized"),
    [
        pytest.param("20:3:T:C", "20:3:T:C", id="snv"),
        pytest.param("20:2:GTA:GCA", "20:3:T:C", id="padded-snv"),
        pytest.param("20:3:TA:CC", "20:3:TA:CC", id="mnv"),
        pytest.param("20:3:TATA:CAGA", "20:3:TAT:CAG", id="mnv-trimmed"),
        pytest.param("20:8:A:AC", "20:9::C", id="insertion-at-its-place"),
        pytest.param("20:10:C:CC", "20:9::C", id="insertion-rolled"),
        pytest.param("20:6:ATA:A", "20:3:TA:", id="deletion-rolled-in-phase"),
        pytest.param("20:7:TA:", "20:3:TA:", id="deletion-without-anchor"),
        pytest.param("20:6:AT:", "20:3:TA:", id="deletion-rolled-out-of-phase"),
        pytest.param("20:17:T:AT", "20:11::A", id="anchor-after"),
        pytest.param("20:2:G:", "20:1:G:", id="to-the-first-base"),
        pytest.param("20:3::GG", "20:1::GG", id="insertion-before-the-first-base"),
        pytest.param("20:18::T", "20:17::T", id="insertion-after-the-last-base"),
        pytest.param("20:8:AC:GGG", "20:8:AC:GGG", id="delins"),
        pytest.param("20:3:TATA:TATA", "20:3:T:T", id="no-change"),
    ],
)
def test_normalize(written, normalized):
    assert str(normalize(Variant.parse(written), fetch_from(SEQUENCE))) == normalized


@given(sequences_and_variants())
def test_normalized_variant_gives_the_same_sequence(case):
    sequence, variant = case
    normalized = normalize(variant, fetch_from(sequence))
    assert edited(sequence, normalized) == edited(sequence, variant)
    assert normalize(normalized, fetch_from(sequence)) == normalized


@given(sequences_and_variants(), st.integers(0, 9), st.integers(0, 9))
def test_padding_makes_no_difference(case, n_left, n_right):
    sequence, variant = case
    start, stop = max(0, variant.start - n_left), min(variant.stop + n_right, len(sequence))
    left, right = sequence[start : variant.start], sequence[variant.stop : stop]
    padded = Variant(CHROM, start, left + variant.ref + right, left + variant.alt + right)
    if variant.ref != variant.alt:
        assert normalize(padded, fetch_from(sequence)) == normalize(variant, fetch_from(sequence))


@given(sequences_and_variants())
def test_every_place_of_an_indel_normalizes_to_the_first(case):
    sequence, variant = case
    n_bases = len(variant.ref) - len(variant.alt)
    if n_bases == 0:
        return
    mutant = edited(sequence, variant)
    places = []
    for start in range(len(sequence) + 1 - max(n_bases, 0)):
        ref = sequence[start : start + n_bases] if n_bases > 0 else ""
        alt = "" if n_bases > 0 else mutant[start : start - n_bases]
        candidate = Variant(CHROM, start, ref, alt)
        if edited(sequence, candidate) == mutant:
            places.append(candidate)
    # A delins has no such place.
    assert {normalize(place, fetch_from(sequence)) for place in places} <= set(places[:1])


def test_long_repeat_is_crossed():
    sequence = "C" + "A" * 1000 + "G"
    assert normalize(Variant.parse("20:1000:AA:"), fetch_from(sequence)) == Variant(
        CHROM, 1, "AA", ""
    )


def normalized_by_bcftools(vcf: Path, fasta: Path, out: Path) -> list[tuple[str | None, Variant]]:
    """What `bcftools norm` (the one inside pysam) makes of each ALT, without its anchor base."""
    pysam.bcftools.norm("-f", str(fasta), "-m-", "-o", str(out), str(vcf), catch_stdout=False)
    variants = []
    with pysam.VariantFile(str(out)) as records:
        for record in records:
            ref, alt, start = record.ref.upper(), record.alts[0].upper(), record.start
            while ref and alt and ref[-1] == alt[-1]:
                ref, alt = ref[:-1], alt[:-1]
            while ref and alt and ref[0] == alt[0]:
                ref, alt, start = ref[1:], alt[1:], start + 1
            variants.append((record.id, Variant(record.chrom, start, ref, alt)))
    return variants


def test_agrees_with_bcftools_on_random_variants(tmp_path):
    rng = np.random.default_rng(7)
    units = ("A", "AC", "ACG", "CCA", "T", "GATA", "TTTA")
    sequence = "".join(random_dna(3, i) + units[i % 7] * rng.integers(1, 9) for i in range(150))
    fasta = write_fasta(tmp_path / "repeats.fa", {CHROM: sequence})
    variants = {}
    while len(variants) < 1500:
        start, length = int(rng.integers(0, len(sequence) - 9)), int(rng.integers(1, 9))
        ref = sequence[start : start + length]
        near = int(rng.integers(0, 8))
        alt = ref[:1] + sequence[start + near : start + near + int(rng.integers(0, 6))]
        if ref != alt:
            variants[f"v{len(variants)}"] = Variant(CHROM, start, ref, alt)
    lines = [f"20 {v.start + 1} {name} {v.ref} {v.alt}" for name, v in variants.items()]
    vcf = write_vcf(tmp_path / "random.vcf", *lines, contigs={CHROM: len(sequence)})
    found = {name: normalize(v, fetch_from(sequence)) for name, v in variants.items()}
    assert found == dict(normalized_by_bcftools(vcf, fasta, tmp_path / "norm.vcf"))
    # Negative control: trimming alone would not do.
    n_rolled = sum(
        v.start > found[name].start and not found[name].is_substitution
        for name, v in variants.items()
    )
    assert n_rolled > 100


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real genome in ../shared")
@pytest.mark.parametrize(
    "name", ["1000G_chr20_1-4Mb_300samples.vcf.gz", "1000G_phase3_sites_chr20_1-2Mb.vcf.gz"]
)
def test_agrees_with_bcftools_on_real_variants(tmp_path, name):
    fasta = SHARED / "data/genome/GRCh37_20_22part_Xpart.fa.gz"
    vcf = tmp_path / "real.vcf"
    pysam.bcftools.view(
        "-G", "-V", "snps", "-e", 'ALT~"<"', "-o", str(vcf), str(SHARED / "data/vcf" / name),
        catch_stdout=False,
    )  # fmt: skip
    with pysam.FastaFile(str(fasta)) as file:
        sequence = file.fetch(CHROM, 0, 4_100_000).upper()
    with pysam.VariantFile(str(vcf)) as records:
        written = [
            (record.id, Variant(CHROM, record.start, record.ref, alt))
            for record in records
            for alt in record.alts
        ]
    found = {(name, normalize(variant, fetch_from(sequence))) for name, variant in written}
    assert found == set(normalized_by_bcftools(vcf, fasta, tmp_path / "norm.vcf"))
    assert len(found) > 800
