"""A store with every kind of record, and what is expected of it; shared by the tests of exports."""

from pathlib import Path

import numpy as np
import pandas as pd
from conftest import TINY_CONTIGS, write_vcf
from numpy.typing import NDArray
from test_scoring import fill

from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.reader import Scores
from scbasset_ism.scoring import ScoreOptions, score_variants

KINDS = ["B cell", "T/NK", "B cell", "status", ""]  # of the tiny model's five cells
RECORDS = [
    "1 3 edge {3} {3!}",
    "1 1001 snv {1001} {1001!}",
    "1 1100 mnv {1100+2} {1100!+2}",
    "1 1200 del {1200+4} {1200}",
    "1 1300 ins {1300} {1300}ACGTT",
    "1 1500 multi {1500} <DEL>,{1500!},*",
    "1 1600 none {1600} .",
    "1 1601 letters {1601} R",
    "1 1650 . {1650} {1650!}",
    "2 1500 del2 {2:1500+8} {2:1500}",
    "2 4000 off A C",
    "9 5 contig A C",
]
STATUSES = [
    *["SCORED"] * 5,
    *("SYMBOLIC", "SCORED", "SPANNING_DELETION", "MISSING_ALT", "NON_ACGT"),
    *("SCORED", "SCORED", "OFF_CONTIG", "CONTIG_MISSING"),
]


def write_variants(path: Path, sequences: dict[str, str], *records: str, header: str = "") -> Path:
    """A VCF of records; those above where none are named."""
    chosen = [fill(record, sequences) for record in records or RECORDS]
    return write_vcf(path, *chosen, contigs=TINY_CONTIGS | {"9": 100}, header=header)


def score(vcf: Path, genome: Genome, model: Scbasset, **options: str) -> Scores:
    """Score a VCF beside itself, with kinds of cells."""
    ids = pd.Index([f"cell-{i}" for i in range(len(KINDS))], name="cell_id")
    model.cells = pd.DataFrame({"kind": KINDS}, index=ids)
    chosen = ScoreOptions(layout="factored", overwrite=True, **options)
    return score_variants(vcf, genome, model, vcf.parent / "scores.zarr", options=chosen)


def values_of(table: pd.DataFrame, names: list[str]) -> NDArray[np.float32]:
    """Columns of a table that was read again, (rows, columns) float32."""
    return table[names].to_numpy(dtype=np.float32)
