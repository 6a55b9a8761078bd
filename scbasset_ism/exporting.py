"""Stores as files that other tools take: the format is chosen by the file's name."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scbasset_ism.columns import choose_columns
from scbasset_ism.errors import ExportError
from scbasset_ism.export_annotations import Annotations
from scbasset_ism.export_tables import write_indexed_tsv, write_parquet, write_tsv
from scbasset_ism.export_vcf import Original, write_vcf
from scbasset_ism.outputs import written
from scbasset_ism.places import Location
from scbasset_ism.reader import open_scores

_TABLES = {
    ".tsv": write_tsv,
    ".tsv.gz": write_indexed_tsv,
    ".tsv.bgz": write_indexed_tsv,
    ".parquet": write_parquet,
}
_ANNOTATIONS = {".annot.gz": Annotations.write_text, ".annot.parquet": Annotations.write_parquet}
_VCFS = (".vcf.gz", ".bcf")
FORMATS = (*_TABLES, *_VCFS, *_ANNOTATIONS)


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and what for.

    Attributes:
        by: Means over groups of cells: a column of the cells' table, or one label per cell;
            `cell_id` gives every cell.
        cells: Ids or numbers of single cells. With neither, the mean over all cells.
        vcf: The VCF that was scored, if it lies elsewhere now (.vcf.gz and .bcf).
        prefix: Of the INFO fields' ids (.vcf.gz and .bcf).
        bim: Plink file whose rows and order are taken (.annot.gz and .annot.parquet).
        allow_missing: A row of it without a score is 0 (.annot.gz and .annot.parquet).
        overwrite: Replace a file that exists.
    """

    by: str | Sequence[Any] | pd.Series | None = None
    cells: Sequence[str | int] | None = None
    vcf: str | Path | None = None
    prefix: str = "scbasset"
    bim: str | Path | None = None
    allow_missing: bool = False
    overwrite: bool = False


def export(
    store: Location, out: str | Path, *, options: ExportOptions | None = None
) -> dict[str, int]:
    """Write delta logits of a store as a file for other tools.

    | name | what | rows without a score |
    |---|---|---|
    | .tsv | one row per ALT | NA |
    | .tsv.gz, .tsv.bgz | the same as bgzip with an index of tabix | a dot |
    | .parquet | the same, float32 | null |
    | .vcf.gz, .bcf | the VCF that was scored, with INFO fields and an index | a dot |
    | .annot.gz | S-LDSC: absolute deltas in the order of a .bim | an error, or 0 |
    | .annot.parquet | PolyFun: the same | an error, or 0 |

    Args:
        store: What `score` wrote.
        out: The file; it is there whole or not at all.
        options: Which cells, and what the format needs.

    Returns:
        How many rows have which status, from the most to the fewest; `NOT_IN_STORE` counts rows
        of a .bim.

    Raises:
        ExportError: The name has none of these endings, an option is missing or is of another
            format, what the format needs isn't there, or the file can't be written.
        StoreError: The store can't be read, or has no such column or cell.
    """
    options, out = options or ExportOptions(), Path(out)
    kind = _format(out.name)
    _check_options(options, kind)
    scores = open_scores(store)
    columns = choose_columns(scores, options.by, options.cells)
    with written(out, overwrite=options.overwrite) as path:
        if kind in _TABLES:
            counts = _TABLES[kind](scores, columns, path)
        elif kind in _VCFS:
            original = Original(scores, Path(options.vcf) if options.vcf else None)
            if out.exists() and out.samefile(original.path):
                raise ExportError(f"{out} is the VCF that was scored: name another file")
            counts = write_vcf(scores, columns, path, original=original, prefix=options.prefix)
        else:
            bim = Path(options.bim or "")
            annotations = Annotations(scores, columns, bim, allow_missing=options.allow_missing)
            _ANNOTATIONS[kind](annotations, path)
            counts = annotations.counts
    return dict(Counter(counts).most_common())


def _format(name: str) -> str:
    """The longest ending that is a format."""
    for ending in sorted(FORMATS, key=len, reverse=True):
        if name.endswith(ending):
            return ending
    raise ExportError(f"{name}: what shall it be? Names may end in {', '.join(FORMATS)}")


def _check_options(options: ExportOptions, kind: str) -> None:
    """Refuse options of other formats."""
    default = ExportOptions()
    belong = {
        "vcf": _VCFS,
        "prefix": _VCFS,
        "bim": tuple(_ANNOTATIONS),
        "allow_missing": tuple(_ANNOTATIONS),
    }
    for name, kinds in belong.items():
        if kind not in kinds and getattr(options, name) != getattr(default, name):
            option = name.replace("_", "-")
            raise ExportError(f"--{option} belongs to {' and '.join(kinds)}, not to {kind}")
    if kind in _ANNOTATIONS and options.bim is None:
        raise ExportError(f"{kind} has the rows of a plink file: give it with --bim")
