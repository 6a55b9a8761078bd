"""The commands that write files: of variants to score, and of scores for other tools."""

import logging
import signal
from pathlib import Path

import click

from scbasset_ism.cli_options import (
    genome_option,
    open_genome,
    overwrite_option,
    quiet_option,
    use_threads,
)

log = logging.getLogger(__name__)


@click.command()
@click.argument("store")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="What the name ends in decides: .tsv, .tsv.gz or .tsv.bgz (bgzip, tabix index), .parquet, "
    ".vcf.gz, .bcf, .annot.gz (S-LDSC) or .annot.parquet (PolyFun).",
)
@click.option(
    "--by",
    metavar="COLUMN",
    help="Means over the groups that a column of the cells' table makes; cell_id: every cell.",
)
@click.option(
    "--cells",
    metavar="IDS",
    help="Single cells: ids with commas between, or a file with one a line. "
    "Default: the mean over all cells.",
)
@click.option(
    "--vcf", type=click.Path(), help="VCF that was scored. Default: the one that the store names."
)
@click.option(
    "--prefix",
    default="scbasset",
    show_default=True,
    help="Of the ids of the INFO fields in .vcf.gz and .bcf.",
)
@click.option(
    "--bim",
    type=click.Path(),
    help="Plink file whose rows .annot.gz and .annot.parquet have, in its order.",
)
@click.option(
    "--allow-missing",
    is_flag=True,
    help="Rows of the .bim without a score are 0 and counted, and no error.",
)
@overwrite_option
@quiet_option
def export(
    store: str,
    output: str,
    by: str | None,
    cells: str | None,
    vcf: str | None,
    prefix: str,
    bim: str | None,
    allow_missing: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the delta logits of STORE as a file that other tools take.

    STORE is what `score` wrote. Single cells or means over groups of them.
    """
    from scbasset_ism import exporting

    use_threads(None, quiet=quiet)
    # Nothing is gone on with, and an interrupt must remove what was begun.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = exporting.ExportOptions(
        by=by,
        cells=_ids(cells),
        vcf=vcf,
        prefix=prefix,
        bim=bim,
        allow_missing=allow_missing,
        overwrite=overwrite,
    )
    counts = exporting.export(store, output, options=options)
    for status, count in counts.items():
        log.info("%12s %s", f"{count:,}", status)
    log.info("%12s rows in %s", f"{sum(counts.values()):,}", output)


@click.command()
@click.argument("variants", nargs=-1)
@click.option(
    "--credible-sets",
    multiple=True,
    type=click.Path(),
    help="File that `finemap` takes; may be repeated. The genome says which allele is REF.",
)
@genome_option
@click.option("-o", "--output", required=True, type=click.Path(), help="VCF, .vcf.gz (bgzip).")
@overwrite_option
def normalize(
    variants: tuple[str, ...],
    credible_sets: tuple[str, ...],
    genome: str | None,
    output: str,
    overwrite: bool,
) -> None:
    """Write the variants of files VARIANTS and of credible sets as one VCF, sorted, each once.

    VARIANTS are files as in `score`. Variants are trimmed and left-aligned; those that can't be
    scored are left out and counted.
    """
    if not (variants or credible_sets):
        raise click.UsageError("give files of variants, or --credible-sets")
    from scbasset_ism.normalizing import normalize_files

    counts = normalize_files(
        variants,
        open_genome(genome),
        output,
        credible_sets=credible_sets,
        overwrite=overwrite,
    )
    for status, count in counts.items():
        if count:
            log.info("%12s %s", f"{count:,}", status)
    log.info("%s", output)


def _ids(cells: str | None) -> list[str] | None:
    """Read ids of cells, from a file where there is one of that name."""
    if cells is None:
        return None
    is_file = len(cells) < 256 and Path(cells).is_file()
    ids = Path(cells).read_text().splitlines() if is_file else cells.split(",")
    return [name for name in map(str.strip, ids) if name]
