"""Scores rows of a finished store again, by the definition and nothing of what makes it fast."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from scbasset_ism import vcf
from scbasset_ism.bases import Codes, encode
from scbasset_ism.delta import Edits, naive_delta
from scbasset_ism.errors import ScbassetError, StoreError
from scbasset_ism.frames import Floats
from scbasset_ism.genome import Genome, read_fasta
from scbasset_ism.model import Scbasset, eval_mode, one_hot
from scbasset_ism.provenance import fingerprint_file
from scbasset_ism.reader import Scores, Store
from scbasset_ism.reference_pass import true_float32
from scbasset_ism.regions import Region
from scbasset_ism.streams import pick
from scbasset_ism.variants import Variant
from scbasset_ism.views import all_views
from scbasset_ism.windows import Frame, alternate_windows, read_window

_COLUMNS = ("chrom", "variant_position", "variant_ref", "variant_alt")
_BATCH = 64  # windows


Numbers = NDArray[np.int64]


class InputGoneError(ScbassetError):
    """The sequences of a store are no longer where they were, so it can't be scored again."""


def rescore_variants(
    rows: pd.DataFrame, scores: Scores, genome: Genome | None, model: Scbasset
) -> Floats:
    """Score variants of a store, each with its whole alternate window as the edit.

    Args:
        rows: Of the table of the store.
        scores: Where they are from.
        genome: The one that it was written with.
        model: The one that it was written with.

    Returns:
        Alt minus ref, (rows, bottleneck).

    Raises:
        StoreError: It is another genome, or none was given.
    """
    genome, options = needed_genome(scores, genome), scores.attributes["options"]
    frame = Frame(model.config.window, margin=options["shifts"])
    variants = [
        Variant(str(chrom), int(position) - 1, ref.upper(), alt.upper())
        for chrom, position, ref, alt in zip(*(rows[name] for name in _COLUMNS), strict=True)
    ]
    peaks = rows["peak"] if "peak" in rows else pd.Series("", index=rows.index)
    ref, alt, signs = [], [], []
    for record, start, peak in zip(
        vcf.read(variants, genome, ref_mismatch=options["ref_mismatch"]),
        rows["window_start"],
        peaks,
        strict=True,
    ):
        if record.variant is None:
            raise StoreError(
                f"{scores.path}: {record.chrom}:{record.pos} has no score in "
                f"{genome.path} ({record.status.name}); is it the same genome?"
            )
        own = record.variant.start - frame.window // 2
        first = int(start) if peak else own
        ref.append(read_window(genome, record.variant.chrom, first, frame))
        alt.append(alternate_windows(record.variant, genome, first, frame))
        signs.append(record.sign)
    check_genome(scores, genome)
    codes = torch.from_numpy(np.stack(ref)).to(model.head.weight.device)
    alternates = torch.from_numpy(np.concatenate(alt)).to(codes.device)  # two fillings a row
    window = torch.arange(len(codes), device=codes.device).repeat_interleave(2)
    deltas = []
    for view in all_views(frame.window, rc=options["rc"], shifts=options["shifts"]):
        edits = Edits(window, torch.zeros_like(window), view.codes(alternates))
        both = naive_delta(model, view.codes(codes), edits).delta_bottleneck
        deltas.append(both.view(len(codes), 2, -1).mean(1))
    mean = torch.stack(deltas).mean(0).float().cpu().numpy()
    return np.asarray(mean * np.array(signs, np.float32)[:, None])


def predict_again(
    numbers: Numbers, predictions: Store, genome: Genome | None, model: Scbasset
) -> Floats:
    """Predict rows of a store by plain passes.

    Args:
        numbers: Which rows, ascending.
        predictions: Where they are from.
        genome: The one that it was written with; None where that needs none.
        model: The one that it was written with.

    Returns:
        Bottleneck, (rows, bottleneck).

    Raises:
        InputGoneError: The file of the sequences is not there, or is another one now.
        StoreError: It is another genome, or none was given.
    """
    options = predictions.attributes["options"]
    frame = Frame(model.config.window, margin=options["shifts"])
    if "genome" in predictions.attributes:
        windows = _regions(numbers, predictions, genome, frame)
    else:
        chosen = pick(_sequences(predictions), [range(n, n + 1) for n in numbers])
        windows = [encode(text) for text in chosen]
    codes = torch.from_numpy(np.stack(windows)).to(model.head.weight.device)
    views = all_views(frame.window, rc=options["rc"], shifts=options["shifts"])
    with eval_mode(model), torch.inference_mode(), true_float32():
        dtype = model.head.weight.dtype
        batches = [
            torch.stack([model.encode(one_hot(view.codes(some), dtype)) for view in views]).mean(0)
            for some in torch.split(codes, _BATCH)
        ]
    return np.asarray(torch.cat(batches).float().cpu().numpy())


def _regions(
    numbers: Numbers, predictions: Store, genome: Genome | None, frame: Frame
) -> list[Codes]:
    """Read the windows of regions, by the rule and not by the start that is stored."""
    genome, windows = needed_genome(predictions, genome), []
    rows = predictions.rows().iloc[numbers]
    for chrom, start, stop in zip(rows["chrom"], rows["start"], rows["stop"], strict=True):
        name = genome.resolve(str(chrom))
        if name is None:
            raise StoreError(f"{predictions.path}: {genome.path} has no contig {chrom}")
        region = Region(name, int(start), int(stop), "", 0)
        windows.append(read_window(genome, name, region.window_start(frame.window), frame))
    check_genome(predictions, genome)
    return windows


def _sequences(predictions: Store) -> Iterator[str]:
    """Read the sequences of a store where they came from, (rows) texts."""
    for one in predictions.inputs:
        path, known = one["sequences"], one["fingerprint"]["sequences"]
        if set(known.upper()) <= set("ACGTN"):  # it was given as text, and stands for itself
            yield known
        elif not Path(path).is_file():
            raise InputGoneError(f"{path} is not here")
        elif fingerprint_file(path) != known:
            raise InputGoneError(f"{path} is not the file that it was")
        else:
            yield from (text for _, text in read_fasta(Path(path)))


def needed_genome(store: Store, genome: Genome | None) -> Genome:
    """Give the genome, or say that one is needed."""
    if genome is None:
        raise StoreError(f"{store.path} was written with a genome: give its --genome")
    return genome


def check_genome(store: Store, genome: Genome) -> None:
    """Raise StoreError where contigs that were read are not those of the store."""
    for contig, md5 in genome.md5s.items():
        recorded = store.attributes["genome"]["contig_md5"].get(contig)
        if recorded != md5:
            raise StoreError(
                f"{store.path} was written with another {contig} (MD5 {recorded}) than "
                f"{genome.path} has ({md5}): give its --genome"
            )
