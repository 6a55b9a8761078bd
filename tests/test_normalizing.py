"""Many files of variants become one VCF in which each variant stands once."""

import gzip

import pysam
import pysam.bcftools
import pytest
from click.testing import CliRunner
from conftest import write_vcf

from scbasset_ism import vcf
from scbasset_ism.cli import main
from scbasset_ism.errors import ExportError
from scbasset_ism.normalizing import normalize_files
from scbasset_ism.variants import Status


def other(base):
    return "C" if base != "C" else "G"


@pytest.fixture
def files(tmp_path, tiny_sequences):
    """A VCF in no order, a table of the same and more, and credible sets either way around."""
    one, two = (tiny_sequences[name].upper() for name in ("1", "2"))
    a, b, c = one[1000], one[1999], two[499]
    first = write_vcf(
        tmp_path / "a.vcf",
        f"2 500 rs3 {c} {other(c)}",
        f"1 1001 rs1 {a} {other(a)},{a}TT",
        "1 3001 . A <DEL>",
    )
    table = tmp_path / "b.tsv"
    rows = [("1", 1001, a, other(a)), ("1", 1, one[:3], one[:1]), ("1", 2000, b, other(b))]
    lines = ["chrom\tpos\tref\talt", *("\t".join(map(str, row)) for row in rows)]
    table.write_text("\n".join(lines) + "\n")
    sets = tmp_path / "sets.tsv"
    head = "trait\tchromosome\tposition\teffect_allele\tother_allele\tpip\tbeta"
    d = two[699]
    swapped = [("t", "2", 500, c, other(c), 0.5, 1), ("t", "chr2", 700, d, other(d), 0.5, 1)]
    odd = [("t", "2", 800, "N", "A", 0.5, 1)]
    lines = [head, *("\t".join(map(str, row)) for row in swapped + odd)]
    sets.write_text("\n".join(lines) + "\n")
    return [first, table], sets


def test_each_variant_once_in_order(tmp_path, files, tiny_genome, tiny_sequences):
    variants, sets = files
    out = tmp_path / "out.vcf.gz"
    counts = normalize_files(variants, tiny_genome, out, credible_sets=[sets])
    assert counts == {"SCORED": 8, "SYMBOLIC": 1, "NON_ACGT": 1, "WRITTEN": 6}
    records = list(vcf.read(out, tiny_genome))
    assert {record.status for record in records} == {Status.SCORED}
    kept = {record.variant for path in variants for record in vcf.read(path, tiny_genome)} - {None}
    two = tiny_sequences["2"].upper()
    found = {record.variant for record in records}
    assert kept < found
    assert [(v.chrom, v.start, v.ref) for v in found - kept] == [("2", 699, two[699])]
    places = [(record.chrom, record.pos) for record in records]
    assert places == sorted(places)
    assert [record.id for record in records].count("rs3") == 1
    with pysam.VariantFile(str(out)) as file:
        assert [record.pos for record in file.fetch("2", 0, 3000)] == [500, 700]


def test_a_base_is_added_to_empty_alleles(tmp_path, files, tiny_genome, tiny_sequences):
    variants, _ = files
    out = tmp_path / "out.vcf.gz"
    normalize_files(variants, tiny_genome, out)
    one = tiny_sequences["1"].upper()
    text = gzip.decompress(out.read_bytes()).decode()
    first = next(line for line in text.splitlines() if not line.startswith("#")).split("\t")
    pos, ref, alt = int(first[1]), first[3], first[4]
    assert ref == one[pos - 1 : pos - 1 + len(ref)]
    assert len(ref) - len(alt) == 2
    assert min(len(ref), len(alt)) == 1


def test_bcftools_finds_nothing_to_normalize(tmp_path, files, tiny_genome):
    variants, sets = files
    out = tmp_path / "out.vcf.gz"
    normalize_files(variants, tiny_genome, out, credible_sets=[sets])
    fasta = str(tiny_genome.path)
    normed = pysam.bcftools.norm("-c", "e", "-f", fasta, "--no-version", str(out))
    records = [line for line in normed.splitlines() if not line.startswith("#")]
    text = gzip.decompress(out.read_bytes()).decode()
    assert records == [line for line in text.splitlines() if not line.startswith("#")]


def test_outputs(tmp_path, files, tiny_genome):
    variants, _ = files
    with pytest.raises(ExportError, match=r"must end in \.vcf\.gz"):
        normalize_files(variants, tiny_genome, tmp_path / "out.vcf")
    normalize_files(variants, tiny_genome, tmp_path / "out.vcf.gz")
    with pytest.raises(ExportError, match="exists"):
        normalize_files(variants, tiny_genome, tmp_path / "out.vcf.gz")
    normalize_files(variants, tiny_genome, tmp_path / "out.vcf.gz", overwrite=True)


def test_command(tmp_path, files, tiny_fasta):
    variants, sets = files
    arguments = ["--genome", str(tiny_fasta), "-o", str(tmp_path / "out.vcf.gz")]
    given = [*map(str, variants), "--credible-sets", str(sets)]
    result = CliRunner().invoke(main, ["normalize", *given, *arguments])
    assert result.exit_code == 0, result.output
    assert "6 WRITTEN" in result.output
    result = CliRunner().invoke(main, ["normalize", *arguments])
    assert result.exit_code == 2
    result = CliRunner().invoke(main, ["normalize", str(tmp_path / "no.vcf"), *arguments])
    assert result.exit_code == 1
