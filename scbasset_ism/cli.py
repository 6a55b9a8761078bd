"""The command line: parse, call one library function, print.

Heavy imports wait inside the commands, so that `--help` answers at once.
"""

import gzip
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from scbasset_ism import __version__
from scbasset_ism.cli_export import export, normalize
from scbasset_ism.cli_groups import finemap, groups
from scbasset_ism.cli_options import (
    RUN_OPTIONS,
    all_of,
    background_option,
    cells_option,
    check_part,
    dense_precision_option,
    is_file,
    layout_option,
    open_genome,
    overwrite_option,
    precision_option,
    set_up,
    source_of,
    store_beside,
    tell_finished,
)
from scbasset_ism.cli_stores import finalize, merge, plot, report, strongest, verify
from scbasset_ism.cli_train import evaluate, train
from scbasset_ism.cli_windows import attribute, ism
from scbasset_ism.errors import ScbassetError

log = logging.getLogger(__name__)

_INTERRUPTED = b"""
Error: interrupted: the same command (train: with --resume) goes on where this one stopped
"""


class _Echo(logging.Handler):
    """Shows a line of the log on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line."""
        click.echo(self.format(record), err=True)


def _stop(_signal: int, _frame: object) -> None:
    """End at once on Ctrl-C: what is on the disk is whole, and workers end with this process.

    A KeyboardInterrupt could surface in any thread's lock or any finalizer, and be lost there.
    """
    os.write(2, _INTERRUPTED)
    os._exit(1)


class Commands(click.Group):
    """A group whose commands fail with one sentence and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the library has to say goes to stderr."""
        logger, echo = logging.getLogger("scbasset_ism"), _Echo()
        logger.addHandler(echo)
        logger.setLevel(logging.INFO)
        heard = signal.signal(signal.SIGINT, _stop)
        try:
            return super().invoke(ctx)
        except ScbassetError as error:
            raise click.ClickException(str(error)) from error
        finally:
            signal.signal(signal.SIGINT, heard)
            logger.removeHandler(echo)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """From a VCF to the effect of every variant in every single cell, with scBasset."""


@main.command()
@click.argument("variants", nargs=-1, required=True)
@all_of(RUN_OPTIONS)
@click.option("--region", help="Only variants in chrom:start-stop (1-based, inclusive).")
@click.option(
    "--ref-mismatch",
    type=click.Choice(["skip", "flip", "error"]),
    default="skip",
    show_default=True,
    help="REF is not in the genome: no score; score from ALT if that is there; or stop.",
)
@click.option(
    "--center",
    type=click.Choice(["variant", "peak"]),
    default="variant",
    show_default=True,
    help="What lies in the middle of the window; peak needs --peaks.",
)
@click.option("--peaks", type=click.Path(), help="BED file of peaks.")
@precision_option
@background_option
@click.option("--part", help="Only this part of the rows, as 2/8; `finalize` comes after all.")
def score(
    variants: tuple[str, ...],
    center: str,
    peaks: str | None,
    part: str | None,
    **options: Any,
) -> None:
    """Score VARIANTS: per-cell delta logits of every ALT allele.

    VARIANTS is a VCF, BCF, TSV (chrom, pos, ref, alt[, id]) or Parquet file, - for a VCF on
    standard input, or variants as chr20:1000226:A:G.
    """
    if (center == "peak") != (peaks is not None):
        raise click.UsageError("--center peak and --peaks BED belong together")
    check_part(part, options)
    from scbasset_ism import vcf
    from scbasset_ism.progress import Part
    from scbasset_ism.scoring import ScoreOptions, score_part, score_variants

    with set_up(options) as (model, output), vcf.spooled(source_of(variants)) as source:
        genome = open_genome(options.pop("genome"), vcf.reference(source))
        out = output or store_beside(variants[0])
        chosen = ScoreOptions(peaks=peaks, **options)
        if part:
            which = Part.parse(part)
            score_part(source, genome, model, out, part=which, options=chosen)
            log.info("part %s of %s is written; finalize it when all parts are", which, out)
            return
        tell_finished(score_variants(source, genome, model, out, options=chosen), "variants")


@main.command()
@click.argument("background")
@click.option("--by", metavar="COLUMN", help="Column of the cells' table: cut-offs of its groups.")
@all_of([option for option in RUN_OPTIONS if option not in {layout_option, dense_precision_option}])
def calibrate(background: str, by: str | None, **options: Any) -> None:
    """Score BACKGROUND and print which effects are large among it.

    BACKGROUND is a file of variants that mostly do nothing, such as common ones, as in `score`; or
    a store of `score`. Its store (layout factored) is what --background of other commands takes.
    """
    from scbasset_ism import vcf
    from scbasset_ism.calibration import Background, cutoff_table
    from scbasset_ism.reader import is_store
    from scbasset_ism.scoring import ScoreOptions, score_variants

    if not is_store(background):
        with set_up(options) as (model, output), vcf.spooled(background) as source:
            genome = open_genome(options.pop("genome"), vcf.reference(source))
            out, chosen = output or store_beside(background), ScoreOptions("factored", **options)
            tell_finished(score_variants(source, genome, model, out, options=chosen), "variants")
            background = out
    table = cutoff_table(Background(background), by)
    click.echo(table.to_string(float_format="{:.4f}".format))


@main.command()
@click.argument("regions")
@all_of(RUN_OPTIONS)
def predict(regions: str, **options: Any) -> None:
    """Predict the accessibility of REGIONS: per-cell logits.

    REGIONS is a BED file (the window's middle is the region's), a FASTA file of sequences that
    fill the window, or one such sequence as text.
    """
    from scbasset_ism.pipeline import RunOptions
    from scbasset_ism.prediction import predict_regions, predict_sequences

    with set_up(options) as (model, output):
        genome, out = options.pop("genome"), output or store_beside(regions)
        run = RunOptions(**options)
        if set(regions.upper()) <= set("ACGTN") and not is_file(regions):
            predictions = predict_sequences(regions, model, out, options=run)
        elif _is_fasta(Path(regions)):
            predictions = predict_sequences(Path(regions), model, out, options=run)
        else:
            predictions = predict_regions(regions, open_genome(genome), model, out, options=run)
        tell_finished(predictions, "windows")


@main.command("demo")
@click.argument("folder", type=click.Path(), default="scbasset-ism-demo")
def run_demo(folder: str) -> None:
    """Score packaged variants with the packaged model, in FOLDER, to see and to play with.

    FOLDER (default: scbasset-ism-demo) gets a genome, a VCF, the store of the scores, and of the
    strongest variant the saturation mutagenesis as a store and as a picture, and a report of all.
    What is there of genome and VCF is kept, and scored anew.
    """
    from scbasset_ism import demo

    scores = demo.run(folder)
    tell_finished(scores, "variants")
    click.echo(demo.table(scores))
    if scores.attributes["counts"]["SCORED"]:
        found = demo.mutate(folder, scores)
        try:
            picture, page = demo.draw(folder, scores, found)
            log.info("picture: %s, report: %s", picture, page)
        except ImportError:
            log.info("no picture and no report without the extra: pip install 'scbasset-ism[plot]'")
    click.echo(demo.next_steps(folder))


@main.command()
@click.argument("checkpoint")
@click.argument("folder", type=click.Path())
@cells_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of kernels and matrices in the file; computing is in float32 all the same.",
)
@overwrite_option
def convert(checkpoint: str, folder: str, cells: str | None, dtype: str, overwrite: bool) -> None:
    """Convert CHECKPOINT to a FOLDER with config.json, model.safetensors and cells.tsv.

    CHECKPOINT is a Keras .h5 file (weights or full model), a Hugging Face id, or a directory.
    """
    import torch

    from scbasset_ism.checkpoint import convert as convert_checkpoint

    model = convert_checkpoint(
        checkpoint, folder, cells=cells, overwrite=overwrite, dtype=getattr(torch, dtype)
    )
    click.echo(f"{folder}: {model.config.n_cells:,} cells, from {checkpoint}", err=True)


@main.command()
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(path: str, as_json: bool) -> None:
    """Print what is in a model or a store."""
    from scbasset_ism.reader import describe_store, is_store

    if is_store(path):
        description = describe_store(path)
    else:
        from scbasset_ism.checkpoint import load_model
        from scbasset_ism.provenance import inspect_model

        description = inspect_model(load_model(path))
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    for line in _lines(description):
        click.echo(line)


_COMMANDS = (
    *(ism, attribute, finalize, merge, verify, strongest, groups, finemap),
    *(export, plot, report, normalize, train, evaluate),
)
for command in _COMMANDS:
    main.add_command(command)


def _is_fasta(path: Path) -> bool:
    """Whether a file, plain or gzip, begins as FASTA."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else path.open("rb") as file:
        return file.read(1) == b">"


def _lines(description: Any, indent: str = "") -> Iterator[str]:
    """Lay out nested values, a line each."""
    for key, value in description.items():
        if isinstance(value, dict):
            yield f"{indent}{key}"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {value}"
