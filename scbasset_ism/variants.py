"""Variants as values: parse, print, normalize. No files, no tensors.

Alleles are upper-case A, C, G and T. A normalized variant carries no anchor base: an insertion
has an empty `ref` and goes in before `start`, a deletion has an empty `alt`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import count
from typing import Self

from scbasset_ism.errors import VariantError

MAX_ALLELE = 200  # bases of a normalized allele; longer ones are not scored

_ACGT = frozenset("ACGT")
_BLOCK = 64  # bases read at once on the way left

Fetch = Callable[[str, int, int], str]


class Status(IntEnum):
    """Why a row has no score. Stores hold the numbers: append, never reorder."""

    SCORED = 0
    REF_MISMATCH = 1
    SYMBOLIC = 2
    SPANNING_DELETION = 3
    MISSING_ALT = 4
    NON_ACGT = 5
    CONTIG_MISSING = 6
    OFF_CONTIG = 7
    TOO_LONG = 8
    FAILED = 9
    INCOMPLETE = 10


def is_acgt(allele: str) -> bool:
    """Whether there are only upper-case A, C, G and T (or nothing at all)."""
    return _ACGT.issuperset(allele)


@dataclass(frozen=True, slots=True)
class Variant:
    """One ALT allele at one place; `start` is 0-based.

    >>> Variant.parse("chr20:1000226:A:G")
    Variant(chrom='chr20', start=1000225, ref='A', alt='G')
    """

    chrom: str
    start: int
    ref: str
    alt: str

    def __post_init__(self) -> None:
        if self.start < 0:
            raise VariantError(f"{self}: positions start at 1")
        if not (is_acgt(self.ref) and is_acgt(self.alt)):
            raise VariantError(f"{self}: alleles must be upper-case A, C, G and T")
        if not (self.chrom and self.ref + self.alt):
            raise VariantError(f"{self}: needs a contig name and an allele")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `chrom:pos:ref:alt`, pos 1-based; the inverse of `str`.

        The contig name may hold colons; lower-case alleles are fine; the empty allele of a
        normalized insertion or deletion is written as nothing.

        Raises:
            VariantError: The text is something else.
        """
        chrom, *fields = text.strip().rsplit(":", 3)
        if len(fields) != 3 or not (fields[0].isascii() and fields[0].isdigit()):
            raise VariantError(
                f"{text!r} is no variant; write chrom:pos:ref:alt, as 20:1000226:A:G"
            )
        pos, ref, alt = fields
        return cls(chrom, int(pos) - 1, ref.upper(), alt.upper())

    def __str__(self) -> str:
        return f"{self.chrom}:{self.start + 1}:{self.ref}:{self.alt}"

    @property
    def stop(self) -> int:
        """End of the reference allele, 0-based and exclusive."""
        return self.start + len(self.ref)

    @property
    def is_snv(self) -> bool:
        """One base for another."""
        return len(self.ref) == len(self.alt) == 1

    @property
    def is_substitution(self) -> bool:
        """As many bases as before: SNV or MNV."""
        return len(self.ref) == len(self.alt)


def normalize(variant: Variant, fetch: Fetch) -> Variant:
    """Trim what both alleles share and move indels to the left.

    As `bcftools norm` does, but without an anchor base: two ways to write one variant become
    equal. One that changes nothing (REF = ALT) keeps its first base.

    Args:
        variant: REF agrees with the genome.
        fetch: `(chrom, start, stop)` to upper-case text; never asked past the ends.
    """
    ref, alt = variant.ref, variant.alt
    if ref == alt:
        return Variant(variant.chrom, variant.start, ref[0], alt[0])
    if ref[-1:] != alt[-1:] and ref[:1] != alt[:1] and ref and alt:
        return variant
    n_suffix = _n_shared(ref[::-1], alt[::-1])
    ref, alt = ref[: len(ref) - n_suffix], alt[: len(alt) - n_suffix]
    n_prefix = _n_shared(ref, alt)
    trimmed = Variant(variant.chrom, variant.start + n_prefix, ref[n_prefix:], alt[n_prefix:])
    return trimmed if trimmed.ref and trimmed.alt else _left_align(trimmed, fetch)


def _n_shared(ref: str, alt: str) -> int:
    """Bases that two alleles have in common from the first one on."""
    pairs = enumerate(zip(ref, alt, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ref), len(alt)))


def _left_align(indel: Variant, fetch: Fetch) -> Variant:
    """Roll an insertion or deletion left while the base before it is its own last base."""
    bases = indel.ref or indel.alt
    shift = _n_rolls(indel, bases, fetch)
    turn = len(bases) - shift % len(bases)
    rolled = bases[turn:] + bases[:turn]
    ref, alt = (rolled, "") if indel.ref else ("", rolled)
    return Variant(indel.chrom, indel.start - shift, ref, alt)


def _n_rolls(indel: Variant, bases: str, fetch: Fetch) -> int:
    """Bases that the indel can move to the left."""
    before = ""
    for shift in count():
        if shift == indel.start:
            break
        if shift == len(before):
            stop = indel.start - shift
            before += fetch(indel.chrom, max(0, stop - _BLOCK), stop)[::-1]
        if before[shift] != bases[-1 - shift % len(bases)]:
            break
    return shift
