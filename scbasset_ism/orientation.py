"""Whether the alleles of one file are those of a store, and which way round."""

from enum import StrEnum

import numpy as np
import pandas as pd

from scbasset_ism.genome import bare_name
from scbasset_ism.reader import Scores

_COMPLEMENT = str.maketrans("ACGT", "TGCA")


class Orientation(StrEnum):
    """How a variant of a file stands to the store."""

    SAME = "SAME"  # the effect allele is the store's ALT
    SWAPPED = "SWAPPED"  # it is the store's REF: effects get the other sign
    OTHER_STRAND = "OTHER_STRAND"  # the alleles are the complements of the store's
    UNMATCHED = "UNMATCHED"  # the store has no such alleles there
    UNSCORED = "UNSCORED"  # the store has it, without a score


def orient(table: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Find variants in a store.

    A SNV whose alleles are each other's complement (A and T, C and G) looks the same from the
    other strand. Where a file has any variant from the other strand, such SNVs may be swapped, and
    are no use.

    Args:
        table: `chrom`, `pos`, `other` and `effect`, in any order and with repetitions.
        scores: Contigs are found under either name, with or without chr.

    Returns:
        With the index of the table: `row` of the store (-1 where there is none), `orientation`,
        `is_ambiguous` (A/T or C/G), `is_used`.
    """
    rows = scores.rows()
    names = {chrom: bare_name(str(chrom)) for chrom in rows["chrom"].unique()}
    near = np.flatnonzero(rows["variant_position"].isin(table["pos"].unique()))
    some = rows.iloc[near]
    keys = _keys(
        some["chrom"].astype(object).map(names),
        some["variant_position"],
        some["variant_ref"].str.upper(),
        some["variant_alt"].str.upper(),
    )
    is_scored = (some["status"] == "SCORED").to_numpy()
    order = np.argsort(~is_scored, kind="stable")  # of repeated variants the first with a score
    known = dict[str, tuple[int, bool]]()
    for i in order:
        known.setdefault(keys.iloc[i], (int(near[i]), bool(is_scored[i])))
    chrom = table["chrom"].map(bare_name)
    ref, alt = table["other"], table["effect"]
    flipped = [alleles.str.translate(_COMPLEMENT) for alleles in (ref, alt)]
    ways = [
        (Orientation.SAME, _keys(chrom, table["pos"], ref, alt)),
        (Orientation.SWAPPED, _keys(chrom, table["pos"], alt, ref)),
        (Orientation.OTHER_STRAND, _keys(chrom, table["pos"], *flipped)),
        (Orientation.OTHER_STRAND, _keys(chrom, table["pos"], *flipped[::-1])),
    ]
    found = [
        next(
            (
                (row, way if scored else Orientation.UNSCORED)
                for (way, _), key in zip(ways, keys_of_row, strict=True)
                for row, scored in [known.get(key, (-1, False))]
                if row >= 0
            ),
            (-1, Orientation.UNMATCHED),
        )
        for keys_of_row in zip(*(own for _, own in ways), strict=True)
    ]
    is_snv = (ref.str.len() == 1) & (alt.str.len() == 1)
    oriented = pd.DataFrame(found, columns=["row", "orientation"], index=table.index)
    oriented["is_ambiguous"] = is_snv & (flipped[0] == alt)
    is_mixed = bool((oriented["orientation"] == Orientation.OTHER_STRAND).any())
    fits = oriented["orientation"].isin({Orientation.SAME, Orientation.SWAPPED})
    oriented["is_used"] = fits & ~oriented["is_ambiguous"] if is_mixed else fits
    return oriented


def _keys(chrom: pd.Series, pos: pd.Series, ref: pd.Series, alt: pd.Series) -> pd.Series:
    return chrom.astype(str) + ":" + pos.astype(str) + ":" + ref + ":" + alt
