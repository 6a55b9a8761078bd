"""A report of scored variants: one HTML file that opens anywhere, without a network.

The page holds the strongest variants as the bottleneck numbers and the cells as their weights, and
multiplies them itself: so it shows any of the variants in every cell, and stays small.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from scbasset_ism import figures, plot
from scbasset_ism.errors import ScbassetError, StoreError
from scbasset_ism.frames import Floats
from scbasset_ism.reader import Scores, group_weights, read_rows
from scbasset_ism.report_traits import Traits, read_traits
from scbasset_ism.saturations import Saturations

MOST_CELLS = 10_000  # on the map
MOST_LOGOS = 12
MOST_UNSCORED = 500

_TEMPLATE = Path(__file__).with_name("report.html")
_SEED = 0
_SPAN = 60  # bases of a logo


def write_report(
    scores: Scores,
    out: str | Path,
    *,
    n_variants: int = 200,
    by: str | None = None,
    coordinates: pd.DataFrame | None = None,
    found: Saturations | None = None,
    finemapped: str | Path | None = None,
) -> None:
    """Write the page.

    Args:
        scores: What `score` wrote.
        out: The file; an existing one is replaced.
        n_variants: The strongest so many are shown.
        by: Column of the cells' table whose groups are compared.
        coordinates: Of the cells, (cells, 2), for the map; else the principal components of their
            weights.
        found: What `ism` wrote around some of the variants: their logos are shown.
        finemapped: Folder that `finemap` wrote: its traits are shown.

    Raises:
        ScbassetError: No variant was scored, there is no such column, the mutants are of another
            model, the folder is not of `finemap`, or the file can't be written.
    """
    page = render(
        scores,
        n_variants=n_variants,
        by=by,
        coordinates=coordinates,
        found=found,
        finemapped=finemapped,
    )
    out = Path(out)
    aside = out.with_name(f".{out.name}.part")
    try:
        aside.write_text(page, encoding="utf-8")
        aside.replace(out)
    except OSError as error:
        raise ScbassetError(f"{out} can't be written: {error.strerror}") from None


def render(
    scores: Scores,
    *,
    n_variants: int = 200,
    by: str | None = None,
    coordinates: pd.DataFrame | None = None,
    found: Saturations | None = None,
    finemapped: str | Path | None = None,
) -> str:
    """Give the page as HTML; else as `write_report`."""
    strongest = scores.strongest(n_variants, 1)
    if strongest.empty:
        raise StoreError(f"{scores.path}: no variant has a score, so there is nothing to report")
    _check_same_model(scores, found)
    groups = None if by is None else group_weights(scores.group_labels(by))
    variants = _variants(scores, strongest, groups)
    traits = None if finemapped is None else read_traits(finemapped)
    jinja2: Any = import_module("jinja2")
    page = jinja2.Template(
        _TEMPLATE.read_text("utf-8"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return page.render(
        title=Path(str(scores.path)).name,
        attributes=scores.attributes,
        n_cells=len(scores.cells),
        variants=variants,
        by=by,
        unscored=_unscored(scores),
        most_unscored=MOST_UNSCORED,
        logos=_logos(scores, found, variants, groups),
        traits=traits,
        data=_for_script(_data(scores, strongest, groups, coordinates=coordinates, traits=traits)),
    )


def _check_same_model(scores: Scores, found: Saturations | None) -> None:
    if found is None:
        return
    own, other = (store.attributes["model"]["weights_sha256"] for store in (scores, found))
    if own != other:
        raise StoreError(f"{found.path} was made with another model than {scores.path}")


def _variants(
    scores: Scores, strongest: pd.DataFrame, groups: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """Describe the variants of the table, strongest first."""
    rows = strongest["row"].to_numpy()
    table = scores.variants().iloc[rows].reset_index()
    table["delta"], table["cell"] = strongest["delta_logit"].array, strongest["cell_id"].array
    table["cell_name"] = table["cell"].map(_names(scores.cells))
    if groups is not None and len(groups):
        means = read_rows(scores.bottleneck, rows) @ (groups.to_numpy() @ scores.cell_weight).T
        best = np.abs(means).argmax(axis=1)
        table["group"] = groups.index.to_numpy()[best]
        table["group_mean"] = means[range(len(rows)), best]
    return _records(table)


def _names(cells: pd.DataFrame) -> pd.Series:
    """Give cells names to read: the column `name`, where there is one."""
    return cells["name"].astype(str) if "name" in cells else cells.index.to_series()


def _unscored(scores: Scores) -> list[dict[str, Any]]:
    table = scores.variants()
    columns = ["variant_id", "status"]
    return _records(table[table["status"] != "SCORED"][columns].reset_index())


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _logos(
    scores: Scores,
    found: Saturations | None,
    variants: list[dict[str, Any]],
    groups: pd.DataFrame | None,
) -> list[dict[str, str]]:
    """Draw logos of the variants that were mutated, for the groups at both ends of the effect."""
    if found is None:
        return []
    windows = found.windows()
    names = set(windows.loc[windows["status"] == "SCORED", "source"])
    mutated = [variant for variant in variants if variant["variant_name"] in names]
    return [_logo(scores, found, variant, groups) for variant in mutated[:MOST_LOGOS]]


def _logo(
    scores: Scores, found: Saturations, variant: dict[str, Any], groups: pd.DataFrame | None
) -> dict[str, str]:
    effects = scores.variant(variant["variant_name"]).to_numpy()
    members: Mapping[str, list[int]]
    if groups is None or not len(groups):
        order, names = np.argsort(-np.abs(effects), kind="stable"), _names(scores.cells)
        members = {names.iloc[cell]: [int(cell)] for cell in (order[0], order[-1])}
    else:
        order = np.argsort(-np.abs(groups.to_numpy() @ effects), kind="stable")
        members = {
            str(groups.index[group]): np.flatnonzero(groups.iloc[group]).tolist()
            for group in (order[0], order[-1])
        }
    figure = figures.logos(found, variant["variant_name"], groups=members, span=_SPAN)
    picture = b64encode(plot.to_bytes(figure, "svg")).decode()
    text = f"What each base around {variant['variant_name']} is worth in {' and '.join(members)}"
    return {"name": variant["variant_name"], "text": text, "picture": picture}


def _data(
    scores: Scores,
    strongest: pd.DataFrame,
    groups: pd.DataFrame | None,
    *,
    coordinates: pd.DataFrame | None,
    traits: Traits | None,
) -> dict[str, Any]:
    """Collect what the page computes with."""
    places = coordinates
    if places is None:
        places = figures.principal_components(scores.cell_weight)
    n_cells = len(scores.cells)
    shown = np.arange(n_cells)
    if n_cells > MOST_CELLS:
        rng = np.random.default_rng(_SEED)
        shown = np.sort(rng.choice(n_cells, MOST_CELLS, replace=False))
    rows = read_rows(scores.bottleneck, strongest["row"].to_numpy())
    data: dict[str, Any] = {
        "delta": _packed(rows if traits is None else np.concatenate([rows, traits.bottleneck])),
        "weight": _packed(scores.cell_weight[shown]),
        "bottleneck": scores.cell_weight.shape[1],
        "cells": _names(scores.cells).iloc[shown].tolist(),
        "places": _packed(_unit(places.to_numpy(dtype=float)[shown])),
        "axes": [str(name) for name in places.columns],
        "colours": [to_hex(c) for c in matplotlib.colormaps[plot.EFFECTS](np.linspace(0, 1, 33))],
    }
    if groups is not None:
        data["groups"] = [str(name) for name in groups.index]
        data["sizes"] = (groups.to_numpy() > 0).sum(axis=1).tolist()
        data["group_weight"] = _packed(groups.to_numpy() @ scores.cell_weight)
    return data


def _unit(places: Floats) -> Floats:
    """Move points into the unit square."""
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.where(high > low, high - low, 1)


def _packed(values: Floats) -> str:
    """Write numbers as base64 of little-endian float32, row by row."""
    return b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _for_script(data: dict[str, Any]) -> str:
    """Write JSON that can stand in a script element: nothing in it can end that element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
