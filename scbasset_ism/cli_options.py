"""Options that several commands share, and what they mean."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scbasset_ism.genome import Genome
    from scbasset_ism.model import Scbasset
    from scbasset_ism.reader import Store

log = logging.getLogger(__name__)

DEFAULT_MODEL = "multimolecule/scbasset"

model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    envvar="SCBASSET_ISM_MODEL",
    show_envvar=True,
    help="Checkpoint directory, .h5 or .safetensors file, Hugging Face id, or `demo`.",
)
genome_option = click.option(
    "--genome",
    envvar="SCBASSET_ISM_GENOME",
    show_envvar=True,
    help="FASTA file, plain or bgzip. Default for `score`: the VCF's ##reference.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing output.")
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads of the network."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")


cells_option = click.option(
    "--cells", type=click.Path(), help="TSV with one row per cell: barcodes and their columns."
)
layout_option = click.option(
    "--layout",
    type=click.Choice(["dense", "factored"]),
    default="dense",
    show_default=True,
    help="dense: every cell written out; factored: 64 times smaller, expanded on reading.",
)
factored_option = click.option(
    "--layout",
    type=click.Choice(["dense", "factored"]),
    default="factored",
    show_default=True,
    help="dense: every cell written out, 16 bytes a base and cell; factored: expanded on reading.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Of the products of differences; auto is float32 for `score`, and for `ism` bfloat16 "
    "where the device has units for it.",
)
dense_precision_option = click.option(
    "--dense-precision",
    type=click.Choice(["float32", "bitround"]),
    default="float32",
    show_default=True,
    help="bitround: 10 bits of the mantissa, max relative error 4.9e-4, about half the bytes.",
)
batch_option = click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Rows that go through the network together.",
)
background_option = click.option(
    "--background",
    type=click.Path(),
    help="Store of background variants (see `calibrate`): adds z and signed percentiles.",
)
RUN_OPTIONS = [
    model_option,
    genome_option,
    cells_option,
    click.option("-o", "--output", type=click.Path(), help="Zarr store; default: <input>.zarr"),
    layout_option,
    dense_precision_option,
    click.option("--rc", is_flag=True, help="Average over both strands."),
    click.option(
        "--shifts",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Average over windows moved by up to N bases to either side.",
        metavar="N",
    ),
    batch_option,
    click.option(
        "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps."
    ),
    click.option(
        "--devices",
        help="Devices, with commas between them: one process for each, at once.",
        callback=lambda _context, _option, text: tuple(text.split(",")) if text else (),
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Processes that share the work.",
    ),
    threads_option,
    overwrite_option,
    quiet_option,
]


def all_of(options: list[Any]) -> Callable[[Any], Any]:
    """Decorate a command with several options, in their order."""

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def use_threads(threads: int | None, *, quiet: bool) -> None:
    """Do what --threads and --quiet say."""
    if quiet:
        logging.getLogger("scbasset_ism").setLevel(logging.WARNING)
    if threads:
        import torch

        torch.set_num_threads(threads)


def open_genome(path: str | None, reference: str | None = None) -> "Genome":
    """Open the genome that was named, else the VCF's own."""
    from scbasset_ism.genome import Genome

    own = reference.removeprefix("file://") if reference else None
    if path is None and (own is None or not Path(own).is_file()):
        said = f"; the VCF names {own}, which is no file here" if own else ""
        raise click.UsageError(f"which genome? give --genome FASTA or $SCBASSET_ISM_GENOME{said}")
    genome = Genome(path or own or "")
    log.info("genome: %s, %d contigs", genome.path, len(genome.contigs))
    return genome


def tell_finished(store: "Store", unit: str) -> None:
    """Print the count of each status and where the store lies."""
    counts = {status: n for status, n in store.attributes["counts"].items() if n}
    for status, count in counts.items():
        log.info("%12s %s", f"{count:,}", status)
    log.info("%12s %s in %s", f"{len(store):,}", unit, store.path)


@contextmanager
def set_up(options: dict[str, Any]) -> Iterator[tuple["Scbasset", str | None]]:
    """Set up what all runs have in common; takes its options out of the others.

    Gives the model, and the output if one was named.
    """
    from scbasset_ism.checkpoint import load_model

    quiet, output = options.pop("quiet"), options.pop("output")
    use_threads(options.pop("threads"), quiet=quiet)
    model = load_model(options.pop("model"), cells=options.pop("cells"))
    log.info("model: %s, %d cells", model.provenance.get("source"), model.config.n_cells)
    options["progress"] = not quiet
    yield model, output


def source_of(variants: tuple[str, ...]) -> Any:
    """Take the arguments for variants where they look so, else for a file."""
    from scbasset_ism.variants import Variant

    if len(variants) == 1 and (":" not in variants[0] or is_file(variants[0])):
        return variants[0]
    return [Variant.parse(text) for text in variants]


def check_part(part: str | None, options: dict[str, Any]) -> None:
    """Refuse what does not go with a part of a run."""
    if part and (options["overwrite"] or options["workers"] > 1 or options["devices"]):
        raise click.UsageError("--part goes without --overwrite, --workers and --devices")


def store_beside(source: str) -> str:
    """Name the output after the input, in the current folder."""
    name = Path(source).name
    if not is_file(source):
        raise click.UsageError(f"where to? {source[:40]!r} names no file: give --output")
    for suffix in (
        ".gz",
        ".bgz",
        ".vcf",
        ".bcf",
        ".tsv",
        ".parquet",
        ".bed",
        ".narrowPeak",
        ".fa",
        ".fasta",
    ):
        name = name.removesuffix(suffix)
    return f"{name}.zarr"


def is_file(text: str) -> bool:
    """Whether an argument names a file; a bare sequence is too long for a name."""
    return len(text) < 256 and Path(text).is_file()
