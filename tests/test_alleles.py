"""Attributions of two alleles add up to the delta, at the offsets of their own windows."""

from typing import Any

import numpy as np
import pytest

from scbasset_ism.alleles import attribute_alleles
from scbasset_ism.attribution import AttributionOptions, baselines
from scbasset_ism.bases import decode
from scbasset_ism.errors import ReferenceMismatchError, VariantError
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.variants import Variant

WINDOW = 1344


def snv(text: str, start: int, chrom: str = "2") -> Variant:
    ref = text[start].upper()
    return Variant(chrom, start, ref, "C" if ref == "A" else "A")


@pytest.mark.parametrize("baseline", ["n", "shuffle"])
def test_they_add_up_to_the_delta(
    tiny_model: Scbasset, tiny_genome: Genome, tiny_sequences: dict[str, str], baseline: Any
) -> None:
    text = tiny_sequences["2"]
    variants = [snv(text, 1500), Variant("2", 1400, text[1400:1403], "TTTTT"), snv(text, 40)]
    options = AttributionOptions(baseline=baseline, n_shuffles=2, tolerance=0.1, max_steps=256)
    found = attribute_alleles(tiny_model, variants, tiny_genome, options=options)
    weight = tiny_model.head.weight.detach().numpy()
    delta = found.delta_logits(weight)
    assert delta.shape == (3, 5, WINDOW)
    for row, start in ((0, 1500), (2, 40)):
        padded = "N" * WINDOW + text
        ref = padded[WINDOW + start - WINDOW // 2 :][:WINDOW]
        alt = ref[: WINDOW // 2] + variants[row].alt + ref[WINDOW // 2 + 1 :]
        assert (decode(found.ref.codes[row]), decode(found.alt.codes[row])) == (ref, alt)
        before, after = tiny_model.predict([ref, alt]).numpy()
        rise = np.abs(found.ref.difference[row] @ weight.T).max()
        np.testing.assert_allclose(delta[row].sum(1), after - before, rtol=0, atol=0.2 * rise)
        difference = found.alt.difference[row] - found.ref.difference[row]
        np.testing.assert_allclose(difference @ weight.T, after - before, atol=1e-4)
        assert np.abs(delta[row, :, WINDOW // 2]).max() > 1e-3
    assert np.isnan(delta[1]).all()
    assert found.window_start.tolist()[0] == 1500 - WINDOW // 2


def test_an_indel_has_windows_of_its_own(
    tiny_model: Scbasset, tiny_genome: Genome, tiny_sequences: dict[str, str]
) -> None:
    text = tiny_sequences["2"]
    start = next(i for i in range(1400, 1500) if len(set(text[i - 1 : i + 4])) == 4)
    deletion = Variant("2", start, text[start : start + 3], text[start])
    options = AttributionOptions(baseline="shuffle", n_shuffles=2, max_steps=16)
    found = attribute_alleles(tiny_model, [deletion], tiny_genome, options=options)
    first = found.variants[0].start - WINDOW // 2
    gone = found.variants[0]
    assert decode(found.ref.codes[0]) == text[first : first + WINDOW]
    without = text[: gone.start] + text[gone.stop :]
    assert decode(found.alt.codes[0]) == without[first : first + WINDOW]
    shuffles = baselines(found.alt.codes, options)[0]
    before = tiny_model.predict([decode(one) for one in shuffles]).numpy().mean(0)
    after = tiny_model.predict(decode(found.alt.codes[0])).numpy()[0]
    weight = tiny_model.head.weight.detach().numpy()
    np.testing.assert_allclose(found.alt.difference[0] @ weight.T, after - before, atol=1e-4)


def test_what_has_no_window(
    tiny_model: Scbasset, tiny_genome: Genome, tiny_sequences: dict[str, str]
) -> None:
    right = snv(tiny_sequences["2"], 1500)
    wrong = Variant("2", right.start, right.alt, right.ref)
    with pytest.raises(ReferenceMismatchError, match="2:1501"):
        attribute_alleles(tiny_model, [right, wrong], tiny_genome)
    with pytest.raises(VariantError, match="7:5:A:G can't be attributed: CONTIG_MISSING"):
        attribute_alleles(tiny_model, [right, Variant("7", 4, "A", "G")], tiny_genome)
    assert attribute_alleles(tiny_model, [], tiny_genome).delta_logits(
        np.ones((5, 3), np.float32)
    ).shape == (0, 5, WINDOW)
