"""The commands that make models and measure them."""

import json
import logging
from pathlib import Path
from typing import Any

import click

from scbasset_ism.cli_options import (
    all_of,
    genome_option,
    model_option,
    open_genome,
    overwrite_option,
    quiet_option,
    threads_option,
    use_threads,
)

log = logging.getLogger(__name__)

DATA_OPTIONS = [
    click.argument("data", type=click.Path()),
    click.option("--matrix", type=click.Path(), help="Matrix Market file, where DATA is BED."),
    click.option("--barcodes", type=click.Path(), help="Names of its cells, one a line, or TSV."),
    genome_option,
    click.option("--device", default="auto", help="auto, cpu, cuda, mps."),
    threads_option,
    quiet_option,
]
# The defaults are those of `Recipe`; a test compares them.
RECIPE_OPTIONS = [
    click.option("--epochs", default=1000, help="At most so many passes over the peaks."),
    click.option(
        "--patience", default=50, help="Stop after so many epochs without a better AUROC."
    ),
    click.option("--batch-size", default=128, help="Peaks of a step."),
    click.option("--learning-rate", default=0.01, help="Of Adam, at its highest."),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "one-cycle"]),
        default="constant",
        help="one-cycle: up in the first quarter of the epochs, then down to 0.",
    ),
    click.option("--betas", type=(float, float), default=(0.95, 0.9995), help="Of Adam."),
    click.option("--epsilon", default=1e-7, help="Of Adam."),
    click.option("--weight-decay", default=0.0, help="Decoupled, as in AdamW."),
    click.option("--averaging", default=0.0, help="Decay of a moving average of the weights."),
    click.option(
        "--rc/--no-rc", default=True, help="Read half of the peaks from the other strand."
    ),
    click.option("--shifts", default=3, help="Move windows by up to N bases.", metavar="N"),
    click.option("--channels", default=288, help="Of the stem; the others in proportion."),
    click.option("--bottleneck", default=32, help="Numbers that describe a sequence."),
    click.option("--dropout", default=0.2, help="Share of the bottleneck left out at random."),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        default="auto",
        help="Of products; auto is bfloat16 where the device has units for it.",
    ),
    click.option("--seed", default=0, help="Of all that is random."),
]


@click.command(context_settings={"show_default": True})
@all_of(DATA_OPTIONS)
@click.option("-o", "--output", type=click.Path(), required=True, help="Checkpoint folder.")
@click.option(
    "--split",
    type=click.Choice(["intervals", "random"]),
    default="intervals",
    help="90/5/5 by place, so that no base is shared; or at random, as the authors do.",
)
@click.option("--test-regions", type=click.Path(), help="BED: what the final test is on.")
@click.option("--validation-regions", type=click.Path(), help="BED: what chooses the epoch.")
@click.option("--init", help="Model to start from: its trunk; its head too if the cells are same.")
@click.option("--freeze", type=click.Choice(["trunk"]), help="Fit only the head, over --init.")
@all_of(RECIPE_OPTIONS)
@click.option("--resume", is_flag=True, help="Go on with a training that was interrupted.")
@overwrite_option
def train(
    data: str,
    output: str,
    matrix: str | None,
    barcodes: str | None,
    genome: str | None,
    init: str | None,
    freeze: str | None,
    split: Any,
    test_regions: str | None,
    validation_regions: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    resume: bool,
    overwrite: bool,
    **recipe: Any,
) -> None:
    """Train a model on DATA: which peak is open in which cell.

    DATA is AnnData (.h5ad; cells x peaks or peaks x cells), or a BED file of peaks with --matrix
    and --barcodes. The output is a checkpoint folder, which --model takes.
    """
    if split == "random" and (test_regions or validation_regions):
        raise click.UsageError("--split random goes without --test-regions, --validation-regions")
    if resume and overwrite:
        raise click.UsageError("--resume goes on and --overwrite starts anew: give one of them")
    from scbasset_ism.accessibility import read_accessibility
    from scbasset_ism.checkpoint import load_model
    from scbasset_ism.examples import read_examples
    from scbasset_ism.model import Config
    from scbasset_ism.provenance import fingerprint_file
    from scbasset_ism.recipe import Recipe
    from scbasset_ism.training import TrainOptions
    from scbasset_ism.training import train as train_model

    use_threads(threads, quiet=quiet)
    plan = Recipe(freeze_trunk=freeze == "trunk", **recipe)
    bases = open_genome(genome)
    start = None if init is None else load_model(init)
    examples = read_examples(
        read_accessibility(data, matrix, barcodes),
        bases,
        plan,
        split=split,
        test=test_regions,
        validation=validation_regions,
        window=start.config.window if start else Config.window,
    )
    notes = {"source": data, "source_sha256": fingerprint_file(data), "genome": str(bases.path)}
    options = TrainOptions(device, resume, overwrite, progress=not quiet, notes=notes)
    train_model(examples, Path(output), plan, init=start, options=options)
    log.info("%s: give it as --model", output)


@click.command()
@all_of(DATA_OPTIONS)
@model_option
@click.option("--regions", type=click.Path(), help="BED: only the peaks in these.")
@click.option("--rc", is_flag=True, help="Average over both strands.")
@click.option(
    "--shifts",
    type=click.IntRange(0),
    default=0,
    help="Average over windows moved by up to N bases.",
    metavar="N",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    data: str,
    matrix: str | None,
    barcodes: str | None,
    genome: str | None,
    model: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure a model on DATA (as in `train`): AUROC and AUPRC over cells and over peaks."""
    from scbasset_ism.accessibility import read_accessibility
    from scbasset_ism.checkpoint import load_model
    from scbasset_ism.evaluation import evaluate as evaluate_model

    use_threads(threads, quiet=quiet)
    found = evaluate_model(
        load_model(model),
        read_accessibility(data, matrix, barcodes),
        open_genome(genome),
        **options,
    )
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
        return
    for name, value in found.as_json().items():
        shown = "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
        click.echo(f"{shown:>12} {name.replace('_', ' ')}")
