"""How fast stores are written and read, with a fake model that returns random bottlenecks.

    python examples/benchmark_store.py [--rows 1000000] [--dense-rows 200000] [--json FILE]

Both layouts are written at 2,034 cells, as `score` writes them but without a network, and then
read. Each layout has a process of its own, whose largest memory is told. Every read is the first
of a store that was just opened, names included, while the files are in the system's cache; the
number is the median of the rounds.
"""

import argparse
import json
import resource
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.encoder import Encoder
from scbasset_ism.pipeline import RunOptions
from scbasset_ism.reader import Scores, open_scores
from scbasset_ism.runs import Job, Rows, run
from scbasset_ism.store import Cells, Plan, Schema
from scbasset_ism.streams import batched_by_shard

BOTTLENECK = 32
BATCH = 256
GROUPS = 10
GROUP_ROWS = 100_000
STATUSES = pd.CategoricalDtype(["SCORED", "REF_MISMATCH"])
CHROMS = pd.CategoricalDtype(["20"])


@dataclass(frozen=True)
class Line:
    """One line of the table, and of the JSON file; the value is in the unit."""

    layout: str
    what: str
    value: float
    unit: str


def table(rows: range) -> pd.DataFrame:
    """Rows as `score` writes them: 1000 Genomes names and the same columns."""
    numbers = np.arange(rows.start, rows.stop)
    ref, alt = (np.array(list("ACGT"), dtype=object)[(numbers + i) % 4] for i in (0, 1))
    names = [f"20:{60_000 + i}:{'ACGT'[i % 4]}:{'ACGT'[(i + 1) % 4]}" for i in rows]
    columns = {
        "variant_contig": np.zeros(len(rows), np.int32),
        "variant_position": numbers + 60_000,
        "variant_id": np.array([f"rs{500_000_000 + i}" for i in rows], dtype=object),
        "variant_ref": ref,
        "variant_alt": alt,
        "chrom": pd.Categorical(["20"] * len(rows), dtype=CHROMS),
        "variant_record": numbers,
        "variant_alt_index": np.ones(len(rows), np.int32),
        "status": pd.Categorical(["SCORED"] * len(rows), dtype=STATUSES),
        "window_start": numbers + 59_328,
        "n_fraction": np.zeros(len(rows), np.float32),
        "delta_logit_mean": np.zeros(len(rows), np.float32),
        "delta_logit_sd": np.ones(len(rows), np.float32),
    }
    index = pd.Index(np.array(names, dtype=object), name="variant_name")
    return pd.DataFrame(columns, index=index)


def make(
    n_rows: int, n_cells: int, options: RunOptions, attributes: dict[str, Any] | None = None
) -> Job:
    """Say what is written: random bottlenecks."""
    rng = np.random.default_rng(0)
    names = pd.Index([f"cell_{i}" for i in range(n_cells)], name="cell_id")
    cells = Cells(
        pd.DataFrame({"group": [f"group {i % GROUPS}" for i in range(n_cells)]}, index=names),
        rng.normal(size=(n_cells, BOTTLENECK)).astype(np.float32),
        rng.normal(size=n_cells).astype(np.float32),
    )
    encoder = Encoder(
        Schema(
            "score", table(range(0)), ("delta_bottleneck", "ref_bottleneck"), has_intercept=False
        ),
        Plan(n_rows, n_cells, BOTTLENECK, options.layout, options.dense_precision),
        cells=cells,
        uns={},
        attributes={"options": options.recorded()} | (attributes or {}),
    )

    def rows(ranges: Sequence[range]) -> Generator[Rows]:
        numbers = (i for wanted in ranges for i in wanted)
        for batch in batched_by_shard(numbers, ranges, options.batch_size):
            delta, ref = rng.standard_normal((2, len(batch), BOTTLENECK), dtype=np.float32)
            factors = {"delta_bottleneck": delta, "ref_bottleneck": ref}
            yield table(range(batch[0], batch[-1] + 1)), factors

    return Job(encoder, {"model": "fake"}, rows, lambda _: {})


def write(out: Path, layout: str, n_rows: int, n_cells: int) -> list[Line]:
    """Write a store, and say how fast, and with how much memory."""
    options = RunOptions(layout=layout, batch_size=BATCH)
    start = perf_counter()
    run(partial(make, n_rows, n_cells), out, options)
    taken = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return [
        Line(layout, f"write {n_rows:,} rows", n_rows / taken, "rows/s"),
        Line(layout, "largest memory", peak / (2**20 if sys.platform == "darwin" else 2**10), "MB"),
        Line(layout, "size", size / 1e6, "MB"),
    ]


def reads(n_rows: int, n_cells: int, layout: str) -> dict[str, Callable[[Scores], object]]:
    """Give what is read of a store."""
    rng = np.random.default_rng(1)
    labels = [f"group {i % GROUPS}" for i in range(n_cells)]
    some = min(GROUP_ROWS, n_rows // 2)
    together = slice(n_rows // 3, n_rows // 3 + some)
    scattered = np.sort(rng.choice(n_rows, some, replace=False))
    cell, row = n_cells // 2, n_rows // 2
    chosen: dict[str, Callable[[Scores], object]] = {
        "one cell, all rows": lambda scores: scores.cell(cell),
        "one row, all cells": lambda scores: scores.variant(row),
        f"{GROUPS} group means, {some:,} rows together": lambda scores: scores.group_mean(
            labels, rows=together
        ),
        f"{GROUPS} group means, {some:,} rows scattered": lambda scores: scores.group_mean(
            labels, rows=scattered
        ),
        "table of all rows": lambda scores: scores.variants(),
    }
    if layout == "dense":
        chosen |= {
            "X itself, one cell": lambda scores: scores.x[:, cell],
            "X itself, one row": lambda scores: scores.x[row],
        }
    return chosen


def read(out: Path, layout: str, rounds: int) -> list[Line]:
    """Read a store in every way, each time as the first read after it was opened."""
    scores = open_scores(out)
    chosen = reads(len(scores), len(scores.cells), layout)
    times: dict[str, list[float]] = {name: [] for name in ("open", *chosen)}
    for _ in range(rounds):
        for name, ask in chosen.items():
            start = perf_counter()
            scores = open_scores(out)
            opened = perf_counter()
            ask(scores)
            times["open"].append(opened - start)
            times[name].append(perf_counter() - opened)
    return [Line(layout, name, 1000 * median(taken), "ms") for name, taken in times.items()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the factored store")
    parser.add_argument("--dense-rows", type=int, default=200_000, help="of the dense store")
    parser.add_argument("--cells", type=int, default=2034)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines here too")
    options = parser.parse_args()
    lines: list[Line] = []
    with TemporaryDirectory(dir=options.folder) as folder:
        for layout, n_rows in (("factored", options.rows), ("dense", options.dense_rows)):
            out = Path(folder) / f"{layout}.zarr"
            for task in (
                partial(write, out, layout, n_rows, options.cells),
                partial(read, out, layout, options.rounds),
            ):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    found = pool.submit(task).result()
                for line in found:
                    print(f"{line.layout:<10}{line.what:<42}{line.value:>12,.1f} {line.unit}")
                lines += found
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")


if __name__ == "__main__":
    main()
