"""Attributions in a store are those of Captum on the logit of each cell."""

import sys
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
import xarray
import zarr
from captum.attr import InputXGradient, IntegratedGradients
from conftest import TINY_CONFIG, write_vcf
from fake_job import contents
from numpy.typing import NDArray

from scbasset_ism import attributing, store
from scbasset_ism.attributing import (
    AttributionRunOptions,
    attribute_windows,
    attribute_windows_part,
)
from scbasset_ism.attribution import baselines
from scbasset_ism.attributions import Attributions, open_attributions
from scbasset_ism.bases import N, encode
from scbasset_ism.errors import DeviceError, ReferenceMismatchError, ScbassetError, StoreError
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset, one_hot
from scbasset_ism.progress import Part, Progress
from scbasset_ism.regions import Region
from scbasset_ism.runs import finalize
from scbasset_ism.stretches import Stretch, Window, without_failures
from scbasset_ism.variants import Status, Variant
from scbasset_ism.verification import verify_files, verify_scores

WINDOW, CELLS, STEPS = TINY_CONFIG.window, TINY_CONFIG.n_cells, 8


def captum_of(
    model: Scbasset, text: str, cell: int, starts: NDArray[np.uint8] | None = None
) -> NDArray[np.floating[Any]]:
    """Integrated gradients of a cell's logit at the bases of a text, (window,)."""
    x = one_hot(torch.from_numpy(encode(text))[None])
    starts = np.full((1, WINDOW), N, np.uint8) if starts is None else starts
    maps = [
        IntegratedGradients(model)
        .attribute(x, one_hot(torch.from_numpy(start)[None]), target=cell, n_steps=STEPS)
        .detach()
        .numpy()[0]
        .sum(axis=0)
        for start in starts
    ]
    return np.where(encode(text) == N, 0, np.mean(maps, axis=0))


def text_of(sequence: str, start: int) -> str:
    """A window of a contig, N past its ends."""
    return ("N" * WINDOW + sequence.upper() + "N" * WINDOW)[start + WINDOW :][:WINDOW]


def snv(sequences: dict[str, str], pos: int, chrom: str = "1") -> Variant:
    ref = sequences[chrom][pos - 1].upper()
    return Variant(chrom, pos - 1, ref, "C" if ref != "C" else "G")


def options_of(**chosen: Any) -> AttributionRunOptions:
    """A few steps, and all that comes of them is good enough."""
    return AttributionRunOptions(**{"max_steps": STEPS, "tolerance": 100.0, "span": 6} | chosen)


@pytest.mark.parametrize("baseline", ["n", "shuffle"])
@pytest.mark.parametrize("span", [1, 5, 6, None])
def test_every_cell_is_that_of_captum(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    span: int | None,
    baseline: Any,
) -> None:
    variant = snv(tiny_sequences, 2501)  # 100 N to the left of it
    options = options_of(span=span, baseline=baseline, n_shuffles=2)
    found = attribute_windows([variant], tiny_genome, tiny_model, tmp_path / "s", options=options)
    ref = text_of(tiny_sequences["1"], 2500 - 672)
    alt = ref[:672] + variant.alt + ref[673:]
    length = span or WINDOW
    first = 672 - length // 2
    starts = baselines(encode(ref)[None], options)[0]
    for row, text in enumerate((ref, alt)):
        assert found.sequence(row) == text[first : first + length]
        for cell in range(CELLS):
            want = captum_of(tiny_model.eval(), text, cell, starts)
            have = found.logits(row, cell).to_numpy()
            np.testing.assert_allclose(have, want[first : first + length], rtol=0, atol=1e-5)
            if span is None:
                assert np.abs(have - found.logits(row, (cell + 1) % CELLS)).max() > 1e-3
                assert np.abs(np.roll(have, 1) - want).max() > 1e-3
        difference = found.difference[row] @ found.cell_weight.T
        with torch.no_grad():
            logits = tiny_model(one_hot(torch.from_numpy(np.stack([encode(text), *starts]))))
        np.testing.assert_allclose(difference, logits[0] - logits[1:].mean(0), atol=1e-5)
    assert found.windows()["allele"].tolist() == ["ref", "alt"]
    checked = verify_scores(tmp_path / "s", tiny_genome, tiny_model)
    assert (checked.problems, checked.n_sampled) == ([], 2)


def test_alternate_minus_reference(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    """Base by base; a base that only one haplotype has stands opposite a gap."""
    bases = tiny_sequences["1"].upper()
    start = next(i for i in range(1000, 1100) if len(set(bases[i - 1 : i + 4])) == 4)
    kept = bases[start - 1]
    lines = [
        f"1 {start} . {kept} {kept}GGT",
        f"1 {start} . {bases[start - 1 : start + 2]} {kept}",
        f"1 {start} . {kept} {'A' if kept != 'A' else 'C'}",
    ]
    vcf = write_vcf(tmp_path / "v.vcf", *lines)
    options = options_of(span=20)
    found = attribute_windows(vcf, tiny_genome, tiny_model, tmp_path / "s", options=options)
    for row, name in enumerate(found.windows()["source"][::2]):
        compared = found.alt_minus_ref(name, 3)
        ref, alt = found.logits(2 * row, 3), found.logits(2 * row + 1, 3)
        places = {"ref": compared["ref_base"] != "-", "alt": compared["alt_base"] != "-"}
        for haplotype, own in (("ref", ref), ("alt", alt)):
            there = compared[places[haplotype]]
            np.testing.assert_array_equal(there[haplotype], own.to_numpy()[: len(there)])
            text = found.sequence(2 * row + (haplotype == "alt"))
            assert "".join(there[f"{haplotype}_base"]) == text[: len(there)]
            assert (compared.loc[~places[haplotype], haplotype] == 0).all()
        both = compared[places["ref"] & places["alt"]]
        moved = both["ref_base"] != both["alt_base"]
        assert moved.sum() == (1 if row == 2 else 0)
        assert len(compared) == 20
        assert [len(compared) - int(there.sum()) for there in places.values()] == [
            [3, 0],
            [0, 2],
            [0, 0],
        ][row]
        np.testing.assert_array_equal(compared["delta"], compared["alt"] - compared["ref"])
        known = compared[places["ref"]]
        assert known.index.tolist() == ref.index.tolist()[: len(known)]
    insertion = found.alt_minus_ref(found.windows()["source"].iloc[0], 3)
    gap = np.flatnonzero(insertion["ref_base"] == "-")
    assert set(insertion.index[gap]) == {insertion.index[gap[0] - 1]}
    with pytest.raises(StoreError, match="0 rows named"):
        found.alt_minus_ref("1:5:A:C", 3)


@pytest.mark.parametrize("span", [1, 4])
def test_alleles_longer_than_the_stretch(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    span: int,
) -> None:
    bases = tiny_sequences["1"].upper()
    start = next(i for i in range(1000, 1100) if bases[i] not in bases[i + 1] + bases[i + 8])
    kept, gone = bases[start], bases[start : start + 9]
    lines = [f"1 {start + 1} . {gone} {kept}", f"1 {start + 1} . {kept} {gone}"]
    vcf, options = write_vcf(tmp_path / "v.vcf", *lines), options_of(span=span)
    found = attribute_windows(vcf, tiny_genome, tiny_model, tmp_path / "s", options=options)
    first = span // 2
    for name, gap in zip(found.windows()["source"][::2], ("alt", "ref"), strict=True):
        compared = found.alt_minus_ref(name, 0)
        assert len(compared) == span
        assert (compared[f"{gap}_base"] == "-").tolist() == [False] * first + [True] * (
            span - first
        )
        begin = int(found.windows().loc[name, "start"]) + 1
        after = range(begin + first, begin + span) if gap == "alt" else [begin + first - 1] * 4
        assert compared.index.tolist()[first:] == list(after)[: span - first]


def test_views_are_averaged(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    variant, model = snv(tiny_sequences, 1001), tiny_model.eval()
    options = options_of(span=7, rc=True, shifts=1, allele="ref")
    found = attribute_windows([variant], tiny_genome, model, tmp_path / "s", options=options)
    maps = []
    for shift in (-1, 0, 1):
        text = text_of(tiny_sequences["1"], 1000 - 672 + shift)
        maps.append(captum_of(model, text, 2)[669 - shift :][:7])
        other = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
        maps.append(captum_of(model, other, 2)[::-1][669 - shift :][:7])
    have = found.logits(0, 2)
    np.testing.assert_allclose(have, np.mean(maps, axis=0), rtol=0, atol=1e-5)
    assert np.abs(maps[0] - have).max() > 1e-3
    assert verify_scores(tmp_path / "s", tiny_genome, tiny_model).problems == []
    wide = options_of(span=1343, shifts=1)
    with pytest.raises(ScbassetError, match=r"from 1 to 1,342 bases.*with shifts of 1"):
        attribute_windows([variant], tiny_genome, model, tmp_path / "w", options=wide)


def test_regions_and_statuses(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    bed = tmp_path / "r.bed"
    bed.write_text("1\t2495\t2506\tn\n7\t1\t5\tother\n2\t2995\t2998\tend\n2\t4000\t4001\toff\n")
    options = options_of(span=4, batch_size=2)
    found = attribute_windows(bed, tiny_genome, tiny_model, tmp_path / "s", options=options)
    table = found.windows()
    assert table.index.tolist() == ["n/1", "n/2", "n/3", "other", "end", "off"]
    scored = [*["SCORED"] * 3, "CONTIG_MISSING", "SCORED", "OFF_CONTIG"]
    assert table["status"].tolist() == scored
    for row in (0, 1, 2, 4):
        one = table.iloc[row]
        start, length = (one["start"] + one["stop"]) // 2 - 672, one["stop"] - one["start"]
        text = text_of(tiny_sequences[one["chrom"]], start)
        want = captum_of(tiny_model.eval(), text, 1)[one["start"] - start :][:length]
        np.testing.assert_allclose(found.logits(row, 1), want, rtol=0, atol=1e-5)
        assert np.isnan(found.hypothetical_bottleneck[row, length:]).all()
    for array in ("hypothetical", "window_bottleneck", "difference"):
        assert np.isnan(found.array(f"obsm/{array}")[3]).all()
    assert np.isnan(table["completeness_error"].iloc[3])
    with pytest.raises(StoreError, match="window 'other' has no score: CONTIG_MISSING"):
        found.to_logo("other", 0)
    checked = verify_scores(tmp_path / "s", tiny_genome, tiny_model)
    assert (checked.problems, checked.n_sampled) == ([], 4)
    region, typed = Region.parse("1:1001-1003"), tmp_path / "typed"
    named = attribute_windows([region], tiny_genome, tiny_model, typed, options=options)
    assert named.logits(0, 0).index.tolist() == [1001, 1002, 1003]


def test_windows_that_do_not_add_up(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    variants = [snv(tiny_sequences, pos) for pos in (1001, 1501, 2001)]
    coarse = options_of(allele="ref", max_steps=4, tolerance=1e-9)
    out = tmp_path / "s"
    found = attribute_windows(variants, tiny_genome, tiny_model, out, options=coarse)
    errors = found.windows()["completeness_error"].to_numpy()
    assert found.attributes["counts"]["INCOMPLETE"] == 3
    between = float(np.sort(errors)[1])
    some = options_of(allele="ref", max_steps=4, tolerance=between)
    mixed = attribute_windows(variants, tiny_genome, tiny_model, tmp_path / "m", options=some)
    table = mixed.windows()
    assert sorted(table["status"]) == ["INCOMPLETE", "SCORED", "SCORED"]
    assert ((table["completeness_error"] <= between) == (table["status"] == "SCORED")).all()
    assert (table["n_steps"] == 4).all()
    worst = int(errors.argmax())
    with pytest.raises(StoreError, match=r"is not complete: .* after 4 steps.*larger tolerance"):
        mixed.logits(worst, 0)
    assert mixed.group_mean(["a"] * 5).loc[table.index[worst]].isna().all(axis=None)
    assert len(mixed.save_modisco(tmp_path / "modisco", 0)) == 2
    taken = open_attributions(tmp_path / "m", tolerance=float(errors.max()))
    np.testing.assert_array_equal(
        taken.logits(worst, 0), open_attributions(out, tolerance=1.0).logits(worst, 0)
    )
    assert taken.group_mean(["a"] * 5).notna().all(axis=None)
    finer = options_of(allele="ref", max_steps=256, tolerance=between / 4)
    fine = attribute_windows(variants, tiny_genome, tiny_model, tmp_path / "f", options=finer)
    assert (fine.windows()["status"] == "SCORED").all()
    assert (fine.windows()["n_steps"] > 4).all()
    assert verify_scores(tmp_path / "m", tiny_genome, tiny_model).n_sampled == 3


def test_numbers_that_are_not_finite_are_taken_back() -> None:
    place = Region("1", 10, 12, "r", 0)
    windows = [Window(Stretch("r", "r", place), 0, np.zeros(8, np.uint8)) for _ in range(4)]
    windows[3] = Window(Stretch("r", "r", place, status=Status.OFF_CONTIG), -1, None)
    wide, narrow = np.ones((4, 3, 4, 2), np.float32), np.ones((4, 2), np.float32)
    wide[:, 2] = np.nan  # past the end of the stretch
    wide[1, 0, 2, 1] = np.inf
    narrow[2, 0] = np.nan
    wide[3] = narrow[3] = np.nan
    marked = without_failures(windows, {"wide": wide, "narrow": narrow})
    statuses = [window.stretch.status.name for window in marked]
    assert statuses == ["SCORED", "FAILED", "FAILED", "OFF_CONTIG"]
    assert np.isfinite(wide[0, :2]).all()
    assert np.isnan(wide[1:3]).all()
    assert np.isnan(narrow[1:3]).all()


@pytest.fixture
def many(tmp_path: Path, tiny_sequences: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three variants and one of another contig: eight rows, in shards of two."""
    monkeypatch.setattr(store, "WIDE_ROWS", 2)
    chosen = [snv(tiny_sequences, pos) for pos in (1001, 1011, 1021)]
    lines = [f"1 {one.start + 1} . {one.ref} {one.alt}" for one in chosen]
    contigs = {"1": 6000, "2": 3000, "9": 9}
    return write_vcf(tmp_path / "v.vcf", *lines, "9 5 . A C", contigs=contigs)


def test_parts_and_resume_give_the_same_bytes(
    tmp_path: Path,
    many: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = options_of(baseline="shuffle", n_shuffles=2)
    attribute_windows(many, tiny_genome, tiny_model, tmp_path / "want", options=options)
    want = contents(tmp_path / "want")
    out = tmp_path / "p"
    for text in ("2/2", "1/2"):
        part = Part.parse(text)
        attribute_windows_part(many, tiny_genome, tiny_model, out, part=part, options=options)
    finalize(out)
    assert contents(out) == want
    whole, out = Progress.write, tmp_path / "r"

    def fail(self: Progress, shard: int, *args: Any) -> None:
        if shard == 2:
            raise KeyError(shard)
        whole(self, shard, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "write", fail)
        with pytest.raises(KeyError):
            attribute_windows(many, tiny_genome, tiny_model, out, options=options)
    other = options_of(baseline="shuffle", n_shuffles=2, seed=1)
    with pytest.raises(StoreError, match="seed"):
        attribute_windows(many, tiny_genome, tiny_model, out, options=other)
    attribute_windows(many, tiny_genome, tiny_model, out, options=options)
    assert contents(out) == want
    with pytest.raises(StoreError, match="exists"):
        attribute_windows(many, tiny_genome, tiny_model, out, options=options)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_sizes(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    n: int,
) -> None:
    variants = [snv(tiny_sequences, 1001 + 7 * i) for i in range(n)]
    options = options_of(span=2, batch_size=3, allele="alt")
    found = attribute_windows(variants, tiny_genome, tiny_model, tmp_path / "s", options=options)
    assert found.hypothetical_bottleneck.shape == (n, 2, 4, 3)
    for row, variant in enumerate(variants):
        text = text_of(tiny_sequences["1"], variant.start - 672)
        edited = text[:672] + variant.alt + text[673:]
        want = captum_of(tiny_model.eval(), edited, 4)[671:673]
        np.testing.assert_allclose(found.logits(row, 4), want, rtol=0, atol=1e-5)
    assert found.save_modisco(tmp_path / "m", 0) == list(found.row_names)


class TestReader:
    @pytest.fixture
    def found(
        self, tmp_path: Path, many: Path, tiny_genome: Genome, tiny_model: Scbasset
    ) -> Attributions:
        options = options_of(span=4)
        return attribute_windows(many, tiny_genome, tiny_model, tmp_path / "s", options=options)

    def test_values(self, found: Attributions, tiny_model: Scbasset) -> None:
        weight = tiny_model.head.weight.detach().numpy()
        want = found.hypothetical_bottleneck[1] @ weight.T  # (positions, 4, cells)
        name, codes = found.row_names[1], encode(found.sequence(1))
        np.testing.assert_allclose(found.hypothetical(1, 2), want[..., 2], atol=1e-6)
        labels = ["a", "b", "", "a", "b"]
        mean = want[..., [1, 4]].mean(-1)
        for group in (found.hypothetical(1, [1, 4]), found.hypothetical(1, "b", labels)):
            np.testing.assert_allclose(group, mean, atol=1e-6)
        np.testing.assert_allclose(found.group_mean(labels, [1])["b"], mean, atol=1e-6)
        np.testing.assert_allclose(found.cell(2).loc[name], want[..., 2], atol=1e-6)
        own = want[range(4), codes, 2]
        np.testing.assert_allclose(found.logits(name, 2), own, atol=1e-6)
        logo = found.to_logo(name, 2)
        assert logo.index.tolist() == [999, 1000, 1001, 1002]
        np.testing.assert_allclose(logo.to_numpy()[range(4), codes], own, atol=1e-6)
        assert (logo != 0).to_numpy().sum() == 4
        corrected = want[..., 2] - want[..., 2].mean(1, keepdims=True)
        np.testing.assert_allclose(found.hypothetical(1, 2, corrected=True), corrected, atol=1e-6)
        np.testing.assert_allclose(
            found.logits(1, 2, corrected=True), corrected[range(4), codes], atol=1e-6
        )
        top = found.top_positions(1, 2, n=2)
        assert top["offset"].tolist() == np.argsort(-np.abs(own))[:2].tolist()
        assert top["base"].iloc[0] == found.sequence(1)[top["offset"].iloc[0]]
        np.testing.assert_allclose(top["attribution"], own[top["offset"]], atol=1e-6)

    def test_wrong_names(self, found: Attributions) -> None:
        with pytest.raises(StoreError, match="no cell is of the group 'z'"):
            found.logits(0, "z", ["a"] * 5)
        with pytest.raises(StoreError, match="0 cells named 'z'"):
            found.to_logo(0, "z")
        with pytest.raises(StoreError, match="0 rows named 'z'"):
            found.hypothetical("z", 0)
        with pytest.raises(StoreError, match="attribute with the method input-x-gradient"):
            found.saliency(0, 0)

    def test_other_tools_open_it(self, found: Attributions) -> None:
        adata = anndata.read_zarr(found.path)
        assert adata.shape == (8, 5)
        np.testing.assert_array_equal(adata.obsm["hypothetical"], found.hypothetical_bottleneck[:])
        tree = xarray.open_datatree(found.path, engine="zarr")
        dims = tree["obsm"]["hypothetical"].dims
        assert dims == ("windows", "position", "base", "bottleneck")

    @pytest.mark.parametrize("array", ["hypothetical", "difference"])
    def test_changed_numbers(
        self, found: Attributions, tiny_genome: Genome, tiny_model: Scbasset, array: str
    ) -> None:
        path = Path(found.path)
        assert verify_scores(path, tiny_genome, tiny_model).problems == []
        root = zarr.open_group(path, mode="r+")
        root[f"obsm/{array}"][1] = 1.1 * found.array(f"obsm/{array}")[1]
        (problem,) = verify_scores(path, tiny_genome, tiny_model).problems
        assert "row 1 " in problem

    def test_damage(self, found: Attributions) -> None:
        shard = Path(found.path) / "obsm/hypothetical/c/1/0/0/0"
        assert verify_files(found).problems == []
        content = bytearray(shard.read_bytes())
        content[10] ^= 1
        shard.write_bytes(content)
        (problem, *_) = verify_files(open_attributions(found.path)).problems
        assert "the store is damaged" in problem

    def test_files_for_modisco(self, found: Attributions, tmp_path: Path) -> None:
        names = found.save_modisco(tmp_path / "m", [0, 2])
        assert names == list(found.row_names[:6])  # two are of a contig that is not there
        raw, shap = (np.load(tmp_path / f"m/{name}.npz")["arr_0"] for name in ("raw", "shap"))
        assert raw.shape == shap.shape == (6, 4, 4)
        np.testing.assert_allclose((raw * shap).sum(1)[3], found.logits(3, [0, 2]), atol=1e-6)
        lines = (tmp_path / "m/windows.bed").read_text().splitlines()
        assert lines[3].split("\t") == ["1", "1008", "1012", names[3], "0", "."]


def test_shorter_stretches_lie_in_the_middle_for_modisco(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset
) -> None:
    regions = [Region("1", 1000, 1005, "five", 0), Region("1", 1100, 1102, "two", 0)]
    found = attribute_windows(
        regions, tiny_genome, tiny_model, tmp_path / "s", options=options_of()
    )
    found.save_modisco(tmp_path / "m", 0)
    raw, shap = (np.load(tmp_path / f"m/{name}.npz")["arr_0"] for name in ("raw", "shap"))
    assert raw.sum(axis=1).tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 0, 0]]
    np.testing.assert_allclose(shap[1, :, 1:3].T, found.hypothetical("two", 0), atol=1e-6)
    assert (shap[1, :, [0, 3, 4]] == 0).all()


def test_gradients(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    variant, model = snv(tiny_sequences, 1001), tiny_model.eval()
    options = options_of(method="input-x-gradient", allele="ref")
    found = attribute_windows([variant], tiny_genome, model, tmp_path / "s", options=options)
    x = one_hot(torch.from_numpy(encode(text_of(tiny_sequences["1"], 1000 - 672)))[None])
    want = InputXGradient(model).attribute(x.requires_grad_(), target=1).detach().numpy()[0]
    np.testing.assert_allclose(found.logits(0, 1), want.sum(0)[669:675], rtol=0, atol=1e-6)
    saliency = found.saliency(0, 1)
    np.testing.assert_array_equal(saliency, found.hypothetical(0, 1).abs().max(axis=1))
    table = found.windows()
    assert (table["status"].iloc[0], table["n_steps"].iloc[0]) == ("SCORED", 0)
    assert np.isnan(table["completeness_error"].iloc[0])
    assert verify_scores(tmp_path / "s", tiny_genome, tiny_model).problems == []
    root = zarr.open_group(tmp_path / "s", mode="r+")
    root["obsm/hypothetical"][:] = 1.1 * found.hypothetical_bottleneck[:]
    assert verify_scores(tmp_path / "s", tiny_genome, tiny_model).problems


def test_without_captum_no_store_is_begun(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    region, out = [Region("1", 1000, 1005, "r", 0)], tmp_path / "s"
    with pytest.raises(ScbassetError, match=r"pip install 'scbasset-ism\[attribution\]'"):
        attribute_windows(region, tiny_genome, tiny_model, out)
    assert list(tmp_path.iterdir()) == []
    plain = options_of(method="input-x-gradient")
    attribute_windows(region, tiny_genome, tiny_model, out, options=plain)


def test_what_is_refused(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variant, out = snv(tiny_sequences, 1001), tmp_path / "s"
    with pytest.raises(ScbassetError, match="layout factored"):
        options_of(layout="dense")
    with pytest.raises(ScbassetError, match="tolerance 0"):
        options_of(tolerance=0)
    with pytest.raises(ScbassetError, match="shifts -1"):
        options_of(shifts=-1)
    with pytest.raises(ScbassetError, match="span 1,345: from 1 to 1,344 bases"):
        attribute_windows([variant], tiny_genome, tiny_model, out, options=options_of(span=1345))
    region = [Region.parse("1:1001-1003")]
    with pytest.raises(ScbassetError, match="regions have no alternate allele"):
        attribute_windows(region, tiny_genome, tiny_model, out, options=options_of(allele="both"))
    wrong = [Variant("1", 1000, variant.alt, variant.ref)]
    with pytest.raises(ReferenceMismatchError, match="2 of 2 rows"):
        attribute_windows(wrong, tiny_genome, tiny_model, out, options=options_of())

    def exhaust(*_args: Any, **_kwargs: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(attributing, "attribute", exhaust)
    with pytest.raises(DeviceError, match="take a smaller --batch-size"):
        attribute_windows(region, tiny_genome, tiny_model, tmp_path / "m", options=options_of())
