"""Saturation mutagenesis against two full passes of every substitution."""

import copy
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch
import xarray
import zarr
from conftest import write_fasta, write_vcf
from fake_job import contents
from numpy.typing import NDArray

from scbasset_ism import saturation, store
from scbasset_ism.bases import encode
from scbasset_ism.checkpoint import load_model
from scbasset_ism.delta import Edits, naive_delta
from scbasset_ism.device import Scorer
from scbasset_ism.errors import ReferenceMismatchError, ScbassetError, StoreError
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.progress import Part, Progress
from scbasset_ism.regions import Region
from scbasset_ism.runs import finalize
from scbasset_ism.saturation import IsmOptions, saturate, saturate_part
from scbasset_ism.saturations import Saturations, open_saturations
from scbasset_ism.stretches import tiles
from scbasset_ism.variants import Variant
from scbasset_ism.verification import verify_files, verify_scores

WINDOW = 1344
DATA = Path(__file__).with_name("data")


def definition(model: Scbasset, text: str, places: range) -> NDArray[np.float64]:
    """Every substitution at some places of a window's text, (places, 4, bottleneck)."""
    codes = torch.from_numpy(encode(text))[None]
    offset = torch.tensor([p for p in places for _ in range(4)])
    base = torch.tensor([[b] for _ in places for b in range(4)], dtype=torch.uint8)
    deltas = naive_delta(model, codes, Edits(torch.zeros_like(offset), offset, base))
    return deltas.delta_bottleneck.view(len(places), 4, -1).double().numpy()


def texts_of(sequence: str, start: int) -> str:
    """A window of a contig, N past its ends."""
    return ("N" * WINDOW + sequence.upper() + "N" * WINDOW)[start + WINDOW :][:WINDOW]


def snv(sequences: dict[str, str], pos: int, chrom: str = "1") -> Variant:
    ref = sequences[chrom][pos - 1].upper()
    return Variant(chrom, pos - 1, ref, "C" if ref != "C" else "G")


@pytest.mark.parametrize("span", [1, 4, 5])
@pytest.mark.parametrize("pos", [1001, 2, 2499, 5999])
def test_every_value_around_a_variant(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    span: int,
    pos: int,
) -> None:
    variant = snv(tiny_sequences, pos) if pos != 2499 else snv(tiny_sequences, 2501)
    options = IsmOptions(span=span, precision="float32")
    found = saturate([variant], tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    text = texts_of(tiny_sequences["1"], variant.start - 672)
    want = definition(tiny_model, text, range(672 - span // 2, 672 - span // 2 + span))
    have = found.delta_bottleneck[0]
    np.testing.assert_allclose(have, want, atol=1e-5)
    assert np.abs(want).max() > 1e-3
    stretch = text[672 - span // 2 :][:span]
    assert found.sequence(0) == stretch
    for place, base in enumerate(stretch):
        if base != "N":
            assert (have[place, "ACGT".index(base)] == 0).all()
    if span > 1:
        assert np.abs(np.roll(have, 1, axis=0) - want).max() > 1e-3


def test_the_whole_window_by_default(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    variant, options = snv(tiny_sequences, 1001), IsmOptions(precision="float32")
    found = saturate([variant], tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    assert found.delta_bottleneck.shape == (1, WINDOW, 4, 3)
    text = texts_of(tiny_sequences["1"], 1000 - 672)
    for places in (range(3), range(WINDOW - 3, WINDOW)):
        want = definition(tiny_model, text, places)
        np.testing.assert_allclose(
            found.delta_bottleneck[0, places.start : places.stop], want, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["snv", "insertion", "deletion"])
def test_the_alternate_haplotype(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    kind: str,
) -> None:
    bases = tiny_sequences["1"].upper()
    other = {"snv": snv(tiny_sequences, 1001).alt, "insertion": bases[1000] + "ACGTT"}
    ref = bases[1000:1006] if kind == "deletion" else bases[1000]
    alt = other.get(kind, bases[1000])
    vcf = write_vcf(tmp_path / "v.vcf", f"1 1001 . {ref} {alt}")
    options = IsmOptions(span=6, allele="both", precision="float32")
    found = saturate(vcf, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    table = found.windows()
    assert table["allele"].tolist() == ["ref", "alt"]
    assert table.index.tolist() == [f"1:1001:{ref}:{alt}", f"1:1001:{ref}:{alt}/alt"]
    start = int(table["start"].iloc[0]) + 3 - 672
    edited = bases[:1000] + alt + bases[1000 + len(ref) :]
    for row, sequence in enumerate((bases, edited)):
        want = definition(tiny_model, texts_of(sequence, start), range(669, 675))
        np.testing.assert_allclose(found.delta_bottleneck[row], want, atol=1e-5)
    assert np.abs(found.delta_bottleneck[0] - found.delta_bottleneck[1]).max() > 1e-3
    only = IsmOptions(span=6, allele="alt", precision="float32")
    one = saturate(vcf, tiny_genome, tiny_model, tmp_path / "a.zarr", options=only)
    np.testing.assert_allclose(one.delta_bottleneck[0], found.delta_bottleneck[1], atol=1e-5)
    checked = verify_scores(tmp_path / "s.zarr", tiny_genome, tiny_model)
    assert checked.problems == []
    assert checked.n_sampled == 2


def test_views_are_averaged(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    variant = snv(tiny_sequences, 1001)
    options = IsmOptions(span=3, rc=True, shifts=1, precision="float32")
    found = saturate([variant], tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    deltas = []
    for shift in (-1, 0, 1):
        text = texts_of(tiny_sequences["1"], 1000 - 672 + shift)
        deltas.append(definition(tiny_model, text, range(671 - shift, 674 - shift)))
        other = text[::-1].translate(str.maketrans("ACGT", "TGCA"))
        reverse = definition(tiny_model, other, range(670 + shift, 673 + shift))
        deltas.append(reverse[::-1, ::-1])
    np.testing.assert_allclose(found.delta_bottleneck[0], np.mean(deltas, axis=0), atol=1e-5)
    assert np.abs(deltas[0] - np.mean(deltas, axis=0)).max() > 1e-3
    assert verify_scores(tmp_path / "s.zarr", tiny_genome, tiny_model).problems == []


class TestRegions:
    @pytest.mark.parametrize("span", [1, 2, 7, 10, 336])
    def test_every_base_lies_in_one_tile_near_its_middle(self, span: int) -> None:
        for length in (*range(1, 40), 336, 337, 1000):
            region = Region("1", 100, 100 + length, "r", 0)
            cut = tiles(region, span)
            assert [p for t in cut for p in range(t.start, t.stop)] == list(
                range(100, 100 + length)
            )
            lengths = {t.stop - t.start for t in cut}
            assert max(lengths) <= span
            assert max(lengths) - min(lengths) <= 1
            for tile in cut:
                middle = tile.window_start(WINDOW) + WINDOW // 2
                assert max(middle - tile.start, tile.stop - 1 - middle) <= span / 2
            assert len({t.name for t in cut}) == len(cut)

    def test_values_and_statuses(
        self,
        tmp_path: Path,
        tiny_genome: Genome,
        tiny_model: Scbasset,
        tiny_sequences: dict[str, str],
    ) -> None:
        bed = tmp_path / "r.bed"
        bed.write_text("1\t2495\t2506\tn\n7\t1\t5\tother\n2\t2995\t2998\tend\n2\t4000\t4001\toff\n")
        options = IsmOptions(span=4, precision="float32", batch_size=2)
        found = saturate(bed, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
        table = found.windows()
        assert table.index.tolist() == ["n/1", "n/2", "n/3", "other", "end", "off"]
        assert table["status"].tolist() == [
            *["SCORED"] * 3,
            "CONTIG_MISSING",
            "SCORED",
            "OFF_CONTIG",
        ]
        for row in (0, 1, 2, 4):
            one = table.iloc[row]
            start = (one["start"] + one["stop"]) // 2 - 672
            assert one["window_start"] == start
            text = texts_of(tiny_sequences[one["chrom"]], start)
            length = one["stop"] - one["start"]
            want = definition(tiny_model, text, range(one["start"] - start, one["stop"] - start))
            np.testing.assert_allclose(found.delta_bottleneck[row, :length], want, atol=1e-5)
            assert np.isnan(found.delta_bottleneck[row, length:]).all()
            assert len(found.sequence(row)) == length
        assert np.isnan(found.delta_bottleneck[3]).all()
        assert np.isnan(found.array("obsm/ref_bottleneck")[3]).all()
        with pytest.raises(StoreError, match="window 'other' has no score: CONTIG_MISSING"):
            found.to_logo("other", 0)
        checked = verify_scores(tmp_path / "s.zarr", tiny_genome, tiny_model)
        assert (checked.problems, checked.n_sampled) == ([], 4)

    def test_typed(self, tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset) -> None:
        region = Region.parse("1:1001-1003")
        found = saturate([region], tiny_genome, tiny_model, tmp_path / "s.zarr")
        assert found.to_logo(0, 0).index.tolist() == [1001, 1002, 1003]


@pytest.fixture
def many(tmp_path: Path, tiny_sequences: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Seven variants, one of another contig; shards of two rows."""
    monkeypatch.setattr(store, "WIDE_ROWS", 2)
    lines = []
    for pos in range(1001, 1061, 10):
        variant = snv(tiny_sequences, pos)
        lines.append(f"1 {pos} . {variant.ref} {variant.alt}")
    return write_vcf(
        tmp_path / "v.vcf", *lines, "9 5 . A C", contigs={"1": 6000, "2": 3000, "9": 9}
    )


def options_of(layout: str = "factored") -> IsmOptions:
    return IsmOptions(span=4, precision="float32", layout=layout)  # type: ignore[arg-type]


def test_parts_and_resume_give_the_same_bytes(
    tmp_path: Path,
    many: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saturate(many, tiny_genome, tiny_model, tmp_path / "want.zarr", options=options_of())
    want = contents(tmp_path / "want.zarr")
    for text in ("2/2", "1/2"):
        part = Part.parse(text)
        out = tmp_path / "p.zarr"
        saturate_part(many, tiny_genome, tiny_model, out, part=part, options=options_of())
    finalize(tmp_path / "p.zarr")
    assert contents(tmp_path / "p.zarr") == want
    whole = Progress.write

    def fail(self: Progress, shard: int, *args: Any) -> None:
        if shard == 2:
            raise KeyError(shard)
        whole(self, shard, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "write", fail)
        with pytest.raises(KeyError):
            saturate(many, tiny_genome, tiny_model, tmp_path / "r.zarr", options=options_of())
    assert (tmp_path / "r.zarr.progress").exists()
    saturate(many, tiny_genome, tiny_model, tmp_path / "r.zarr", options=options_of())
    assert contents(tmp_path / "r.zarr") == want
    with pytest.raises(StoreError, match="exists"):
        saturate(many, tiny_genome, tiny_model, tmp_path / "r.zarr", options=options_of())


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_sizes(
    tmp_path: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    tiny_sequences: dict[str, str],
    n: int,
) -> None:
    variants = [snv(tiny_sequences, 1001 + 7 * i) for i in range(n)]
    options = IsmOptions(span=2, batch_size=3, precision="float32")
    found = saturate(variants, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options)
    assert found.delta_bottleneck.shape == (n, 2, 4, 3)
    for row, variant in enumerate(variants):
        text = texts_of(tiny_sequences["1"], variant.start - 672)
        want = definition(tiny_model, text, range(671, 673))
        np.testing.assert_allclose(found.delta_bottleneck[row], want, atol=1e-5)
    assert verify_scores(tmp_path / "s.zarr", tiny_genome, tiny_model).problems == []


class TestReader:
    @pytest.fixture(params=["factored", "dense"])
    def found(
        self,
        request: pytest.FixtureRequest,
        tmp_path: Path,
        many: Path,
        tiny_genome: Genome,
        tiny_model: Scbasset,
    ) -> Saturations:
        out = tmp_path / "s.zarr"
        return saturate(many, tiny_genome, tiny_model, out, options=options_of(request.param))

    def test_values(self, found: Saturations, tiny_model: Scbasset) -> None:
        weight = tiny_model.head.weight.detach().numpy()
        want = found.delta_bottleneck[1] @ weight.T  # (positions, 4, cells)
        np.testing.assert_allclose(found.delta_logit(1), want, atol=1e-6)
        np.testing.assert_allclose(
            found.delta_logit(1, [3, 0], slice(1, 3)), want[1:3, :, [3, 0]], atol=1e-6
        )
        np.testing.assert_allclose(found.of(1, [1, 4]), want[..., [1, 4]].mean(-1), atol=1e-6)
        labels = ["a", "b", "", "a", "b"]
        np.testing.assert_allclose(found.of(1, "b", labels), want[..., [1, 4]].mean(-1), atol=1e-6)
        means = found.group_mean(labels, [1])
        np.testing.assert_allclose(means["a"], want[..., [0, 3]].mean(-1), atol=1e-6)
        name = found.row_names[1]
        np.testing.assert_allclose(found.cell(2).loc[name], want[..., 2], atol=1e-6)
        logo = found.to_logo(name, 2)
        np.testing.assert_allclose(
            logo, want[..., 2] - want[..., 2].mean(1, keepdims=True), atol=1e-6
        )
        assert logo.index.tolist() == [1009, 1010, 1011, 1012]
        np.testing.assert_allclose(found.to_logo(1, 2, centred=False), want[..., 2], atol=1e-6)
        top = found.top_positions(1, 2, n=2)
        size = np.abs(want[..., 2]).max(1)
        assert top["offset"].tolist() == np.argsort(-size)[:2].tolist()
        assert top["base"].iloc[0] == found.sequence(1)[top["offset"].iloc[0]]
        np.testing.assert_allclose(np.abs(top["delta_logit"]), np.sort(size)[::-1][:2], atol=1e-6)

    def test_wrong_names(self, found: Saturations) -> None:
        with pytest.raises(StoreError, match="no cell is of the group 'z'"):
            found.of(0, "z", ["a"] * 5)
        with pytest.raises(StoreError, match="0 cells named 'z'"):
            found.of(0, "z")
        with pytest.raises(StoreError, match="a group needs a cell"):
            found.of(0, [])
        with pytest.raises(StoreError, match="0 rows named 'z'"):
            found.sequence("z")

    def test_other_tools_open_it(self, found: Saturations, tiny_model: Scbasset) -> None:
        adata = anndata.read_zarr(found.path)
        assert adata.shape == (7, 5)
        np.testing.assert_array_equal(adata.obsm["delta_bottleneck"], found.delta_bottleneck[:])
        tree = xarray.open_datatree(found.path, engine="zarr")
        own = tree["obsm"]["delta_bottleneck"]
        assert own.dims == ("windows", "position", "base", "bottleneck")
        if found.attributes["layout"] == "dense":
            want = found.delta_bottleneck[:] @ tiny_model.head.weight.detach().numpy().T
            np.testing.assert_allclose(adata.obsm["delta_logit"], want, atol=1e-6)

    def test_damage(self, found: Saturations, tiny_genome: Genome, tiny_model: Scbasset) -> None:
        path = Path(found.path)
        assert verify_files(found).problems == []
        root = zarr.open_group(path, mode="r+")
        root["obsm/delta_bottleneck"][:] = 1.1 * found.delta_bottleneck[:]
        assert verify_scores(path, tiny_genome, tiny_model).problems
        shard = path / "obsm/delta_bottleneck/c/1/0/0/0"
        content = bytearray(shard.read_bytes())
        content[10] ^= 1
        shard.write_bytes(content)
        (problem, *_) = verify_files(open_saturations(path)).problems
        assert "the store is damaged" in problem


def test_the_ism_of_the_authors(tmp_path: Path) -> None:
    """Logits of each substitution less those of the sequence, (position, base, cell), no bias."""
    model = load_model(DATA / "keras_tiny.weights.h5")
    with np.load(DATA / "keras_tiny.outputs.npz") as outputs:
        text, bottleneck = str(outputs["seqs"][0]), outputs["n25_bottleneck"][0]
        logits = outputs["n25_logits"][0]
    genome = Genome(write_fasta(tmp_path / "g.fa", {"1": text}))
    region = Region("1", 572, 772, "middle", 0)
    options = IsmOptions(span=200, precision="float32")
    found = saturate([region], genome, model, tmp_path / "s.zarr", options=options)
    np.testing.assert_allclose(found.array("obsm/ref_bottleneck")[0], bottleneck, atol=2e-5)
    exact = copy.deepcopy(model).double()  # logits reach 17, where float32 loses 1e-5 of each
    own = exact.predict([text]).numpy()
    np.testing.assert_allclose(own[0], logits, atol=2e-5)
    changed = [text[:p] + base + text[p + 1 :] for p in range(572, 772) for base in "ACGT"]
    want = (exact.predict(changed).numpy() - own).reshape(200, 4, -1)
    np.testing.assert_allclose(found.delta_logit(0), want, atol=2e-5)
    weight = exact.head.weight.detach().numpy()  # (cells, bottleneck), without the bias
    free = definition(exact, text, range(572, 772)) @ weight.T
    np.testing.assert_allclose(found.delta_logit(0), free, atol=2e-5)
    assert np.abs(want).max() > 1e-3


def test_a_wrong_engine_is_caught(
    tmp_path: Path,
    many: Path,
    tiny_genome: Genome,
    tiny_model: Scbasset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:

    class Aside(Scorer):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.engine.weights[1] = self.engine.weights[1].roll(1, 2)

    monkeypatch.setattr(saturation, "Scorer", Aside)
    with pytest.raises(ScbassetError, match="the deltas are off by"):
        saturate(many, tiny_genome, tiny_model, tmp_path / "s.zarr", options=options_of())


def test_what_is_refused(
    tmp_path: Path, tiny_genome: Genome, tiny_model: Scbasset, tiny_sequences: dict[str, str]
) -> None:
    variant, out = snv(tiny_sequences, 1001), tmp_path / "s.zarr"
    with pytest.raises(ScbassetError, match="span 1,345: from 1 to 1,344 bases"):
        saturate([variant], tiny_genome, tiny_model, out, options=IsmOptions(span=1345))
    with pytest.raises(ScbassetError, match=r"from 1 to 1,342 bases.*with shifts of 1"):
        saturate([variant], tiny_genome, tiny_model, out, options=IsmOptions(span=1343, shifts=1))
    region = [Region.parse("1:1001-1003")]
    with pytest.raises(ScbassetError, match="regions have no alternate allele"):
        saturate(region, tiny_genome, tiny_model, out, options=IsmOptions(allele="both"))
    wrong = [Variant("1", 1000, variant.alt, variant.ref)]
    with pytest.raises(ReferenceMismatchError, match="1 of 1 rows"):
        saturate(wrong, tiny_genome, tiny_model, out, options=IsmOptions(span=2))
