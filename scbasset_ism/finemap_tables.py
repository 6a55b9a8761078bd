"""The tables of a fine-mapping result, as other tools take them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from scbasset_ism.controls import Doubles, Null, false_discovery_rate
from scbasset_ism.finemapping import Finemap, TraitScores
from scbasset_ism.frames import Floats
from scbasset_ism.reader import read_rows
from scbasset_ism.tables import write_table


def write_finemap(found: Finemap, folder: str | Path, *, suffix: str = ".tsv") -> list[str]:
    """Write all tables into a folder.

    Args:
        found: The result.
        folder: It need not exist; files of the same names are replaced.
        suffix: `.tsv`, `.tsv.gz` or `.parquet`; `scdrs/TRAIT.score.gz` is what scDRS reads.

    Returns:
        Names of the files.
    """
    made: dict[str, Callable[[Finemap], pd.DataFrame]] = {
        "traits": trait_table,
        "cells": cell_table,
        "variants": variant_table,
        "alleles": allele_table,
        "obs": obs_table,
    }
    if found.units.groups is not None:
        made |= {"groups": group_table, "shares": share_table}
    names = [f"{name}{suffix}" for name in made]
    for name, table in zip(names, made.values(), strict=True):
        write_table([table(found)], Path(folder) / name)
    for trait in found.traits:
        if trait.unsigned_null is not None:
            name = f"scdrs/{_file_name(trait.trait)}.score.gz"
            write_table([scdrs_table(found, trait)], Path(folder) / name)
            names.append(name)
    return names


def trait_table(found: Finemap) -> pd.DataFrame:
    """Give a row to every trait: counts, and the bottleneck that makes its signed score."""
    counts = found.alleles.groupby("trait")
    rows: list[dict[str, Any]] = []
    for trait in found.traits:
        own = counts.get_group(trait.trait)
        rows.append(
            {
                "trait": trait.trait,
                "n_rows": len(own),
                "n_credible": len(trait.variants),
                "n_loci": trait.variants["locus"].nunique(),
                "sum_pip": trait.variants["pip"].sum(),
                "n_signed": int((trait.variants["sign"] != 0).sum()),
                "n_swapped": int((own["orientation"] == "SWAPPED").sum()),
                "n_ambiguous": int(own["is_ambiguous"].sum()),
                "n_unused": int((~own["is_used"]).sum()),
                "n_controls": trait.n_controls,
                "matched_on": ",".join(trait.matched_on),
                **{f"bottleneck_{i}": value for i, value in enumerate(trait.bottleneck)},
            }
        )
    return pd.DataFrame(rows)


def cell_table(found: Finemap) -> pd.DataFrame:
    """Give a row to every trait and cell: scores, z, p and FDR over the trait's cells."""
    n_cells = len(found.scores.cells)
    return _scores(found, slice(n_cells), {"cell_id": found.scores.cells.index})


def group_table(found: Finemap) -> pd.DataFrame:
    """Give a row to every trait and group: mean scores of its cells, z, p and FDR over groups."""
    groups = found.units.groups
    assert groups is not None
    names = {"group": groups.names, "n_cells": groups.sizes}
    return _scores(found, slice(len(found.scores.cells), None), names)


def _scores(found: Finemap, units: slice, names: dict[str, Any]) -> pd.DataFrame:
    tables = []
    for trait in found.traits:
        columns: dict[str, Any] = {"trait": trait.trait, **names}
        for name, score, null in (
            ("score", trait.unsigned, trait.unsigned_null),
            ("signed_score", trait.signed, trait.signed_null),
        ):
            prefix = name.removesuffix("score")
            nothing = np.full(len(score), np.nan)
            columns[name] = score[units]
            columns[f"{prefix}z"] = (nothing if null is None else null.z)[units]
            columns[f"{prefix}p"] = (nothing if null is None else null.p)[units]
            columns[f"{prefix}fdr"] = false_discovery_rate(columns[f"{prefix}p"])
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def obs_table(found: Finemap) -> pd.DataFrame:
    """Give a row to every cell, with columns for `adata.obs`: `TRAIT_z`, `TRAIT_fdr`, ..."""
    long = cell_table(found)
    kept = ["score", "z", "fdr", "signed_score", "signed_z", "signed_fdr"]
    wide = long.pivot(index="cell_id", columns="trait", values=kept)
    wide = wide.reindex(found.scores.cells.index)
    order = [(name, trait.trait) for trait in found.traits for name in kept]
    wide = wide[order]
    wide.columns = pd.Index([f"{trait}_{name}" for name, trait in order])
    return wide.rename_axis("cell_id").reset_index()


def variant_table(found: Finemap) -> pd.DataFrame:
    """Give a row to every credible variant of a trait, by locus and `rank`.

    `group` is where it acts: where its effect is largest, by z with a background. `priority` is
    PIP times that absolute z, without a background times the absolute delta.
    """
    groups, cells = found.units.groups, found.scores.cells
    weight = found.units.weight if groups is None else found.units.weight[len(cells) :]
    names = (cells.index if groups is None else groups.names).to_numpy()
    calibration = found.background and found.background.calibrate(weight)
    row_names, tables = found.scores.row_names, []
    for trait in found.traits:
        own = trait.variants
        delta = _deltas(found, own) @ weight.T
        z = calibration.z(delta) if calibration else None
        best = np.abs(delta if z is None else z).argmax(axis=1)[:, None]

        def at(values: Any, where: Any = best) -> Any:
            return np.take_along_axis(values, where, axis=1)[:, 0]

        columns: dict[str, Any] = {
            "trait": trait.trait,
            "locus": own["locus"],
            "variant_name": row_names[own["row"]],
            "row": own["row"],
            "pip": own["pip"],
            "beta": own["beta"],
            "orientation": own["orientation"],
            "group": names[best[:, 0]],
            "delta": at(delta),
            "trait_delta": np.where(own["sign"] == 0, np.nan, own["sign"] * at(delta)),
        }
        if calibration and z is not None:
            columns["z"] = at(z)
            columns["percentile"] = at(calibration.percentile(delta))
        table = pd.DataFrame(columns)
        table["priority"] = table["pip"] * np.abs(at(delta if z is None else z))
        table["rank"] = table.groupby("locus")["priority"].rank(ascending=False, method="first")
        tables.append(table.sort_values(["locus", "rank"], kind="stable"))
    whole = pd.concat(tables, ignore_index=True)
    return whole.assign(rank=whole["rank"].astype(int))


def share_table(found: Finemap) -> pd.DataFrame:
    """Give every credible variant's part of the scores of every group.

    `score` is its part of the unsigned score and `share` that as a share of it; `signed_score` is
    its part of the signed score.
    """
    groups, n_cells = found.units.groups, len(found.scores.cells)
    assert groups is not None
    row_names, tables = found.scores.row_names, []
    for trait in found.traits:
        own = trait.variants
        delta = _deltas(found, own)
        pip, sign = (own[name].to_numpy()[:, None] for name in ("pip", "sign"))
        parts = pip * found.units.size(delta)[:, n_cells:]
        signed = pip * sign * (delta @ found.units.weight[n_cells:].T)
        tables.append(
            pd.DataFrame(
                {
                    "trait": trait.trait,
                    "variant_name": np.repeat(row_names[own["row"]], len(groups.names)),
                    "group": np.tile(groups.names, len(own)),
                    "score": parts.ravel(),
                    "share": (parts / parts.sum(axis=0)).ravel(),
                    "signed_score": signed.ravel(),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def allele_table(found: Finemap) -> pd.DataFrame:
    """List the rows of the files that are not simply used: swapped, ambiguous, not found."""
    plain = (found.alleles["orientation"] == "SAME") & ~found.alleles["is_ambiguous"]
    return found.alleles[~plain].reset_index(drop=True)


def scdrs_table(found: Finemap, trait: TraitScores) -> pd.DataFrame:
    """Give the cells' unsigned scores as scDRS writes them (`TRAIT.score.gz`)."""
    null = trait.unsigned_null
    assert isinstance(null, Null)
    cells = slice(len(found.scores.cells))
    p: Doubles = null.pooled_p[cells]
    return pd.DataFrame(
        {
            "index": found.scores.cells.index,
            "raw_score": trait.unsigned[cells],
            "norm_score": null.z[cells],
            "mc_pval": null.p[cells],
            "pval": p,
            "nlog10_pval": -np.log10(p),
            "zscore": list(_normal_scores(p)),
        }
    )


def _normal_scores(p: Doubles) -> Iterator[float]:
    """Give the quantile of the normal distribution with p above it, from -10 to 10 as scDRS."""
    normal = NormalDist()
    for value in p:
        if np.isnan(value):
            yield float("nan")
        else:
            yield -10.0 if value >= 1 else min(10.0, max(-10.0, -normal.inv_cdf(value)))


def _deltas(found: Finemap, variants: pd.DataFrame) -> Floats:
    """Read delta_bottleneck of a trait's variants, (variants, bottleneck) float32."""
    return read_rows(found.scores.delta_bottleneck, variants["row"].to_numpy())


def _file_name(trait: str) -> str:
    """Make a name of a file of a trait's."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in trait)
