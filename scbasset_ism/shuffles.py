"""Shuffled DNA that keeps its dinucleotides, as a background for attributions."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scbasset_ism.bases import Codes, N


def dinucleotide_shuffle(codes: Codes, rng: np.random.Generator) -> Codes:
    """Shuffle bases so that each pair of neighbours occurs as often as before.

    The first and the last base stay, and so does every N: the stretches between runs of N are
    shuffled one by one. All sequences with the same dinucleotides are equally likely.

    The result is a random Eulerian path through the graph whose edges are the dinucleotides
    (Altschul & Erickson, Mol. Biol. Evol. 2, 526-538, 1985): the exit that each base takes last
    must lead on to the last base, so these exits form a random spanning tree, which is drawn by
    loop-erased random walks (Kandel, Matias, Unger & Winkler, Discrete Appl. Math. 71, 171-185,
    1996; Wilson, STOC 1996); the other exits are taken in random order.

    Args:
        codes: (length,) uint8.
        rng: The same state gives the same shuffle.

    Returns:
        (length,) uint8.
    """
    shuffled = codes.copy()
    borders = np.flatnonzero(np.diff(codes == N)) + 1
    for start, stop in pairwise([0, *borders, len(codes)]):
        if start < stop and codes[start] != N:
            shuffled[start:stop] = _random_path(codes[start:stop], rng)
    return shuffled


def _random_path(codes: Codes, rng: np.random.Generator) -> Codes:
    """Draw one of the Eulerian paths, (length,) without N."""
    exits = [codes[1:][codes[:-1] == base] for base in range(4)]  # where each base leads to
    last = _last_exits(exits, int(codes[-1]), rng)
    queues = []
    for base, leads_to in enumerate(exits):
        order = rng.permutation(len(leads_to))
        if base in last:
            order = np.append(order[order != last[base]], last[base])
        queues.append(iter(leads_to[order].tolist()))
    path = [int(codes[0])]
    for _ in range(len(codes) - 1):
        path.append(next(queues[path[-1]]))
    return np.array(path, dtype=np.uint8)


def _last_exits(
    exits: list[NDArray[np.uint8]], end: int, rng: np.random.Generator
) -> dict[int, int]:
    """Draw which exit each base takes last, so that from any of them the end is reached."""
    last, connected = dict[int, int](), {end}
    for first in range(4):
        if not len(exits[first]):
            continue
        base = first
        while base not in connected:  # a loop is forgotten when its base is left another way
            last[base] = int(rng.integers(len(exits[base])))
            base = int(exits[base][last[base]])
        base = first
        while base not in connected:
            connected.add(base)
            base = int(exits[base][last[base]])
    return last
