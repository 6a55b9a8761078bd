"""Options that several commands share, and what they mean."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from scbasset_ism.genome import Genome

log = logging.getLogger(__name__)

DEFAULT_MODEL = "multimolecule/scbasset"

model_option = click.option(
    "--model",
    default=DEFAULT_MODEL,
    show_default=True,
    envvar="SCBASSET_ISM_MODEL",
    show_envvar=True,
    help="Checkpoint directory, .h5 or .safetensors file, or Hugging Face id.",
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
