"""Bases as uint8 codes: A C G T = 0 1 2 3, and 4 for whatever else (N)."""

import numpy as np
from numpy.typing import NDArray

BASES = "ACGTN"
N = 4

Codes = NDArray[np.uint8]

_ENCODE = np.full(256, N, dtype=np.uint8)
for _code, _base in enumerate("ACGT"):
    _ENCODE[[ord(_base), ord(_base.lower())]] = _code
_DECODE = np.frombuffer(BASES.encode(), dtype=np.uint8)
_COMPLEMENT = np.array([3, 2, 1, 0, N], dtype=np.uint8)


def encode(sequence: str | bytes) -> Codes:
    """Turn text into codes, (len(sequence),) uint8; case does not matter.

    >>> encode("acgtRN")
    array([0, 1, 2, 3, 4, 4], dtype=uint8)
    """
    raw = sequence.encode("latin-1", "replace") if isinstance(sequence, str) else sequence
    return _ENCODE[np.frombuffer(raw, dtype=np.uint8)]


def decode(codes: Codes) -> str:
    """Turn codes into upper-case text.

    >>> decode(encode("acgtR"))
    'ACGTN'
    """
    return _DECODE[codes].tobytes().decode()


def reverse_complement(codes: Codes) -> Codes:
    """Read the other strand; the last axis is reversed.

    >>> decode(reverse_complement(encode("AACGN")))
    'NCGTT'
    """
    return _COMPLEMENT[codes[..., ::-1]]
