"""Computes windows of a finished store again, by their definition."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scbasset_ism import vcf
from scbasset_ism.attribution import AttributionOptions, baselines, import_captum
from scbasset_ism.attributions import Attributions
from scbasset_ism.bases import Codes
from scbasset_ism.delta import Edits, naive_delta
from scbasset_ism.errors import StoreError
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset, eval_mode, one_hot
from scbasset_ism.reader import Store
from scbasset_ism.reference_pass import true_float32
from scbasset_ism.rescoring import check_genome, needed_genome
from scbasset_ism.saturations import Saturations
from scbasset_ism.variants import Variant
from scbasset_ism.views import all_views
from scbasset_ism.windows import Frame, alternate_windows, read_window

_BATCH = 64  # sequences


def mutate_again(
    rows: pd.DataFrame,
    saturations: Saturations,
    genome: Genome | None,
    model: Scbasset,
    *,
    seed: int,
) -> tuple[list[tuple[int, int]], Floats]:
    """Make one substitution of each of some windows again, by two full passes.

    Args:
        rows: Of the table of the store.
        saturations: Where they are from.
        genome: The one that it was written with.
        model: The one that it was written with.
        seed: Which substitutions; the base that is there may be among them.

    Returns:
        Position and base of each, and its alt minus ref, (rows, bottleneck).

    Raises:
        StoreError: It is another genome, or none was given.
    """
    frame, options = _frame(saturations, model), saturations.attributes["options"]
    rng = np.random.default_rng(seed)
    spans, stretches = _windows(rows, saturations, genome, frame)
    places = [
        (int(rng.integers(place.stop - place.start)), int(rng.integers(4))) for place in stretches
    ]
    offsets = [within.start + place for within, (place, _) in zip(stretches, places, strict=True)]
    codes = torch.from_numpy(spans).to(model.head.weight.device)
    edits = Edits(
        torch.arange(len(codes), device=codes.device),
        torch.tensor(offsets, device=codes.device),
        torch.tensor([[b] for _, b in places], dtype=torch.uint8, device=codes.device),
    )
    views = all_views(frame.window, rc=options["rc"], shifts=options["shifts"])
    deltas = [
        naive_delta(model, view.codes(codes), view.edits(edits)).delta_bottleneck for view in views
    ]
    return places, np.asarray(torch.stack(deltas).mean(0).float().cpu().numpy())


@dataclass(frozen=True)
class Attributed:
    """Attributions of one cell.

    Attributes:
        cell: Its number.
        hypothetical: Of a stretch, (positions, 4).
        difference: In logits, from the baseline to the window; 0 where there is no baseline.
    """

    cell: int
    hypothetical: Floats
    difference: float


def attribute_again(
    rows: pd.DataFrame,
    attributions: Attributions,
    genome: Genome | None,
    model: Scbasset,
    *,
    seed: int,
) -> list[Attributed]:
    """Attribute the logit of one cell in each of some windows, by Captum and nothing else.

    Args:
        rows: Of the table of the store.
        attributions: Where they are from.
        genome: The one that it was written with.
        model: The one that it was written with.
        seed: Which cells.

    Raises:
        StoreError: It is another genome, or none was given.
        ScbassetError: Captum is not installed.
    """
    frame, recorded = _frame(attributions, model), attributions.attributes["options"]
    own = {field.name: recorded[field.name] for field in fields(AttributionOptions)}
    options, rng = AttributionOptions(**own), np.random.default_rng(seed)
    views = all_views(frame.window, rc=recorded["rc"], shifts=recorded["shifts"])
    spans, stretches = _windows(rows, attributions, genome, frame)
    own_shuffles = [_has_own_shuffles(row) for row in rows.to_dict("records")]
    as_shuffled = rows.assign(allele=np.where(own_shuffles, rows["allele"], "ref"))
    shuffled, _ = _windows(as_shuffled, attributions, genome, frame)

    def logits(x: Tensor) -> Tensor:
        return torch.stack([model(view.one_hot(x)) for view in views]).mean(0)

    found = []
    with eval_mode(model), true_float32():
        for i, n_steps in enumerate(rows["n_steps"].tolist()):
            cell = int(rng.integers(model.config.n_cells))
            x = _one_hot(model, spans[i : i + 1])
            starts = _one_hot(model, baselines(shuffled[i : i + 1], options)[0])
            maps, difference = _of_cell(logits, x, starts, cell=cell, n_steps=n_steps)
            found.append(Attributed(cell, maps[:, stretches[i]].T, difference))
    return found


def _has_own_shuffles(row: dict[Hashable, Any]) -> bool:
    """Both haplotypes of a substitution have those of the reference."""
    if row["allele"] == "ref":
        return True
    variant = Variant.parse(str(row["source"]))
    return not variant.is_substitution


def _of_cell(
    logits: Callable[[Tensor], Tensor], x: Tensor, starts: Tensor, *, cell: int, n_steps: int
) -> tuple[Floats, float]:
    """Give (4, span) hypothetical attributions of a cell, and its difference in logits."""
    captum = import_captum()
    if not n_steps:
        maps = captum.Saliency(logits).attribute(x.requires_grad_(), target=cell, abs=False)
        return maps[0].cpu().numpy(), 0.0
    maps = []
    for start in torch.split(starts, 1):
        gradient = captum.IntegratedGradients(logits, multiply_by_inputs=False).attribute(
            x, start, target=cell, n_steps=n_steps, internal_batch_size=_BATCH
        )
        maps.append(gradient - (gradient * start).sum(1, keepdim=True))
    with torch.no_grad():
        difference = (
            logits(x)[0, cell]
            - torch.cat([logits(some)[:, cell] for some in torch.split(starts, _BATCH)]).mean()
        )
    return torch.cat(maps).mean(0).detach().cpu().numpy(), float(difference)


def _one_hot(model: Scbasset, codes: Codes) -> Tensor:
    weight = model.head.weight
    return one_hot(torch.from_numpy(codes).to(weight.device), weight.dtype)


def _frame(store: Store, model: Scbasset) -> Frame:
    return Frame(model.config.window, margin=store.attributes["options"]["shifts"])


def _windows(
    rows: pd.DataFrame, store: Store, genome: Genome | None, frame: Frame
) -> tuple[Codes, list[slice]]:
    """Read windows of stretches, by the rule and not by the start that is stored.

    Gives the codes, (rows, span), and where the stretches lie in them.
    """
    genome, codes, stretches = needed_genome(store, genome), list[Codes](), list[slice]()
    for row in rows.to_dict("records"):
        first, stop = int(row["start"]), int(row["stop"])
        start = (first + stop) // 2 - frame.window // 2
        chrom = genome.resolve(str(row["chrom"])) or str(row["chrom"])
        if row["allele"] == "ref":
            codes.append(read_window(genome, chrom, start, frame))
        else:
            (record,) = vcf.read([Variant.parse(str(row["source"]))], genome)
            if record.variant is None:
                raise StoreError(
                    f"{store.path}: {row['source']} has no score in {genome.path} "
                    f"({record.status.name}); is it the same genome?"
                )
            codes.append(alternate_windows(record.variant, genome, start, frame)[0])
        begin = first - start + frame.margin
        stretches.append(slice(begin, begin + stop - first))
    check_genome(store, genome)
    return np.stack(codes), stretches
