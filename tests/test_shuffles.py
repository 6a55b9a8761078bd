"""Shuffles keep the dinucleotides, all of them are equally likely, and a seed gives one again."""

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scbasset_ism.bases import decode, encode
from scbasset_ism.shuffles import dinucleotide_shuffle


def shuffle(text: str, seed: int = 0) -> str:
    return decode(dinucleotide_shuffle(encode(text), np.random.default_rng(seed)))


def pairs(text: str) -> Counter[tuple[str, str]]:
    return Counter(pairwise(text))


@given(st.text("ACGTN", max_size=80), st.integers(0, 3))
def test_dinucleotides_stay(text: str, seed: int) -> None:
    shuffled = shuffle(text, seed)
    assert pairs(shuffled) == pairs(text)
    assert len(shuffled) == len(text)
    assert (shuffled[:1], shuffled[-1:]) == (text[:1], text[-1:])
    assert [base == "N" for base in shuffled] == [base == "N" for base in text]


@pytest.mark.parametrize(
    "text",
    ["", "A", "ACGT", "N" * 30, "A" * 2000, "A" * 700 + "C" * 700 + "G" * 700, "GT" * 600 + "AC"],
    ids=["empty", "base", "only-way", "unknown", "one-base", "rare-exits", "repeat"],
)
def test_edges(text: str) -> None:
    assert pairs(shuffle(text)) == pairs(text)


def test_a_window_is_shuffled_and_a_seed_gives_the_same_again() -> None:
    text = decode(np.random.default_rng(1).integers(0, 4, 1344).astype(np.uint8))
    shuffled = shuffle(text)
    same = sum(a == b for a, b in zip(text, shuffled, strict=True))
    assert same < 0.35 * len(text)
    assert shuffled == shuffle(text) != shuffle(text, 1)


def test_all_shuffles_are_equally_likely() -> None:
    text = "ACGACATCA"
    every = {"".join(p) for p in permutations(text) if p[0] == p[-1] == "A"}
    allowed = {other for other in every if pairs(other) == pairs(text)}
    assert len(allowed) > 5
    rng, draws = np.random.default_rng(0), 300 * len(allowed)
    counts = Counter(decode(dinucleotide_shuffle(encode(text), rng)) for _ in range(draws))
    assert set(counts) == allowed
    assert max(abs(count - 300) for count in counts.values()) < 5 * 300**0.5
