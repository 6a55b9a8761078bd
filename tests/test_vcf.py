import gzip
import hashlib
import io
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pandas as pd
import pysam
import pytest
from conftest import SHARED, random_dna, write_fasta, write_vcf

from scbasset_ism import vcf
from scbasset_ism.errors import ReferenceMismatchError, RegionError, VariantError
from scbasset_ism.genome import Genome
from scbasset_ism.variants import Status, Variant

CONTIGS = {"1": 6000, "2": 3000}


@pytest.fixture
def genome(tmp_path) -> Genome:
    """`1` begins ACGTACGTAA, has N from 20 to 30 and goes on at random; `2` is random."""
    first = "ACGTACGTAACCGGTTACGT" + "N" * 10 + random_dna(2970)
    folder = tmp_path / "genome"
    folder.mkdir()
    return Genome(write_fasta(folder / "g.fa", {"1": first, "2": random_dna(500, 2)}))


def statuses(records) -> list[str]:
    return [record.status.name for record in records]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param("1 1 . A G", "1:1:A:G", id="snv"),
        pytest.param("1 1 . a g", "1:1:A:G", id="lower-case"),
        pytest.param("chr1 1 . A G", "1:1:A:G", id="alias"),
        pytest.param("1 4 . TA CC", "1:4:TA:CC", id="mnv"),
        pytest.param("1 1 . ACGT GCGT", "1:1:A:G", id="padded"),
        pytest.param("1 10 . A AA", "1:9::A", id="insertion-rolled"),
        pytest.param("1 9 . AA A", "1:9:A:", id="deletion"),
        pytest.param("1 1 . A A", "1:1:A:A", id="no-change"),
        pytest.param("1 1 . A .", "MISSING_ALT", id="dot"),
        pytest.param("1 1 . A *", "SPANNING_DELETION", id="star"),
        pytest.param("1 1 . A <DEL>", "SYMBOLIC", id="symbolic"),
        pytest.param("1 1 . A <*>", "SYMBOLIC", id="gvcf-block"),
        pytest.param("1 1 . A G]2:17]", "SYMBOLIC", id="breakend"),
        pytest.param("1 1 . A [2:17[G", "SYMBOLIC", id="breakend-left"),
        pytest.param("1 1 . A G.", "SYMBOLIC", id="single-breakend"),
        pytest.param("1 1 . A .G", "SYMBOLIC", id="single-breakend-left"),
        pytest.param("1 1 . A R", "NON_ACGT", id="iupac"),
        pytest.param("1 1 . A AN", "NON_ACGT", id="n-in-alt"),
        pytest.param("1 21 . N A", "NON_ACGT", id="n-in-ref"),
        pytest.param("7 1 . A G", "CONTIG_MISSING", id="contig"),
        pytest.param("1 0 . A G", "OFF_CONTIG", id="telomere"),
        pytest.param(f"1 3000 . {random_dna(2970)[-1]} GGGG", None, id="last-base"),
        pytest.param("1 3001 . A G", "OFF_CONTIG", id="behind-the-end"),
        pytest.param(f"1 2999 . {'A' * 5} G", "OFF_CONTIG", id="over-the-end"),
        pytest.param("1 1 . C G", "REF_MISMATCH", id="ref"),
        pytest.param("1 1 . G A", "REF_MISMATCH", id="swapped"),
        pytest.param("1 21 . A G", "REF_MISMATCH", id="n-in-the-genome"),
        pytest.param("1 20 . TA G", "REF_MISMATCH", id="into-n"),
        pytest.param("1 1 . A A" + "G" * 200, "1:2::" + "G" * 200, id="200-bases"),
        pytest.param("1 1 . A A" + "G" * 201, "TOO_LONG", id="201-bases"),
        pytest.param(f"1 31 . {random_dna(300)} {random_dna(99)}", "TOO_LONG", id="deletion-201"),
        pytest.param(f"1 31 . {random_dna(300)} {random_dna(100)}", None, id="deletion-200"),
    ],
)
@pytest.mark.parametrize("suffix", ["vcf", "tsv"])
def test_every_alt_has_a_status(tmp_path, genome, record, expected, suffix):
    path = tmp_path / f"x.{suffix}"
    if suffix == "vcf":
        write_vcf(path, record, contigs={**CONTIGS, "7": 9, "chr1": 9})
    else:
        path.write_text("chrom\tpos\tid\tref\talt\n" + "\t".join(record.split()) + "\n")
    (found,) = vcf.read(path, genome)
    assert (found.record, found.alt_index, found.id, found.sign) == (0, 1, ".", 1)
    assert [found.chrom, str(found.pos), ".", found.ref, found.alt] == record.split()
    if found.variant is None:
        assert found.status.name == expected
    else:
        assert found.status == Status.SCORED
        assert expected in (str(found.variant), None)


def test_one_record_per_alt_in_file_order(tmp_path, genome):
    path = write_vcf(
        tmp_path / "x.vcf", "1 3 rs3 G T,*,GA,<DEL>", "1 2 rs2 C .", "2 1 . N A", contigs=CONTIGS
    )
    records = list(vcf.read(path, genome))
    assert [(r.record, r.alt_index, r.id, r.alt) for r in records] == [
        (0, 1, "rs3", "T"),
        (0, 2, "rs3", "*"),
        (0, 3, "rs3", "GA"),
        (0, 4, "rs3", "<DEL>"),
        (1, 1, "rs2", "."),
        (2, 1, ".", "A"),
    ]
    assert statuses(records) == [
        "SCORED", "SPANNING_DELETION", "SCORED", "SYMBOLIC", "MISSING_ALT", "NON_ACGT",
    ]  # fmt: skip
    assert records[2].variant == Variant("1", 3, "", "A")


# --- REF against the genome ---------------------------------------------------------------


def test_ref_mismatch_flip_swaps_where_the_genome_has_alt(tmp_path, genome):
    path = write_vcf(
        tmp_path / "x.vcf", "1 1 . G A", "1 1 . G T", "1 3 . GG G", "1 1 . A G", "1 21 . A G",
        contigs=CONTIGS,
    )  # fmt: skip
    assert statuses(vcf.read(path, genome)) == [
        "REF_MISMATCH", "REF_MISMATCH", "REF_MISMATCH", "SCORED", "REF_MISMATCH",
    ]  # fmt: skip
    flipped = list(vcf.read(path, genome, ref_mismatch="flip"))
    assert [(r.variant and str(r.variant), r.sign) for r in flipped] == [
        ("1:1:A:G", -1),
        (None, 1),
        ("1:3::G", -1),
        ("1:1:A:G", 1),
        (None, 1),
    ]
    assert (flipped[0].ref, flipped[0].alt) == ("G", "A")


def test_ref_mismatch_error_names_the_record(tmp_path, genome):
    path = write_vcf(tmp_path / "x.vcf", "1 1 rs1 A G", "1 3 rs3 T C", contigs=CONTIGS)
    records = vcf.read(path, genome, ref_mismatch="error")
    assert next(records).id == "rs1"
    with pytest.raises(ReferenceMismatchError, match=r"1:3 T>C \(rs3\): the genome has G; is .*fa"):
        next(records)


# --- Formats ------------------------------------------------------------------------------

ROWS = [("1", 1, "rs1", "A", "G"), ("1", 2, ".", "C", "T,*"), ("2", 900, "x", "A", "<INS>")]


def write_rows(path: Path, kind: str) -> Path:
    lines = ["\t".join(map(str, row)) for row in ROWS]
    table = "\n".join(["#CHROM\tPos\tid\tREF\talt", *lines]) + "\n"
    if kind in {"vcf", "vcf.gz", "bcf"}:
        made = write_vcf(path.with_name(f"made.{kind}"), *lines, contigs=CONTIGS)
        return made.rename(path)
    if kind == "gzip vcf":
        path.write_bytes(gzip.compress(write_rows(path.with_name("y"), "vcf").read_bytes()))
    elif kind == "bare bcf":
        made = write_rows(path.with_name("y"), "vcf")
        pysam.bcftools.view("-Ou", "-o", str(path), str(made), catch_stdout=False)
    elif kind == "tsv":
        path.write_text(table)
    elif kind == "windows tsv":
        path.write_bytes(b"\xef\xbb\xbf" + table.replace("\n", "\r\n").encode())
    elif kind == "gzip tsv":
        path.write_bytes(gzip.compress(table.encode()))
    elif kind == "parquet":
        frame = pd.DataFrame(ROWS, columns=["chrom", "pos", "id", "ref", "alt"])
        frame.insert(0, "beta", 0.5)
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize(
    "kind",
    ["vcf", "vcf.gz", "gzip vcf", "bcf", "bare bcf", "tsv", "windows tsv", "gzip tsv", "parquet"],
)
def test_formats_are_recognised_by_content(tmp_path, genome, kind):
    path = write_rows(tmp_path / "variants", kind)
    found = [(r.record, r.alt_index, r.chrom, r.pos, r.id, r.ref, r.alt, r.status.name)
             for r in vcf.read(path, genome)]  # fmt: skip
    assert found == [
        (0, 1, "1", 1, "rs1", "A", "G", "SCORED"),
        (1, 1, "1", 2, ".", "C", "T", "SCORED"),
        (1, 2, "1", 2, ".", "C", "*", "SPANNING_DELETION"),
        (2, 1, "2", 900, "x", "A", "<INS>", "SYMBOLIC"),
    ]
    scan = vcf.scan(path)
    assert (scan.name, scan.n_rows, scan.contigs) == (str(path), 4, ("1", "2"))
    assert scan.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_parquet_with_whole_numbers_as_contigs_and_no_id(tmp_path, genome):
    frame = pd.DataFrame({"ALT": ["G", None], "REF": ["A", "C"], "POS": [1, 2], "CHROM": [1, 1]})
    frame.to_parquet(tmp_path / "x.parquet")
    records = list(vcf.read(tmp_path / "x.parquet", genome))
    assert [(r.chrom, r.id, r.alt) for r in records] == [("1", ".", "G"), ("1", ".", ".")]
    assert statuses(records) == ["SCORED", "MISSING_ALT"]


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    path = write_rows(tmp_path / "x", "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(VariantError, match=r"pip install 'scbasset-ism\[parquet\]'"):
        vcf.scan(path)


def test_variants_given_as_such(genome):
    variants = [Variant.parse(text) for text in ("chr1:1:A:G", "1:10::A", "1:1:C:T", "8:1:C:T")]
    records = list(vcf.read(variants, genome))
    assert statuses(records) == ["SCORED", "SCORED", "REF_MISMATCH", "CONTIG_MISSING"]
    assert [str(r.variant) for r in records[:2]] == ["1:1:A:G", "1:9::A"]
    scan = vcf.scan(variants)
    assert (scan.n_rows, scan.contigs) == (4, ("chr1", "1", "8"))
    text = "chr1:1:A:G\n1:10::A\n1:1:C:T\n8:1:C:T\n"
    assert scan.sha256 == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("n_records", [0, 1, 1023, 1024, 1025, 2048])
def test_no_record_is_lost_between_batches(tmp_path, genome, n_records):
    lines = [f"1 {i + 1} v{i} A C" for i in range(n_records)]
    path = write_vcf(tmp_path / "x.vcf", *lines, contigs=CONTIGS)
    assert [r.id for r in vcf.read(path, genome)] == [f"v{i}" for i in range(n_records)]
    assert vcf.scan(path).n_rows == n_records


def test_a_vcf_names_its_reference(tmp_path):
    header = (
        "##reference=file:///data/hs37d5.fa\n##INFO=<ID=AC,Number=1,Type=Integer,Description=x>"
    )
    path = write_vcf(tmp_path / "x.vcf.gz", "1 1 . A G", header=header)
    assert vcf.reference(path) == "file:///data/hs37d5.fa"
    assert vcf.reference(write_vcf(tmp_path / "y.vcf")) is None
    assert vcf.reference(write_rows(tmp_path / "z", "tsv")) is None
    assert vcf.reference([Variant("1", 0, "A", "C")]) is None


VERSION = "##fileformat=VCFv4.2\n"
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(VERSION + COLUMNS, id="no-contigs"),
        pytest.param(VERSION + "##contig=<ID=2>\n" + COLUMNS, id="another-contig"),
        pytest.param(VERSION + "##contig=<ID=1,length=5>\n" + COLUMNS, id="contig-too-short"),
        pytest.param(COLUMNS, id="columns-only"),
    ],
)
def test_a_thin_header_is_enough(tmp_path, genome, capfd, header):
    path = tmp_path / "x.vcf"
    path.write_text(header + "1\t9\t.\tA\tG\t.\tlow\tX=1\n2\t1\t.\tA\t.\t.\t.\t.\n")
    assert vcf.scan(path).contigs == ("1", "2")
    assert statuses(vcf.read(path, genome)) == ["SCORED", "MISSING_ALT"]
    assert capfd.readouterr() == ("", "")


# --- What can be read only once -----------------------------------------------------------


def test_stdin_is_spooled(tmp_path, genome, monkeypatch):
    content = write_rows(tmp_path / "x", "bcf").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with vcf.spooled("-") as path:
        assert vcf.scan(path).sha256 == hashlib.sha256(content).hexdigest()
        assert len(list(vcf.read(path, genome))) == 4
    assert not path.exists()


def test_a_pipe_is_spooled_and_a_file_is_not(tmp_path):
    source = write_rows(tmp_path / "x", "tsv")
    variants = [Variant("1", 0, "A", "C")]
    for ordinary in (source, variants):
        with vcf.spooled(ordinary) as same:
            assert same is ordinary
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(source.read_bytes(),))
    writer.start()
    with vcf.spooled(pipe) as path:
        assert path.read_bytes() == source.read_bytes()
    writer.join()


# --- Regions ------------------------------------------------------------------------------

POSITIONS = [1, 50, 97, 99, 100, 101, 150, 200, 201, 900]
REGIONS = {
    "1": range(10**9),
    "chr1": range(10**9),
    "1:100": range(99, 100),
    "1:100-": range(99, 10**9),
    "chr1:100-200": range(99, 200),
    "1:1,00-2,00": range(99, 200),
    "1:202-899": range(201, 899),
    "3": range(0),
}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "tbi", "csi", "bcf", "bcf+csi", "no-contigs"])
def test_region_gives_what_overlaps_it(tmp_path, genome, kind, region):
    suffix = {"tbi": "vcf.gz", "csi": "vcf.gz", "bcf+csi": "bcf", "no-contigs": "vcf.gz"}
    lines = [f"1 {pos} v{pos} {'ACG' if pos % 2 else 'A'} T" for pos in POSITIONS]
    path = write_vcf(
        tmp_path / f"x.{suffix.get(kind, kind)}", *lines, "2 150 other A T",
        contigs={} if kind == "no-contigs" else {**CONTIGS, "3": 9},
    )  # fmt: skip
    if kind in suffix:
        pysam.tabix_index(str(path), preset="vcf" if suffix[kind] != "bcf" else "bcf",
                          csi=kind in {"csi", "bcf+csi"})  # fmt: skip
    expected = [
        f"v{pos}" for pos in POSITIONS
        if set(range(pos - 1, pos + (2 if pos % 2 else 0))) & set(REGIONS[region][:2000])
    ]  # fmt: skip
    records = list(vcf.read(path, genome, region=region))
    assert [r.id for r in records] == expected
    assert [r.record for r in records] == list(range(len(expected)))
    assert vcf.scan(path, region).n_rows == len(expected)


def test_region_uses_the_index(tmp_path, monkeypatch):
    lines = [f"1 {pos} . A T" for pos in POSITIONS]
    path = write_vcf(tmp_path / "x.vcf.gz", *lines, contigs=CONTIGS)
    fetched = []
    inner = vcf._fetched
    monkeypatch.setattr(vcf, "_fetched", lambda *args: fetched.append(inner(*args)) or fetched[-1])
    vcf.scan(path, "1:100-200")
    pysam.tabix_index(str(path), preset="vcf")
    vcf.scan(path, "1:100-200")
    os.utime(f"{path}.tbi", (1, 1))
    vcf.scan(path, "1:100-200")
    assert [records is not None for records in fetched] == [False, True, False]


@pytest.mark.parametrize(
    "region", ["", ":1-5", "1:", "1:x", "1:0-5", "1:9-5", "1:5-x", "1:-5", "1:5-6-7"]
)
def test_bad_regions_are_refused_and_shown(region):
    with pytest.raises(RegionError, match="is no region") as error:
        vcf.scan([Variant("1", 0, "A", "C")], region)
    assert repr(region) in str(error.value)


# --- Bad input ----------------------------------------------------------------------------


def many(folder: Path, kind: str) -> Path:
    lines = [f"1 {i + 1} v{i} A {random_dna(9, i)}" for i in range(9000)]
    return write_vcf(folder / f"x.{kind}", *lines, contigs=CONTIGS)


def cut(path: Path, n_bytes: int) -> Path:
    path.write_bytes(path.read_bytes()[:n_bytes])
    return path


def spoilt(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    return path


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "x"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


BAD = {
    "missing": (lambda d: d / "none.vcf", "can't be read: No such file"),
    "directory": (lambda d: d, "can't be read: Is a directory"),
    "empty": (lambda d: written(d, ""), "is empty"),
    "empty gzip": (lambda d: written(d, gzip.compress(b"")), "is empty"),
    "text": (lambda d: written(d, "hello world\n"), "is no VCF, BCF, Parquet or table"),
    "binary": (lambda d: written(d, bytes(range(256)) * 9), "is no VCF|can't decode"),
    "csv": (lambda d: written(d, "chrom,pos,ref,alt\n1,1,A,C\n"), "tab-separated"),
    "vcf without header": (lambda d: written(d, "1\t5\trs1\tA\tC\t.\t.\t.\n"), "it begins with"),
    "comments only": (lambda d: written(d, "##source=x\n"), "is no VCF"),
    "vcf without columns": (lambda d: written(d, VERSION + "1\t5\t.\tA\tC\n"), "#CHROM, POS"),
    "vcf of spaces": (lambda d: written(d, VERSION + COLUMNS + "1 5 . A C . . .\n"), "after 0"),
    "vcf with a short line": (
        lambda d: written(d, VERSION + COLUMNS + "1\t5\t.\tA\tC\t.\t.\t.\n1\t6\t.\n"),
        "after 1 records",
    ),
    "vcf with a bad pos": (
        lambda d: written(d, VERSION + COLUMNS + "1\tx\t.\tA\tC\t.\t.\t.\n"), "after 0 records",
    ),
    "vcf cut in a block": (lambda d: cut(many(d, "vcf.gz"), 30_000), "end marker"),
    "vcf cut between blocks": (lambda d: cut(many(d, "vcf.gz"), -28), "end marker"),
    "bcf cut in a block": (lambda d: cut(many(d, "bcf"), 30_000), "end marker"),
    "bcf cut between blocks": (lambda d: cut(many(d, "bcf"), -28), "end marker"),
    "vcf damaged": (lambda d: spoilt(many(d, "vcf.gz")), "damaged"),
    "bcf damaged": (lambda d: spoilt(many(d, "bcf")), "damaged"),
    "gzip cut": (
        lambda d: cut(written(d, gzip.compress(many(d, "vcf").read_bytes())), 30_000), "cut short",
    ),
    "gzip damaged at once": (lambda d: written(d, b"\x1f\x8b\x08" + b"x" * 99), "is damaged"),
    "tsv lacks columns": (lambda d: written(d, "chrom\tpos\tref\n"), "no column alt; it has"),
    "tsv has a column twice": (
        lambda d: written(d, "chrom\tpos\tref\talt\tPOS\n"), "more than one column pos",
    ),
    "tsv with a bad pos": (
        lambda d: written(d, "##x\nchrom\tpos\tref\talt\n1\t5\tA\tC\n\n1\t1e6\tA\tC\n"),
        "line 5: pos '1e6' is no position",
    ),
    "tsv with a short line": (
        lambda d: written(d, "chrom\tpos\tref\talt\n1\t5\tA\n"), "line 2: has 3 columns",
    ),
    "tsv cut": (
        lambda d: cut(written(d, gzip.compress(
            b"chrom\tpos\tref\talt\n" + many(d, "vcf").read_bytes()[200:])), 90),
        "is damaged after line ",
    ),
    "parquet cut": (lambda d: cut(write_rows(d / "x", "parquet"), 500), "row 0: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_have_one_sentence(tmp_path, capfd, genome, name):
    make, message = BAD[name]
    path = make(tmp_path)
    for reading in (vcf.scan, lambda p: list(vcf.read(p, genome))):
        with pytest.raises(VariantError, match=message) as error:
            reading(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_htslib_verbosity_is_put_back_even_between_records(tmp_path, genome):
    path = write_vcf(tmp_path / "x.vcf", "1 1 . A G", "1 2 . C G", contigs=CONTIGS)
    before = pysam.set_verbosity(2)
    try:
        records = vcf.read(path, genome)
        next(records)
        assert pysam.get_verbosity() == 2
    finally:
        pysam.set_verbosity(before)


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Peak of a process of its own, since htslib allocates outside Python."""
    small, large = (
        write_vcf(tmp_path / f"{n}.vcf", *[f"1 {i + 1} . A C" for i in range(n)], contigs=CONTIGS)
        for n in (2_000, 60_000)
    )
    code = (
        "import resource, sys; from scbasset_ism import vcf; vcf.scan(sys.argv[1]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = [
        int(subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
            .stdout)
        for path in (small, large)
    ]  # fmt: skip
    assert peaks[1] < peaks[0] * 1.05


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real data in ../shared")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1000G_chr20_1-4Mb_300samples.vcf.gz", {Status.SCORED: 24_990}),
        ("1000G_phase3_sites_chr20_1-2Mb.vcf.gz", {Status.SCORED: 29_120, Status.SYMBOLIC: 24}),
        ("ukbb_blood_finemap_PP001_chr20_22.vcf.gz", {Status.SCORED: 5_639}),
    ],
)
def test_real_files(name, expected):
    genome = Genome(SHARED / "data/genome/GRCh37_20_22part_Xpart.fa.gz")
    path = SHARED / "data/vcf" / name
    assert Counter(record.status for record in vcf.read(path, genome)) == expected
    assert vcf.scan(path).n_rows == sum(expected.values())
