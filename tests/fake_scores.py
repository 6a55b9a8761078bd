"""Stores of scores with given numbers and no network behind them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scbasset_ism.encoder import Encoder, Writer
from scbasset_ism.finishing import try_to_finish
from scbasset_ism.places import place_of
from scbasset_ism.progress import Progress
from scbasset_ism.reader import Scores, open_scores
from scbasset_ism.store import Cells, Plan, Schema

STATUSES = pd.CategoricalDtype(["SCORED", "REF_MISMATCH"])
FINGERPRINT = {"model weights": "a" * 64, "rc": False, "shifts": 0}


def variant_table(variants: Sequence[str], scored: ArrayLike) -> pd.DataFrame:
    """Rows as `score` writes them, of variants such as 20:1000:A:C."""
    chrom, position, ref, alt = zip(*(text.split(":") for text in variants), strict=True)
    return pd.DataFrame(
        {
            "variant_position": np.array(position, dtype=np.int64),
            "variant_id": np.array([f"rs{i}" for i in range(len(variants))], dtype=object),
            "variant_ref": np.array(ref, dtype=object),
            "variant_alt": np.array(alt, dtype=object),
            "chrom": pd.Categorical(chrom),
            "status": pd.Categorical(
                np.where(scored, "SCORED", "REF_MISMATCH"), categories=STATUSES.categories
            ),
        },
        index=pd.Index(np.array(variants, dtype=object), name="variant_name"),
    )


def write_scores(
    path: Path,
    delta: ArrayLike,
    weight: ArrayLike,
    *,
    cells: pd.DataFrame | None = None,
    variants: Sequence[str] | None = None,
    fingerprint: dict[str, Any] | None = None,
) -> Scores:
    """Write and open a store; rows with NaN have no score."""
    numbers, head = np.asarray(delta, np.float32), np.asarray(weight, np.float32)
    if cells is None:
        names = [f"cell{i}" for i in range(len(head))]
        cells = pd.DataFrame(index=pd.Index(names, dtype=object, name="cell_id"))
    names = variants or [f"20:{1000 + i}:A:C" for i in range(len(numbers))]
    table = variant_table(names, np.isfinite(numbers).all(axis=1))
    schema = Schema(
        "score", table.iloc[:0], ("delta_bottleneck", "ref_bottleneck"), has_intercept=False
    )
    encoder = Encoder(
        schema,
        Plan(len(numbers), len(head), head.shape[1], "factored"),
        cells=Cells(cells, head, np.zeros(len(head), np.float32)),
        uns={},
        attributes={"version": "0"},
    )
    progress = Progress(place_of(path))
    manifest = encoder.manifest(fingerprint or FINGERPRINT)
    progress.begin(manifest, encoder.skeleton, overwrite=False)
    writer = Writer(encoder, progress, range(encoder.plan.n_shards))
    for shard in range(encoder.plan.n_shards):
        rows = slice(encoder.plan.rows(shard).start, encoder.plan.rows(shard).stop)
        factors = {"delta_bottleneck": numbers[rows], "ref_bottleneck": numbers[rows]}
        writer.append(table.iloc[rows], factors)
    writer.close()
    assert try_to_finish(progress, lambda _: None) == []
    return open_scores(path)
