"""The demo: real variants of chr20, scored by the packaged model, in a folder to play with.

The strongest is mutated base by base; pictures and the report need the extra `plot`.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from scbasset_ism.checkpoint import DEMO, DEMO_DATA, load_model
from scbasset_ism.errors import ScbassetError
from scbasset_ism.genome import Genome
from scbasset_ism.reader import Scores
from scbasset_ism.saturation import IsmOptions, saturate
from scbasset_ism.saturations import Saturations
from scbasset_ism.scoring import ScoreOptions, score_variants
from scbasset_ism.variants import Variant

GENOME, VARIANTS, SCORES = "genome.fa.gz", "variants.vcf", "scores.zarr"
MUTANTS, PICTURE, REPORT = "ism.zarr", "ism.svg", "report.html"

_SPAN = 60  # bases that are mutated
_WIDTH = 100  # columns of the table
_ID, _ALLELES = 17, 15  # columns for them; longer ones are cut
_HEAD = ("variant", "position", "alleles", "delta", "cell type", "tissue")

log = logging.getLogger(__name__)


def run(folder: str | Path) -> Scores:
    """Score the demo's variants in a folder, which is made where there is none.

    Args:
        folder: Gets the genome and the variants, unless it has files of these names, and the
            scores, in place of older ones.

    Raises:
        ScbassetError: The folder can't be written.
    """
    folder = Path(folder)
    copy_inputs(folder)
    model, genome = load_model(DEMO), Genome(folder / GENOME)
    log.info("scoring %s", folder / VARIANTS)
    options = ScoreOptions(overwrite=True, progress=True)
    return score_variants(folder / VARIANTS, genome, model, folder / SCORES, options=options)


def mutate(folder: str | Path, scores: Scores) -> Saturations:
    """Mutate every base around the strongest variant, on both of its haplotypes.

    Args:
        folder: The demo's, with the genome; gets the store, in place of an older one.
        scores: Of the variants; one is scored at least.
    """
    model, genome = load_model(DEMO), Genome(Path(folder, GENOME))
    strongest = Variant.parse(scores.strongest(1, 1).index[0])
    options = IsmOptions(span=_SPAN, allele="both", overwrite=True, progress=True)
    log.info("mutating every base around %s", strongest)
    return saturate([strongest], genome, model, Path(folder, MUTANTS), options=options)


def draw(folder: str | Path, scores: Scores, found: Saturations) -> tuple[Path, Path]:
    """Draw logos around the strongest variant in the cells that it changes most and least.

    Returns:
        The picture, and the report of all variants.

    Raises:
        ImportError: The extra `plot` is not installed.
    """
    figures: Any = import_module("scbasset_ism.figures")
    by_effect = scores.cells.loc[scores.strongest(1, len(scores.cells))["cell_id"], "name"]
    variant = found.windows()["source"].iloc[0]
    figure = figures.logos(found, variant, groups=[by_effect.iloc[0], by_effect.iloc[-1]])
    picture, page = Path(folder, PICTURE), Path(folder, REPORT)
    picture.write_bytes(figures.plot.to_bytes(figure, "svg"))
    import_module("scbasset_ism.report").write_report(scores, page, by="tissue", found=found)
    return picture, page


def copy_inputs(folder: Path) -> None:
    """Copy the packaged genome and variants into a folder; what is there stays as it is.

    Raises:
        ScbassetError: The folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (GENOME, VARIANTS):
            if not (folder / name).exists():
                aside = folder / f".{name}.{os.getpid()}"
                shutil.copyfile(DEMO_DATA / name, aside)
                aside.replace(folder / name)
    except OSError as error:
        raise ScbassetError(
            f"{folder} can't be written ({error.strerror}): name another folder"
        ) from None


def table(scores: Scores, n_variants: int = 8, n_cells: int = 3) -> str:
    """Lay out the variants with the largest effects and the cells that they change most.

    Args:
        scores: Of a model whose cells have a `name` and a `tissue`.
        n_variants: How many variants, at most.
        n_cells: How many cells of each, at most.

    Returns:
        Text of at most 100 columns; deltas are alternate minus reference.
    """
    strongest = scores.strongest(n_variants, n_cells).join(scores.cells, on="cell_id")
    variants = scores.variants().reset_index(drop=True)
    lines, last = [_HEAD], -1
    for line in strongest.join(variants, on="row").to_dict("records"):
        about = (
            _cut(line["variant_id"], _ID),
            f"{line['chrom']}:{line['variant_position']}",
            _cut(f"{line['variant_ref']}>{line['variant_alt']}", _ALLELES),
        )
        about, last = about if line["row"] != last else ("", "", ""), line["row"]
        lines.append((*about, f"{line['delta_logit']:+5.2f}", line["name"], line["tissue"]))
    return "\n".join(_aligned(lines))


def next_steps(folder: str | Path) -> str:
    """Say what to do with the demo's folder."""
    return f"""
delta: change of the logit of accessibility, alternate minus reference allele.
Look at the scores in Python:
    import scbasset_ism as sb
    sb.open_scores("{Path(folder, SCORES).as_posix()}").strongest(20)
Draw them, or what every base around the strongest variant is worth (store of `ism`):
    scbasset-ism plot {Path(folder, SCORES)} --variant rs157089 --kind bars --by tissue -o bars.svg
    scbasset-ism plot {Path(folder, MUTANTS)} --group blood --group skin -o logos.svg
Change {Path(folder, VARIANTS)} and run the demo again, or score your own hg19 variants:
    scbasset-ism score my.vcf --genome hg19.fa --model {DEMO}"""


def _aligned(lines: Sequence[tuple[str, ...]]) -> list[str]:
    """Pad columns to the same width; names of cells are cut to what the others leave."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    too_wide = sum(widths) + 2 * (len(widths) - 1) - _WIDTH
    widths[_HEAD.index("cell type")] -= max(0, too_wide)
    texts = (
        "  ".join(_cut(text, width).ljust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )
    return [text.rstrip() for text in texts]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
