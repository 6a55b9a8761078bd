"""Builders of small inputs, and the fixtures that several modules share."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pysam
import pysam.bcftools
import pytest

from scbasset_ism.genome import Genome
from scbasset_ism.model import Config, Scbasset, random_model

SHARED = Path(__file__).parents[1].parent / "shared"
TINY_CONTIGS = {"1": 6000, "2": 3000, "MT": 700}


def random_dna(length: int, seed: int = 0) -> str:
    """Upper-case bases, the same for the same seed."""
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), length))


def write_fasta(path: Path, contigs: Mapping[str, str], width: int = 60) -> Path:
    """A FASTA file; bgzip where the name ends in .gz. No index."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    with plain.open("w") as file:
        for name, sequence in contigs.items():
            lines = [sequence[i : i + width] for i in range(0, len(sequence), width)]
            file.write("\n".join([f">{name}", *lines]) + "\n")
    if plain != path:
        pysam.tabix_compress(str(plain), str(path), force=True)
        plain.unlink()
    return path


def write_vcf(
    path: Path, *records: str, contigs: Mapping[str, int] = TINY_CONTIGS, header: str = ""
) -> Path:
    """A VCF of records written as "chrom pos id ref alt", the rest being dots.

    The end of the name decides: .vcf, .vcf.gz (bgzip), .bcf. No index. `header` adds ## lines.
    """
    lines = ["##fileformat=VCFv4.2"]
    lines += [f"##contig=<ID={name},length={length}>" for name, length in contigs.items()]
    lines += [*header.splitlines(), "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"]
    lines += ["\t".join([*record.split(), ".", ".", "."]) for record in records]
    text = "\n".join(lines) + "\n"
    if path.suffix == ".vcf":
        path.write_text(text)
        return path
    plain = path.with_name(path.name + ".vcf")
    plain.write_text(text)
    if path.suffix == ".bcf":
        pysam.bcftools.view("-Ob", "-o", str(path), str(plain), catch_stdout=False)
    else:
        pysam.tabix_compress(str(plain), str(path), force=True)
    plain.unlink()
    return path


@pytest.fixture(scope="session")
def tiny_sequences() -> dict[str, str]:
    """Contig "1" has a lower-case part and a run of N, "2" and "MT" are plain."""
    bases = {name: random_dna(length, i) for i, (name, length) in enumerate(TINY_CONTIGS.items())}
    first = bases["1"]
    bases["1"] = first[:2000] + first[2000:2400].lower() + "N" * 100 + first[2500:]
    return bases


@pytest.fixture(scope="session")
def tiny_fasta(tmp_path_factory: pytest.TempPathFactory, tiny_sequences: dict[str, str]) -> Path:
    return write_fasta(tmp_path_factory.mktemp("genome") / "tiny.fa", tiny_sequences)


@pytest.fixture
def tiny_genome(tiny_fasta: Path) -> Genome:
    """Contigs "1" (6,000), "2" (3,000) and "MT" (700): `tiny_sequences` has the text."""
    return Genome(tiny_fasta)


TINY_CONFIG = Config(
    n_cells=5,
    stem_channels=6,
    tower_channels=(7, 8, 9, 10, 11, 12),
    pointwise_channels=4,
    bottleneck=3,
)


@pytest.fixture
def tiny_model() -> Scbasset:
    """5 cells, bottleneck 3, the window of the publication; variants have large effects."""
    return random_model(TINY_CONFIG)
