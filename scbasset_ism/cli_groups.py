"""The commands that ask groups of cells."""

import logging
from typing import Any

import click

from scbasset_ism.cli_options import background_option, open_genome, quiet_option, use_threads

log = logging.getLogger(__name__)

obs_option = click.option(
    "--obs",
    type=click.Path(exists=True),
    metavar="ANNDATA",
    help="AnnData (.h5ad or Zarr) whose obs has the columns, matched by cell id.",
)


@click.command()
@click.argument("store")
@click.option("--by", metavar="COLUMN", help="Groups: the cells with the same value there.")
@click.option("--axis", metavar="COLUMN", help="Slopes along these numbers, such as pseudotime.")
@click.option(
    "--query",
    metavar="EXPRESSION",
    help="Only these cells, as \"cell_type == 'B cell'\" (pandas); alone, one group of them.",
)
@obs_option
@background_option
@click.option("--top", type=click.IntRange(1), metavar="N", help="Only the N top groups of each.")
@click.option(
    "-o",
    "--output",
    default="-",
    type=click.Path(),
    help="TSV, .tsv.gz or .parquet; default: TSV to standard output.",
)
@quiet_option
def groups(
    store: str,
    by: str | None,
    axis: str | None,
    query: str | None,
    obs: str | None,
    background: str | None,
    top: int | None,
    output: str,
    quiet: bool,
) -> None:
    """Print what the variants of STORE do in groups of cells, or along an axis.

    One row per scored variant and group: mean, SD and share of signs over the group's cells, and
    how specific the variant is.
    """
    if (by and axis) or not (by or axis or query):
        raise click.UsageError("which cells? give one of --by COLUMN and --axis COLUMN, or --query")
    if axis and top:
        raise click.UsageError("--top is of groups; an axis has none")
    from scbasset_ism.calibration import open_background
    from scbasset_ism.groups import Groups, choose_labels, tabulate_groups, tabulate_slopes
    from scbasset_ism.reader import open_scores
    from scbasset_ism.tables import write_table

    use_threads(None, quiet=quiet)
    scores = open_scores(store)
    if left_out := len(scores) - scores.attributes["counts"].get("SCORED", 0):
        log.info("%s rows of %s have no score and are left out", f"{left_out:,}", store)
    labels = choose_labels(scores, by or axis, query=query, obs=obs)
    compared = open_background(background, scores) if background else None
    if axis:
        blocks = tabulate_slopes(scores, labels, background=compared)
    else:
        blocks = tabulate_groups(scores, Groups.of(labels), background=compared, top=top)
    write_table(blocks, output)


@click.command()
@click.argument("store")
@click.argument("credible_sets", nargs=-1, required=True)
@click.option("--by", metavar="COLUMN", help="Scores of groups too: the cells with the same value.")
@obs_option
@background_option
@click.option(
    "--genome", help="Where GC is read that controls are matched on; default: the store's own."
)
@click.option(
    "--effect-allele",
    type=click.Choice(["allele1", "allele2"]),
    help="Which of two columns of these names the effect is of (FINEMAP).",
)
@click.option(
    "--min-pip",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Of a credible variant, where a file does not say which are.",
)
@click.option(
    "--draws",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Of matched controls, for z and p.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["tsv", "tsv.gz", "parquet"]),
    default="tsv",
    show_default=True,
    help="Of the tables.",
)
@click.option("-o", "--output", required=True, type=click.Path(), help="Folder of the tables.")
@quiet_option
def finemap(
    store: str,
    credible_sets: tuple[str, ...],
    by: str | None,
    obs: str | None,
    background: str | None,
    genome: str | None,
    suffix: str,
    output: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Score the cells of STORE for the traits of CREDIBLE_SETS, and rank the variants.

    CREDIBLE_SETS are tables of SuSiE, FINEMAP, FinnGen or Open Targets, or VCFs with PIP, BETA and
    TRAIT in INFO. STORE has their variants, and others of the same loci to compare with.
    """
    from scbasset_ism import finemapping
    from scbasset_ism.calibration import open_background
    from scbasset_ism.finemap_tables import write_finemap
    from scbasset_ism.groups import Groups, choose_labels
    from scbasset_ism.reader import open_scores

    use_threads(None, quiet=quiet)
    scores = open_scores(store)
    grouped = Groups.of(choose_labels(scores, by, obs=obs)) if by else None
    compared = open_background(background, scores) if background else None
    found = finemapping.finemap(
        scores,
        credible_sets,
        open_genome(genome or scores.attributes["genome"]["path"]),
        groups=grouped,
        background=compared,
        options=finemapping.FinemapOptions(**options),
    )
    names = write_finemap(found, output, suffix=f".{suffix}")
    log.info("%s traits, %s files in %s", len(found.traits), len(names), output)
