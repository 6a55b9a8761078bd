"""Variants of several files as one sorted VCF in which each stands once: what is to be scored."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from scbasset_ism import vcf
from scbasset_ism.credible import read_credible_sets
from scbasset_ism.errors import ExportError
from scbasset_ism.genome import Genome, quiet_htslib
from scbasset_ism.outputs import bgzipped, try_to_index, written
from scbasset_ism.variants import Status, Variant, is_acgt


def normalize_files(
    variants: Sequence[str | Path],
    genome: Genome,
    out: str | Path,
    *,
    credible_sets: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> Counter[str]:
    """Write the variants of files, normalized, sorted and each once, as sites of a VCF.

    Args:
        variants: VCF, BCF, TSV or Parquet files.
        genome: Its contig names and their order are the output's.
        out: A bgzip VCF, `.vcf.gz`; it is indexed.
        credible_sets: Files that `finemap` takes. Which of two alleles is REF there is what the
            genome says.
        overwrite: Replace an existing output.

    Returns:
        Rows of each status; only those that can be scored are written, as `WRITTEN`.

    Raises:
        ScbassetError: A file can't be read, or the output can't be written.
    """
    out = Path(out)
    if not out.name.endswith(".vcf.gz"):
        raise ExportError(f"{out} must end in .vcf.gz: a VCF with bgzip is written")
    found, counts = dict[Variant, str](), Counter[str]()
    for record in _records(variants, credible_sets, genome, counts):
        counts[record.status.name] += 1
        if record.variant and found.get(record.variant, ".") == ".":
            found[record.variant] = record.id
    contigs = {name: number for number, name in enumerate(genome.contigs)}
    order = sorted(found, key=lambda v: (contigs[v.chrom], v.start, v.ref, v.alt))
    sites = sorted((_site(v, genome, found[v]) for v in order), key=lambda s: (contigs[s[0]], s[1]))
    with written(out, overwrite=overwrite) as path, quiet_htslib():
        with bgzipped(path) as file:
            for line in (
                *_header(genome),
                *("\t".join((*map(str, site), ".", ".", ".")) for site in sites),
            ):
                file.write(f"{line}\n".encode())
        try_to_index(path, preset="vcf")
    counts["WRITTEN"] = len(sites)
    return counts


def _records(
    variants: Sequence[str | Path],
    credible_sets: Sequence[str | Path],
    genome: Genome,
    counts: Counter[str],
) -> Iterator[vcf.Record]:
    for path in variants:
        yield from vcf.read(path, genome)
    for path in credible_sets:
        table = read_credible_sets(path)[["chrom", "pos", "other", "effect"]].drop_duplicates()
        is_known = (table["other"] + table["effect"]).map(is_acgt)
        counts[Status.NON_ACGT.name] += int((~is_known).sum())
        rows = table[is_known].itertuples(index=False, name=None)
        alleles = [Variant(chrom, pos - 1, other, effect) for chrom, pos, other, effect in rows]
        yield from vcf.read(alleles, genome, ref_mismatch="flip")


def _header(genome: Genome) -> Iterator[str]:
    yield "##fileformat=VCFv4.3"
    for name, length in genome.contigs.items():
        yield f"##contig=<ID={name},length={length}>"
    yield "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def _site(variant: Variant, genome: Genome, name: str) -> tuple[str, int, str, str, str]:
    """Give the first columns of a VCF; an empty allele gets the base before, else that behind."""
    start, ref, alt = variant.start, variant.ref, variant.alt
    if not (ref and alt) and start > 0:
        start -= 1
        base = genome.text(variant.chrom, start, start + 1)
        ref, alt = base + ref, base + alt
    elif not (ref and alt):
        base = genome.text(variant.chrom, variant.stop, variant.stop + 1)
        ref, alt = ref + base, alt + base
    return variant.chrom, start + 1, name, ref, alt
