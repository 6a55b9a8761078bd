"""What a variant changes in the attributions around it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scbasset_ism import vcf
from scbasset_ism.attribution import AttributionOptions, attribute
from scbasset_ism.bases import encode
from scbasset_ism.contributions import Contributions, Numbers
from scbasset_ism.errors import VariantError
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.variants import Variant
from scbasset_ism.windows import Frame, alternate_windows, read_window


@dataclass(frozen=True)
class AlleleContributions:
    """Attributions of the windows of both alleles of variants.

    Attributes:
        variants: Normalized.
        ref: Of the reference windows.
        alt: Of the alternate windows; where one is not as long as the reference, the left flank
            is in its place and the right one moved.
        window_start: First base of the reference window, (variants,) int64.
    """

    variants: list[Variant]
    ref: Contributions
    alt: Contributions
    window_start: NDArray[np.int64]

    def delta_logits(self, weight: Numbers) -> Numbers:
        """Give the difference at every offset, alt minus ref, of cells or groups.

        Args:
            weight: Rows of W, or means of them, (rows, bottleneck).

        Returns:
            (variants, rows, window) logits; they add up to the delta logits. NaN for insertions
            and deletions, whose windows have other bases at the same offset.
        """
        delta = self.alt.logits(weight) - self.ref.logits(weight)
        delta[[not variant.is_substitution for variant in self.variants]] = np.nan
        return delta


def attribute_alleles(
    model: Scbasset,
    variants: Sequence[Variant],
    genome: Genome,
    *,
    options: AttributionOptions | None = None,
) -> AlleleContributions:
    """Attribute the reference and the alternate window of variants.

    The windows are those that `score_variants` reads. Where the baselines are shuffles, both
    alleles of a substitution have the reference's, so that they cancel in the difference.

    Args:
        model: It is left as it was.
        variants: In any notation; they are trimmed and left-aligned first.
        genome: The assembly that they were called on.
        options: How.

    Returns:
        As many variants, in memory: 1.4 MB each at the sizes of the publication.

    Raises:
        VariantError: A variant has no window; it says why.
        ReferenceMismatchError: The genome has other bases than REF.
    """
    frame, known = Frame(model.config.window), list[Variant]()
    for record in vcf.read(list(variants), genome, ref_mismatch="error"):
        if record.variant is None:
            where = f"{record.chrom}:{record.pos}:{record.ref}:{record.alt}"
            raise VariantError(f"{where} can't be attributed: {record.status.name}")
        known.append(record.variant)
    starts = np.array([one.start - frame.window // 2 for one in known], dtype=np.int64)
    ref = np.zeros((len(known), frame.window), np.uint8)
    alt = ref.copy()
    for row, (variant, start) in enumerate(zip(known, starts.tolist(), strict=True)):
        ref[row] = alt[row] = read_window(genome, variant.chrom, start, frame)
        if variant.is_substitution:
            alt[row, variant.start - start :][: len(variant.alt)] = encode(variant.alt)
        else:
            alt[row] = alternate_windows(variant, genome, start, frame)[0]
    moved = np.array([not variant.is_substitution for variant in known], dtype=bool)[:, None]
    return AlleleContributions(
        known,
        attribute(model, ref, options=options),
        attribute(model, alt, options=options, shuffled=np.where(moved, alt, ref)),
        starts,
    )
