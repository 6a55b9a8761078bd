"""Alleles are found whichever way round they are written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_scores import write_scores

from scbasset_ism.orientation import Orientation, orient
from scbasset_ism.reader import Scores


@pytest.fixture
def scores(tmp_path: Path) -> Scores:
    names = ["20:10:A:C", "20:10:A:G", "20:20:A:T", "20:30:C:CAT", "X:40:G:A", "20:50:G:T"]
    delta = np.ones((7, 2))
    delta[5] = np.nan  # and the same variant once more, with a score
    return write_scores(tmp_path / "s.zarr", delta, np.ones((3, 2)), variants=[*names, "20:50:G:T"])


CASES = {
    "20 10 A C": (0, "SAME"),
    "chr20 10 A G": (1, "SAME"),
    "20 10 G A": (1, "SWAPPED"),
    "20 10 C G": (-1, "UNMATCHED"),
    "20 10 T G": (0, "OTHER_STRAND"),
    "20 10 G T": (0, "OTHER_STRAND"),
    "20 11 A C": (-1, "UNMATCHED"),
    "20 20 A T": (2, "SAME"),
    "20 20 T A": (2, "SWAPPED"),
    "20 30 C CAT": (3, "SAME"),
    "20 30 CAT C": (3, "SWAPPED"),
    "20 30 C CTT": (-1, "UNMATCHED"),
    "X 40 G A": (4, "SAME"),
    "20 40 G A": (-1, "UNMATCHED"),
    "20 50 G T": (6, "SAME"),
}


def table(*rows: str) -> pd.DataFrame:
    found = pd.DataFrame([row.split() for row in rows], columns=["chrom", "pos", "other", "effect"])
    return found.astype({"pos": int})


@pytest.mark.parametrize("row", CASES)
def test_rows(scores: Scores, row: str) -> None:
    found = orient(table(row), scores).iloc[0]
    assert (found["row"], found["orientation"]) == CASES[row]
    assert found["is_ambiguous"] == (row in {"20 20 A T", "20 20 T A", "20 10 C G"})
    assert found["is_used"] == (found["orientation"] in {"SAME", "SWAPPED"})


def test_ambiguous_variants_need_a_file_of_one_strand(scores: Scores) -> None:
    found = orient(table("20 20 A T", "20 10 A C", "20 10 T C"), scores)
    assert found["orientation"].tolist() == ["SAME", "SAME", "OTHER_STRAND"]
    assert found["is_used"].tolist() == [False, True, False]


def test_a_variant_without_a_score(tmp_path: Path) -> None:
    store = write_scores(tmp_path / "t.zarr", [[np.nan]], [[1.0]], variants=["20:50:G:T"])
    found = orient(table("20 50 T G"), store).iloc[0]
    assert found["orientation"] == Orientation.UNSCORED
    assert not found["is_used"]
