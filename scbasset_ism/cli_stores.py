"""The commands that take stores that are there: finish, join, check and draw them."""

import logging
from pathlib import Path
from typing import Any

import click

from scbasset_ism.cli_options import (
    open_genome,
    overwrite_option,
    quiet_option,
    tell_finished,
    use_threads,
)
from scbasset_ism.errors import ScbassetError

log = logging.getLogger(__name__)

# Pictures: the commands whose stores they show, the function of `figures`, the options it takes.
_DRAWS: dict[str, tuple[set[str], str, set[str]]] = {
    "map": ({"score"}, "variant_map", {"coordinates"}),
    "bars": ({"score"}, "variant_bars", {"by"}),
    "distribution": ({"score"}, "variant_distribution", {"groups"}),
    "logo": ({"ism", "attribute"}, "logos", {"groups", "span"}),
    "substitutions": ({"ism"}, "substitutions", {"groups", "span"}),
    "profiles": ({"ism", "attribute"}, "profiles", {"by", "span"}),
}


coordinates_option = click.option(
    "--coordinates",
    help="Of the cells, for a map: two columns of their table (umap_1,umap_2) or an AnnData file "
    "with a key (atlas.h5ad:X_umap). Default: principal components of their weights.",
)


@click.command()
@click.argument("store")
def finalize(store: str) -> None:
    """Check all parts of STORE and mark it complete; name the shards that are missing."""
    from scbasset_ism import runs

    runs.finalize(store)
    log.info("%s is complete", store)


@click.command()
@click.argument("stores", nargs=-1, required=True)
@click.option("-o", "--output", required=True, help="Zarr store of all their rows.")
@overwrite_option
@quiet_option
def merge(stores: tuple[str, ...], output: str, overwrite: bool, quiet: bool) -> None:
    """Join finished STORES that differ in their input alone, such as one for each chromosome.

    The rows follow each other in the order in which the stores are named.
    """
    from scbasset_ism import merging

    use_threads(None, quiet=quiet)
    merged = merging.merge(stores, output, overwrite=overwrite, progress=not quiet)
    tell_finished(merged, "rows")


@click.command()
@click.argument("store")
@click.option("--model", help="Default: the one that the store names.")
@click.option("--genome", help="Default: the one that the store names.")
@click.option(
    "--sample",
    type=click.IntRange(0),
    help="Rows to score again by full float32 passes (default: 64; of attributions 8, by Captum); "
    "0 needs neither model nor genome.",
)
@click.option("--seed", default=0, show_default=True, help="Which rows.")
def verify(
    store: str, model: str | None, genome: str | None, sample: int | None, seed: int
) -> None:
    """Check every byte of STORE, and a sample of its scores against their definition."""
    from scbasset_ism.checkpoint import load_model
    from scbasset_ism.reader import open_store
    from scbasset_ism.verification import verify_files, verify_scores

    written = open_store(store)
    if sample != 0:
        attributes = written.attributes
        own = attributes.get("genome", {}).get("path")
        bases = open_genome(genome or own) if own else None
        scorer = load_model(model or attributes["model"]["source"])
        found = verify_scores(store, bases, scorer, sample=sample, seed=seed)
    else:
        found = verify_files(written)
    click.echo(f"{found.n_arrays:>12,} arrays read, {found.n_bytes:,} bytes")
    if found.n_sampled:
        click.echo(f"{found.n_sampled:>12,} rows scored again")
        click.echo(f"{found.largest:>12.3g} largest number among them")
        click.echo(f"{found.error:>12.3g} largest error")
    if found.unchecked:
        click.echo(f"  no row was scored again: {found.unchecked}")
    for problem in found.problems:
        click.echo(f"     problem {problem}")
    if found.problems:
        raise ScbassetError(f"{store} is damaged: {len(found.problems):,} problems, listed above")


@click.command()
@click.argument("store")
@click.option(
    "-n",
    "--variants",
    "n_variants",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many, at most.",
)
@click.option("-o", "--output", default="-", type=click.Path(), help="TSV; default: to the screen.")
def strongest(store: str, n_variants: int, output: str) -> None:
    """Print the variants of STORE with the largest effect in any cell, and in which.

    One row per variant, which `score` and `ism` take as variants again.
    """
    from scbasset_ism.reader import open_scores

    scores = open_scores(store)
    found = scores.strongest(n_variants, 1)
    table = scores.variants().iloc[found["row"]][
        ["chrom", "variant_position", "variant_ref", "variant_alt", "variant_id"]
    ]
    table.columns = ["chrom", "pos", "ref", "alt", "id"]
    for name in ("cell_id", "delta_logit"):
        table[name] = found[name].to_numpy()
    text = table.to_csv(sep="\t", index=False, float_format="%.6g")
    try:
        click.echo(text, nl=False) if output == "-" else Path(output).write_text(text)
    except OSError as error:
        raise ScbassetError(f"{output} can't be written: {error.strerror}") from None


@click.command()
@click.argument("store")
@click.option(
    "--variant",
    help="A variant by its name (chr20:1000226:A:G) or ID; of a store of `ism` or `attribute` a "
    "window, with the reference above the alternate allele. Default: the first row.",
)
@click.option(
    "--kind",
    type=click.Choice(list(_DRAWS)),
    help="Stores of `score`: map of the cells, bars of groups, distribution. Stores of `ism` "
    "and `attribute`: logo, profiles (position x group); of `ism` substitutions (position x base). "
    "Default: map and logo.",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="Cells: an id, a label in a column of their table, or a query of its columns; may be "
    "repeated for `logo`. Default: all.",
)
@click.option("--by", help="Column of the cells' table that makes groups, for bars and profiles.")
@coordinates_option
@click.option(
    "--span",
    type=click.IntRange(1),
    metavar="N",
    help="Most bases to show of a window, from its middle (default: 100).",
)
@click.option("-o", "--output", required=True, help="Picture: .svg, .pdf or .png.")
def plot(store: str, variant: str | None, kind: str | None, output: str, **options: Any) -> None:
    """Draw a variant or a window of STORE."""
    suffix = Path(output).suffix.removeprefix(".").lower()
    if suffix not in {"svg", "pdf", "png"}:
        raise click.UsageError(f"a picture ends in .svg, .pdf or .png, and {output} does not")
    figures, draws = _import_figures(), _DRAWS
    from scbasset_ism.reader import open_store

    opened = open_store(store)
    kinds = [name for name, (of, _, _) in draws.items() if opened.kind in of]
    if not kinds or (kind or kinds[0]) not in kinds:
        known = f"its pictures are {', '.join(kinds)}" if kinds else "there is no picture of it"
        raise click.UsageError(f"{store} was written by `{opened.kind}`: {known}")
    _, function, takes = draws[kind := kind or kinds[0]]
    given = {name: value for name, value in options.items() if value}
    if wrong := set(given) - takes:
        raise click.UsageError(f"{kind} takes no {min(wrong)}")
    if "by" in takes and "by" not in given:
        raise click.UsageError(f"{kind} shows groups: name a column of the cells' table, --by")
    if "coordinates" in given:
        from scbasset_ism.coordinates import read_coordinates

        given["coordinates"] = read_coordinates(given["coordinates"], opened.cells)
    first = 0 if opened.kind == "score" else opened.rows(slice(1)).index[0]
    figure = getattr(figures, function)(opened, variant or first, **given)
    try:
        Path(output).write_bytes(figures.plot.to_bytes(figure, suffix))
    except OSError as error:
        raise ScbassetError(f"{output} can't be written: {error.strerror}") from None
    log.info("%s", output)


@click.command()
@click.argument("store")
@click.option("--by", help="Column of the cells' table whose groups are compared.")
@click.option("--ism", "ism_store", help="Store of `ism` around some of the variants: their logos.")
@click.option("--finemap", "finemapped", help="Folder that `finemap` wrote: its traits.")
@coordinates_option
@click.option(
    "--variants",
    "n_variants",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="How many to show, strongest first.",
)
@click.option("-o", "--output", required=True, type=click.Path(), help="HTML file.")
@overwrite_option
def report(
    store: str,
    ism_store: str | None,
    coordinates: str | None,
    output: str,
    overwrite: bool,
    **options: Any,
) -> None:
    """Write STORE of `score` as a page to look at: one HTML file that needs no network."""
    if Path(output).exists() and not overwrite:
        raise ScbassetError(f"{output} exists: give --overwrite to replace it")
    try:
        from scbasset_ism.report import write_report
    except ImportError:
        raise ScbassetError("a report needs the extra: pip install 'scbasset-ism[plot]'") from None
    from scbasset_ism.reader import open_scores
    from scbasset_ism.saturations import open_saturations

    scores = open_scores(store)
    if coordinates:
        from scbasset_ism.coordinates import read_coordinates

        options["coordinates"] = read_coordinates(coordinates, scores.cells)
    found = open_saturations(ism_store) if ism_store else None
    write_report(scores, output, found=found, **options)
    log.info("%s", output)


def _import_figures() -> Any:
    try:
        from scbasset_ism import figures
    except ImportError:
        raise ScbassetError(
            "pictures need matplotlib and logomaker: pip install 'scbasset-ism[plot]'"
        ) from None
    return figures
