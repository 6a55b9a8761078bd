import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pysam
import pytest
from conftest import SHARED, random_dna, write_fasta

from scbasset_ism import genome as genome_module
from scbasset_ism.bases import decode
from scbasset_ism.errors import GenomeError
from scbasset_ism.genome import Genome


@pytest.fixture(params=[1, 10**9], ids=["loaded", "from-the-file"])
def patience(request, monkeypatch) -> int:
    monkeypatch.setattr(genome_module, "PATIENCE", request.param)
    return request.param


def padded(sequence: str, start: int, stop: int) -> str:
    return "".join(
        sequence[i].upper() if 0 <= i < len(sequence) else "N" for i in range(start, stop)
    )


@pytest.mark.parametrize("name", ["plain.fa", "bgzip.fa.gz"])
def test_codes_at_every_start_are_the_text(tmp_path, patience, name):
    sequence = random_dna(130, 3) + "nnRYacgt" + random_dna(40, 4)
    genome = Genome(write_fasta(tmp_path / name, {"a": random_dna(90), "b": sequence}))
    expected = sequence.replace("R", "N").replace("Y", "N")
    for length in (0, 1, 7, len(sequence), len(sequence) + 5):
        for start in range(-length - 2, len(sequence) + 3):
            codes = genome.codes("b", start, start + length)
            assert codes.shape == (length,)
            assert codes.dtype == np.uint8
            assert decode(codes) == padded(expected, start, start + length)
    assert genome.text("b", -2, 3) == "NN" + sequence[:3]


def test_a_loaded_contig_is_a_view_that_cannot_be_spoilt(tiny_genome, patience):
    codes = tiny_genome.codes("2", 10, 20)
    if patience == 1:
        with pytest.raises(ValueError, match="read-only"):
            codes[0] = 0


def test_a_contig_larger_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(genome_module, "PATIENCE", 1)
    monkeypatch.setattr(genome_module, "_BLOCK", 64)
    for length in (63, 64, 65, 200):
        sequence = random_dna(length, length)
        genome = Genome(write_fasta(tmp_path / f"{length}.fa", {"a": sequence}))
        assert genome.text("a", 0, length) == sequence
        assert genome.md5("a") == hashlib.md5(sequence.encode()).hexdigest()


def test_only_a_contig_asked_for_in_a_row_is_loaded(tiny_genome, tiny_sequences, monkeypatch):
    monkeypatch.setattr(genome_module, "PATIENCE", 4)
    for start in range(50):  # in random order nothing is loaded
        for chrom in ("1", "2"):
            assert tiny_genome.text(chrom, start, start + 9) == tiny_sequences[chrom][start:][:9]
    assert tiny_genome._loaded[0] == ""
    for _ in range(4):
        tiny_genome.codes("2", 0, 5)
    assert tiny_genome._loaded[0] == "2"
    for start in range(3):  # the other one is read from the file meanwhile
        assert tiny_genome.text("1", start, start + 9) == tiny_sequences["1"][start:][:9]
    assert tiny_genome._loaded[0] == "2"
    tiny_genome.codes("1", 0, 5)
    assert tiny_genome._loaded[0] == "1"
    assert len(tiny_genome._loaded[1]) == tiny_genome.contigs["1"]


def test_md5_is_that_of_the_upper_case_sequence_other_letters_included(tmp_path, patience):
    genome = Genome(write_fasta(tmp_path / "x.fa", {"a": "acgtRYn", "b": "ACGT", "c": "A"}))
    assert genome.md5s == {}
    genome.codes("a", 0, 3)
    genome.codes("b", -9, -1)  # nothing of it
    assert genome.md5s == {"a": hashlib.md5(b"ACGTRYN").hexdigest()}
    assert genome.md5("c") == hashlib.md5(b"A").hexdigest()


@pytest.mark.parametrize(
    ("contigs", "name", "own"),
    [
        pytest.param(["20", "MT"], "20", "20", id="exact"),
        pytest.param(["20", "MT"], "chr20", "20", id="prefix-in-the-file"),
        pytest.param(["chr20", "chrM"], "20", "chr20", id="prefix-in-the-genome"),
        pytest.param(["20", "MT"], "chrM", "MT", id="chrM-to-MT"),
        pytest.param(["chr20", "chrM"], "MT", "chrM", id="MT-to-chrM"),
        pytest.param(["20", "M"], "MT", "M", id="MT-to-M"),
        pytest.param(["20", "chr20"], "chr20", "chr20", id="both-exact-wins"),
        pytest.param(["chrM", "chrMT"], "MT", None, id="two-candidates"),
        pytest.param(["20", "MT"], "chr2", None, id="none"),
        pytest.param(["20", "MT"], "", None, id="empty"),
    ],
)
def test_resolve(tmp_path, contigs, name, own):
    genome = Genome(write_fasta(tmp_path / "x.fa", dict.fromkeys(contigs, "ACGT")))
    assert genome.resolve(name) == own


def test_check_contigs(tiny_genome):
    assert tiny_genome.check_contigs([], "x.vcf") == ""
    assert tiny_genome.check_contigs(["1", "GL000207.1"], "x.vcf") == ""
    assert tiny_genome.check_contigs(["chr1", "2", "chrM"], "x.vcf") == (
        "x.vcf: in the genome chr1 is 1, chrM is MT"
    )
    with pytest.raises(GenomeError, match=r"x\.vcf.*chr7, chr8 against 1, 2, MT"):
        tiny_genome.check_contigs(["chr7", "chr8"], "x.vcf")


def test_unknown_contig(tiny_genome):
    with pytest.raises(GenomeError, match=r"no contig '7'.*1, 2, MT"):
        tiny_genome.codes("7", 0, 5)


@pytest.mark.parametrize("name", ["a.fa", "a.fa.gz"])
def test_index_is_built_beside_the_file(tmp_path, name):
    path = write_fasta(tmp_path / name, {"a": "ACGTACGT"})
    Genome(path)
    built = {"a.fa.fai"} if name == "a.fa" else {"a.fa.gz.fai", "a.fa.gz.gzi"}
    assert {p.name for p in tmp_path.iterdir()} == {name} | built


@pytest.mark.parametrize("name", ["a.fa", "a.fa.gz"])
def test_index_is_built_in_the_cache_where_the_folder_is_read_only(tmp_path, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    folder = tmp_path / "genomes"
    folder.mkdir()
    path = write_fasta(folder / name, {"a": "ACGTACGT"})
    assert Genome(path).text("a", 2, 5) == "GTA"
    assert [p.name for p in folder.iterdir()] == [name]
    cached = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache/scbasset-ism").iterdir()}
    assert len(cached) == (1 if name == "a.fa" else 2)
    Genome(path)
    assert {p: p.stat().st_mtime_ns for p in cached} == cached


def test_an_index_older_than_the_fasta_is_left_alone_and_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_fasta(tmp_path / "a.fa", {"a": "ACGTACGT"})
    Genome(path)
    index = Path(f"{path}.fai")
    before = index.read_text()
    write_fasta(path, {"longer-name": "TTTTACGTAC"})
    os.utime(index, (1, 1))
    assert Genome(path).text("longer-name", 0, 10) == "TTTTACGTAC"
    assert index.read_text() == before


def index_of_another(folder: Path) -> Path:
    path = write_fasta(folder / "a.fa", {"a": random_dna(500)})
    Genome(path)
    write_fasta(path, {"x": random_dna(100), "y": random_dna(300)})
    os.utime(f"{path}.fai")
    return path


def cut(folder: Path, name: str, n_bytes: int, *, indexed: bool) -> Path:
    path = write_fasta(folder / name, {"a": random_dna(300_000)})
    if indexed:
        Genome(path)
    path.write_bytes(path.read_bytes()[:n_bytes])
    for index in folder.glob(f"{name}.*"):
        os.utime(index)
    return path


def written(folder: Path, content: bytes) -> Path:
    path = folder / "x.fa"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda d: d / "none.fa", "can't be read: No such file", id="missing"),
        pytest.param(lambda d: d, "can't be read: Is a directory", id="directory"),
        pytest.param(lambda d: written(d, b""), "is empty", id="empty"),
        pytest.param(lambda d: written(d, b"hello\n"), "no FASTA: it begins", id="text"),
        pytest.param(lambda d: written(d, b"@r\nA\n+\nI\n"), "no FASTA: it begins", id="fastq"),
        pytest.param(lambda d: written(d, b">a\nACG\nA\nACG\n"), "unequal length", id="ragged"),
        pytest.param(lambda d: written(d, gzip.compress(b">a\nA\n")), "with bgzip", id="gzip"),
        pytest.param(lambda d: cut(d, "a.fa.gz", 40_000, indexed=False), "cut short", id="cut-gz"),
        pytest.param(lambda d: cut(d, "a.fa.gz", -28, indexed=True), "end marker", id="no-eof"),
        pytest.param(lambda d: cut(d, "a.fa", 40_000, indexed=True), "not what its", id="cut"),
        pytest.param(index_of_another, "delete the index", id="index-of-another-file"),
    ],
)
def test_bad_files_have_one_sentence(tmp_path, capfd, make, message):
    path = make(tmp_path)
    with pytest.raises(GenomeError, match=message) as error:
        Genome(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_header_inside_a_contig_shows_a_wrong_index(tmp_path, monkeypatch):
    path = write_fasta(tmp_path / "a.fa", {"a": random_dna(600)})
    Genome(path)
    write_fasta(path, {"a": random_dna(300), "b": random_dna(298)})  # the same size
    os.utime(f"{path}.fai")
    genome = Genome(path)
    with pytest.raises(GenomeError, match="not what its index"):
        genome.md5("a")


def test_htslib_verbosity_is_put_back(tiny_fasta):
    before = pysam.set_verbosity(2)
    try:
        Genome(tiny_fasta).codes("1", 0, 10)
        assert pysam.get_verbosity() == 2
    finally:
        pysam.set_verbosity(before)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the real genome in ../shared")
def test_real_chromosome(monkeypatch):
    monkeypatch.setattr(genome_module, "PATIENCE", 1)
    genome = Genome(SHARED / "data/genome/GRCh37_20_22part_Xpart.fa.gz")
    assert genome.contigs["20"] == 63_025_520
    assert genome.text("20", 1_000_225, 1_000_226) == "A"
    assert genome.md5s == {"20": "0dec9660ec1efaaf33281c0d5ea2560f"}
