"""The commands that look at every base around variants or of regions."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from scbasset_ism.cli_options import (
    RUN_OPTIONS,
    all_of,
    batch_option,
    check_part,
    dense_precision_option,
    factored_option,
    is_file,
    layout_option,
    open_genome,
    precision_option,
    set_up,
    source_of,
    store_beside,
    tell_finished,
)

log = logging.getLogger(__name__)

_UNFIT = (layout_option, dense_precision_option, batch_option)  # for `attribute`

source_argument = click.argument("source", nargs=-1, required=True, metavar="VARIANTS|REGIONS")
part_option = click.option(
    "--part", help="Only this part of the windows, as 2/8; `finalize` comes after all."
)


@click.command()
@source_argument
@all_of([option for option in RUN_OPTIONS if option is not layout_option])
@factored_option
@click.option(
    "--span",
    type=click.IntRange(1),
    metavar="N",
    help="Bases mutated around a variant (default: all of the window); of regions, at most so "
    "many in one window (default: a quarter of it).",
)
@click.option(
    "--allele",
    type=click.Choice(["ref", "alt", "both"]),
    default="ref",
    show_default=True,
    help="Haplotype that is mutated around a variant.",
)
@precision_option
@part_option
def ism(source: tuple[str, ...], part: str | None, **options: Any) -> None:
    """Mutate every base around VARIANTS or of REGIONS to every other: per-cell delta logits.

    VARIANTS as in `score`. REGIONS is a file that ends in .bed or .narrowPeak, perhaps with .gz;
    or regions as chr20:1000001-1000500.
    """
    check_part(part, options)
    from scbasset_ism.saturation import IsmOptions, saturate, saturate_part

    _write(source, part, options, (IsmOptions, saturate, saturate_part))


@click.command()
@source_argument
@all_of([option for option in RUN_OPTIONS if option not in _UNFIT])
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Sequences that go through the network together.",
)
@click.option(
    "--span",
    type=click.IntRange(1),
    metavar="N",
    help="Bases kept around a variant (default: all of the window); of regions, at most so many "
    "of one window (default: a quarter of it).",
)
@click.option(
    "--allele",
    type=click.Choice(["ref", "alt", "both"]),
    help="Haplotype of a variant; default: both, for alt minus ref.",
)
@click.option(
    "--method",
    type=click.Choice(["integrated-gradients", "input-x-gradient"]),
    default="integrated-gradients",
    show_default=True,
    help="input-x-gradient: the gradient at the window alone, which is much cheaper and does not "
    "add up to anything.",
)
@click.option(
    "--baseline",
    type=click.Choice(["n", "shuffle"]),
    default="n",
    show_default=True,
    help="Where integrated gradients start: N everywhere, or dinucleotide shuffles of the window.",
)
@click.option(
    "--shuffles",
    "n_shuffles",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    metavar="N",
    help="Shuffles of each window, over which is averaged.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the shuffles."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, min_open=True),
    default=0.05,
    show_default=True,
    help="How far the attributions may miss the logits that they add up to, as a share; windows "
    "that miss them by more are INCOMPLETE.",
)
@click.option(
    "--max-steps",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    metavar="N",
    help="Steps of the integral are doubled, up to so many, until the tolerance is met.",
)
@part_option
def attribute(source: tuple[str, ...], part: str | None, **options: Any) -> None:
    """Attribute the logits of all cells to the bases around VARIANTS or of REGIONS.

    VARIANTS as in `score`. REGIONS is a file that ends in .bed or .narrowPeak, perhaps with .gz;
    or regions as chr20:1000001-1000500. Needs Captum: the extra `attribution`.
    """
    check_part(part, options)
    from scbasset_ism.attributing import (
        AttributionRunOptions,
        attribute_windows,
        attribute_windows_part,
    )

    _write(
        source, part, options, (AttributionRunOptions, attribute_windows, attribute_windows_part)
    )


def _write(
    source: tuple[str, ...],
    part: str | None,
    options: dict[str, Any],
    library: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
) -> None:
    """Call what writes all windows, or those of a part; both take the same options."""
    from scbasset_ism import vcf
    from scbasset_ism.progress import Part
    from scbasset_ism.stretches import is_bed

    make_options, write, write_part = library
    with set_up(options) as (model, output), vcf.spooled(_windows_of(source)) as given:
        own = None if is_bed(given) or not isinstance(given, str | Path) else vcf.reference(given)
        genome = open_genome(options.pop("genome"), own)
        out, chosen = output or store_beside(source[0]), make_options(**options)
        if part:
            which = Part.parse(part)
            write_part(given, genome, model, out, part=which, options=chosen)
            log.info("part %s of %s is written; finalize it when all parts are", which, out)
            return
        tell_finished(write(given, genome, model, out, options=chosen), "windows")


def _windows_of(source: tuple[str, ...]) -> Any:
    """Take arguments that look like regions for regions."""
    from scbasset_ism.regions import Region

    is_typed = not is_file(source[0]) and source[0].count(":") == 1 and "-" in source[0]
    return [Region.parse(text) for text in source] if is_typed else source_of(source)
