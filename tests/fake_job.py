"""A run without a network: random bottlenecks, the same for the same row.

As a script it writes a store of 48 shards with two workers: `fake_job.py OUT [--overwrite]`.
"""

import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from scbasset_ism import store
from scbasset_ism.agreement import SelfCheck
from scbasset_ism.encoder import Encoder
from scbasset_ism.frames import Floats
from scbasset_ism.pipeline import RunOptions
from scbasset_ism.runs import Job, Rows, run
from scbasset_ism.store import Cells, Plan, Schema
from scbasset_ism.streams import batched_by_shard

BOTTLENECK, N_CELLS = 3, 7
STATUSES = pd.CategoricalDtype(["SCORED", "SYMBOLIC"])


@dataclass(frozen=True)
class Fake:
    """What a fake run writes.

    Attributes:
        n_rows: Rows of the store.
        shard_rows: Rows of a shard.
        seconds: What a batch takes.
        seed: Another seed, other variants.
        first: Number of the first row, where the rows are a part of a longer input.
        weights: Seed of the cells' weights.
    """

    n_rows: int = 380
    shard_rows: int = 8
    seconds: float = 0.0
    seed: int = 0
    weights: int = 0
    first: int = 0

    @property
    def chroms(self) -> pd.CategoricalDtype:
        """Contigs in order of appearance; one has 100 rows."""
        numbers = range(self.first, self.first + self.n_rows)
        return pd.CategoricalDtype([str(i) for i in dict.fromkeys(n // 100 + 1 for n in numbers)])


def table(numbers: Sequence[int], fake: Fake) -> pd.DataFrame:
    """Rows of a store; every fifth has no score."""
    rows = np.array(numbers, dtype=np.int64)
    return pd.DataFrame(
        {
            "chrom": pd.Categorical((rows // 100 + 1).astype(str), dtype=fake.chroms),
            "variant_record": rows - fake.first,
            "variant_position": rows + 1000,
            "variant_id": np.array([f"rs{i}" for i in rows], dtype=object),
            "status": pd.Categorical(np.where(rows % 5 != 3, "SCORED", "SYMBOLIC"), dtype=STATUSES),
        },
        index=pd.Index([f"1:{i}:A:C" for i in rows], dtype=object, name="variant_name"),
    )


def factors(numbers: Sequence[int], seed: int) -> dict[str, Floats]:
    """Bottlenecks, NaN where a row has no score."""
    values = np.stack([np.random.default_rng([seed, i]).normal(size=(2, 3)) for i in numbers])
    values[np.array(numbers) % 5 == 3] = np.nan
    delta, ref = np.moveaxis(values.astype(np.float32), 1, 0)
    return {"delta_bottleneck": delta, "ref_bottleneck": ref}


def make(fake: Fake, options: RunOptions) -> Job:
    """Say what a fake run writes."""
    store.SHARD_ROWS = dict.fromkeys(("dense", "factored"), fake.shard_rows)
    store.CHUNK_ROWS = 4
    rng = np.random.default_rng(fake.weights)
    weight = rng.normal(size=(N_CELLS, BOTTLENECK)).astype(np.float32)
    ids = pd.Index([f"AAAC-{i}" for i in range(N_CELLS)], name="cell_id")
    cells = Cells(pd.DataFrame(index=ids), weight, weight[:, 0])
    encoder = Encoder(
        Schema(
            "score", table([], fake), ("delta_bottleneck", "ref_bottleneck"), has_intercept=False
        ),
        Plan(fake.n_rows, N_CELLS, BOTTLENECK, options.layout, options.dense_precision),
        cells=cells,
        uns={("contigs", "contig_id"): np.array(["1"], dtype=object)},
        attributes={
            "options": options.recorded() | {"precision": "float32", "region": None},
            "genome": {"path": "g.fa"},
            "variants": {"path": f"{fake.first}.vcf", "sha256": "0", "rows": fake.n_rows},
        },
    )

    def rows(ranges: Sequence[range]) -> Generator[Rows]:
        numbers = (i + fake.first for wanted in ranges for i in wanted)
        for batch in batched_by_shard(numbers, ranges, options.batch_size):
            time.sleep(fake.seconds)
            yield table(batch, fake), factors(batch, fake.seed)

    facts = {
        "contig_md5": {"1": "ab"},
        "device": "cpu",
        "self_check": SelfCheck(2, 1e-6 * (fake.first + 1), 1e-12, 1.0, 1.0, 6).sums(),
    }
    variants = f"sha{fake.seed}" + (f" from {fake.first}" if fake.first else "")
    fingerprint = {"variants": variants, "weights": f"sha{fake.weights}"}
    return Job(encoder, fingerprint | options.recorded(), rows, lambda _: facts)


def write(out: Path | str, fake: Fake | None = None, **options: object) -> None:
    """Write a whole fake store."""
    chosen = RunOptions(batch_size=3, **options)  # type: ignore[arg-type]
    run(partial(make, fake or Fake()), out, chosen)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]), Fake(seconds=0.01), workers=2, overwrite="--overwrite" in sys.argv)
