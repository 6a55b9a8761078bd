"""The commands that take stores that are there: finish, join and check them."""

import logging

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
