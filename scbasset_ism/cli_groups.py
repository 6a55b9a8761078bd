"""The commands that ask groups of cells."""

import logging

import click

from scbasset_ism.cli_options import background_option, quiet_option, use_threads

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
