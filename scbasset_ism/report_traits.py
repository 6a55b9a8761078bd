"""What `finemap` wrote, as a report shows it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.errors import ScbassetError
from scbasset_ism.frames import Floats

MOST_VARIANTS = 10  # of a trait
MOST_GROUPS = 10

_SUFFIXES = (".tsv", ".tsv.gz", ".parquet")


@dataclass(frozen=True)
class Traits:
    """Traits of a fine-mapping result.

    Attributes:
        table: Their counts, a row each.
        groups: Of each trait the groups with the largest z, if cells were grouped.
        variants: Of each trait the variants with the highest priority.
        bottleneck: What the signed scores of cells are made of, (traits, bottleneck) float32.
    """

    table: list[dict[str, Any]]
    groups: list[list[dict[str, Any]]]
    variants: list[list[dict[str, Any]]]
    bottleneck: Floats


def read_traits(folder: str | Path) -> Traits:
    """Read the tables in a folder of `finemap`.

    Raises:
        ScbassetError: It holds no such tables.
    """
    traits, variants = _table(folder, "traits"), _table(folder, "variants")
    if traits is None or variants is None:
        raise ScbassetError(f"{folder} is no folder of `finemap`: it holds no traits and variants")
    groups = _table(folder, "groups")
    numbers = traits.filter(regex=r"^bottleneck_\d+$").to_numpy(dtype=np.float32)
    names = list(traits["trait"])
    return Traits(
        table=_records(traits[["trait", "n_credible", "n_loci", "sum_pip", "n_controls"]]),
        groups=[[] for _ in names]
        if groups is None
        else [_top(groups, name, "z", MOST_GROUPS) for name in names],
        variants=[_top(variants, name, "priority", MOST_VARIANTS) for name in names],
        bottleneck=numbers,
    )


def _table(folder: str | Path, name: str) -> pd.DataFrame | None:
    for suffix in _SUFFIXES:
        path = Path(folder, name + suffix)
        if path.is_file():
            is_parquet = suffix == ".parquet"
            return pd.read_parquet(path) if is_parquet else pd.read_csv(path, sep="\t")
    return None


def _top(table: pd.DataFrame, trait: str, by: str, most: int) -> list[dict[str, Any]]:
    own = table[table["trait"] == trait]
    return _records(own.sort_values(by, ascending=False, kind="stable").head(most))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
