"""How fast a store is exported, and with how much memory: means of 10 groups of 2,034 cells.

    python examples/benchmark_export.py [--rows 1000000] [--cells 2034] [--folder FOLDER]

The store has random numbers, and beside it lie the VCF that was "scored" and a .bim of the same
variants. Every format has a process of its own.
"""

import argparse
import hashlib
import resource
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmark_store import GROUPS, make

from scbasset_ism import ExportOptions, RunOptions, export
from scbasset_ism.exporting import FORMATS
from scbasset_ism.runs import run


def write_inputs(folder: Path, n_rows: int, n_cells: int) -> None:
    """Write a VCF, a .bim and a factored store of the same variants."""
    vcf, bim = folder / "variants.vcf", folder / "variants.bim"
    with vcf.open("w") as records, bim.open("w") as rows:
        records.write("##fileformat=VCFv4.2\n##contig=<ID=20>\n")
        records.write('##INFO=<ID=AF,Number=A,Type=Float,Description="Frequency">\n')
        records.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for i in range(n_rows):
            name, ref, alt = f"rs{500_000_000 + i}", "ACGT"[i % 4], "ACGT"[(i + 1) % 4]
            records.write(f"20\t{60_000 + i}\t{name}\t{ref}\t{alt}\t100\tPASS\tAF=0.1\n")
            rows.write(f"20\t{name}\t0\t{60_000 + i}\t{alt}\t{ref}\n")
    digest = hashlib.sha256(vcf.read_bytes()).hexdigest()
    variants = {"path": str(vcf), "sha256": digest, "rows": n_rows}
    job = partial(make, n_rows, n_cells, attributes={"variants": variants})
    run(job, folder / "scores.zarr", RunOptions(layout="factored"))


def measure(folder: Path, ending: str) -> Sequence[float]:
    """Export once: seconds, largest memory in MB, size in MB."""
    bim = folder / "variants.bim" if ".annot" in ending else None
    out = folder / f"scores{ending}"
    start = perf_counter()
    export(folder / "scores.zarr", out, options=ExportOptions(by="group", bim=bim))
    taken = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return taken, peak / (2**20 if sys.platform == "darwin" else 2**10), out.stat().st_size / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--cells", type=int, default=2034)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one by default")
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        write_inputs(place, options.rows, options.cells)
        print(f"{options.rows:,} rows, means of {GROUPS} groups of {options.cells:,} cells")
        for ending in FORMATS:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                taken, peak, size = pool.submit(measure, place, ending).result()
            print(f"{ending:<15}{taken:8.1f} s{peak:8.0f} MB of memory{size:8.0f} MB of file")


if __name__ == "__main__":
    main()
