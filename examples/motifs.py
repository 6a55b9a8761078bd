"""What attributions find: motifs planted in shuffled DNA, and what saturation mutagenesis finds.

    scbasset-ism demo
    python examples/motifs.py scbasset-ism-demo/genome.fa.gz [--windows 20]

Backgrounds are dinucleotide shuffles of the windows that the model finds most accessible, in a cell
type where the factor acts, in the known part of the genome; the consensus of a matrix is planted in
their middle. An insertion is found where the ten positions with the largest attributions
(integrated gradients in 16 steps, N as the baseline) all lie within the motif: by absolute values,
and by those that open alone, since all four factors open. Flanks that hold next to no information
are asked for where fewer than ten bases matter (0.5 bits or more), so the same is counted, by
absolute values, with as many positions as matter, at most ten. Beside it, how many of the ten lie
within on average, and how many do so in five of the backgrounds without the motif. Then the
attributions of all positions of the 20 most accessible windows are compared with the mean of the
three substitutions there, by Spearman's correlation.

The matrices are those of JASPAR 2014 (Mathelier et al., Nucleic Acids Res. 42, D142, 2014).
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import scbasset_ism as sb
from scbasset_ism.bases import Codes, N, decode
from scbasset_ism.regions import Region
from scbasset_ism.shuffles import dinucleotide_shuffle

TOP = 10
CELL = "UwdukeK562"
# Counts of A, C, G, T at each position, and a cell type in which the factor acts.
MOTIFS = {
    "CTCF (MA0139.1)": (
        "UwdukeK562",
        """87 291 76 459; 167 145 414 187; 281 49 449 134; 56 800 21 36; 8 903 0 2; 744 13 65 91;
        40 528 334 11; 107 433 48 324; 851 11 32 18; 5 0 903 3; 333 3 566 9; 54 12 504 341;
        12 0 890 8; 56 8 775 71; 104 733 5 67; 372 13 507 17; 82 482 307 37; 117 322 73 396;
        402 181 266 59""",
    ),
    "FOS, of AP-1 (MA0476.1)": (
        "UwNhdfneo",
        """7879 712 9686 11119; 7475 10177 10841 903; 0 0 0 29396; 0 0 27108 2288; 29396 0 0 0;
        998 14079 11206 3113; 0 0 0 29396; 0 29396 0 0; 29396 0 0 0; 258 5823 1538 21777;
        4006 8236 7897 9257""",
    ),
    "SPI1 (MA0080.3)": (
        "E029",
        """24957 10470 17557 10731; 27071 7875 22021 6748; 38966 3311 13786 7652;
        42251 3103 12032 6329; 38682 534 11483 13016; 12577 8120 43018 0; 45356 3209 14683 467;
        4801 0 58914 0; 0 0 63715 0; 63665 0 50 0; 63715 0 0 0; 3436 10145 50134 0;
        8250 3223 3385 48857; 3893 12038 45501 2283; 21911 12028 21003 8773""",
    ),
    "GATA1 (MA0035.3)": (
        "UwdukeK562",
        """2035 4321 2530 9069; 506 6406 2792 8251; 0 14869 437 2649; 0 697 0 17258; 0 0 0 17955;
        17955 0 0 0; 0 0 0 17955; 0 17955 0 0; 2166 0 0 15789; 2502 6166 6687 2600;
        1886 5072 1598 9399""",
    ),
}


def consensus(counts: str) -> Codes:
    """Give the most frequent base at each position, (positions,) uint8."""
    matrix = np.array([row.split() for row in counts.split(";")], dtype=int)
    return matrix.argmax(axis=1).astype(np.uint8)


def n_informative(counts: str) -> int:
    """Count the positions of a matrix with at least 0.5 bits of information."""
    share = np.array([row.split() for row in counts.split(";")], dtype=float) + 1e-9
    share /= share.sum(axis=1, keepdims=True)
    return int((2 + (share * np.log2(share)).sum(axis=1) >= 0.5).sum())


def predict(genome: sb.Genome, model: sb.Scbasset) -> tuple[list[Region], np.ndarray]:
    """Predict the windows that lie side by side and hold no N: logits (windows, cells)."""
    (chrom,) = genome.contigs
    width = model.config.window
    codes = genome.codes(chrom, 0, genome.contigs[chrom])
    starts = [
        start
        for start in range(0, len(codes) - width, width)
        if (codes[start : start + width] != N).all()
    ]
    texts = [decode(codes[start : start + width]) for start in starts]
    logits = [model.predict(texts[i : i + 64]).numpy() for i in range(0, len(texts), 64)]
    regions = [Region(chrom, start, start + width, f"{chrom}:{start}", 0) for start in starts]
    return regions, np.concatenate(logits)


def attributions(model: sb.Scbasset, codes: Codes, cell: int) -> np.ndarray:
    """Give the attributions of a cell's logit, (windows, positions)."""
    weight = model.head.weight.detach().numpy()[cell : cell + 1]
    found = sb.attribute(model, codes, options=sb.AttributionOptions(max_steps=16))
    if not found.is_complete.all():
        raise SystemExit(f"16 steps are too few: errors up to {found.error.max():.1%}")
    return found.logits(weight)[:, 0]


def top_within(values: np.ndarray, within: range) -> np.ndarray:
    """Say which of the top positions, largest first, lie in a range, (windows, TOP)."""
    top = np.argsort(-values, axis=1)[:, :TOP]
    return (top >= within.start) & (top < within.stop)


def correlations(
    genome: sb.Genome, model: sb.Scbasset, cell: str, regions: list[Region]
) -> list[float]:
    """Compare attributions with saturation mutagenesis over the positions of each window."""
    span = model.config.window
    with TemporaryDirectory() as folder:
        options = sb.IsmOptions(span=span, precision="float32")
        ism = sb.saturate(regions, genome, model, Path(folder) / "ism.zarr", options=options)
        how, out = sb.AttributionRunOptions(span=span), Path(folder) / "attributions.zarr"
        own = sb.attribute_windows(regions, genome, model, out, options=how)
        found = []
        for window in range(len(regions)):
            lost = -ism.of(window, cell).sum(axis=1) / 3  # 0 at the base that is there
            found.append(lost.rank().corr(own.logits(window, cell).rank()))
        return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("genome", help="FASTA file with one contig")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--windows", type=int, default=20)
    args = parser.parse_args()
    genome, model = sb.Genome(args.genome), sb.load_model(args.model)
    names, (regions, logits) = list(model.cells.index), predict(genome, model)
    print(
        f"{'motif':27}{'cell':12}{'by ten':>8}{'that open':>11}{'by those that matter':>22}"
        f"{'of ten':>8}{'without':>9}"
    )
    for factor, (cell, counts) in MOTIFS.items():
        number, motif, rng = names.index(cell), consensus(counts), np.random.default_rng(0)
        best = [regions[i] for i in np.argsort(-logits[:, number])[: args.windows]]
        plain = np.stack(
            [dinucleotide_shuffle(genome.codes(r.chrom, r.start, r.stop), rng) for r in best]
        )
        first = (model.config.window - len(motif)) // 2
        within = range(first, first + len(motif))
        planted = plain.copy()
        planted[:, first : first + len(motif)] = motif
        own = attributions(model, planted, number)
        inside, opening = top_within(np.abs(own), within), top_within(own, within)
        before = top_within(np.abs(attributions(model, plain[:5], number)), within)
        matter = min(TOP, n_informative(counts))
        found, open_found = (f"{top.all(axis=1).mean():.0%}" for top in (inside, opening))
        by_fewer = f"{inside[:, :matter].all(axis=1).mean():.0%} ({matter})"
        within_ten, without = inside.sum(axis=1).mean(), before.sum(axis=1).mean()
        print(
            f"{factor:27}{cell:12}{found:>8}{open_found:>11}{by_fewer:>22}{within_ten:8.1f}"
            f"{without:9.1f}",
            flush=True,
        )
    best = [regions[i] for i in np.argsort(-logits[:, names.index(CELL)])[:20]]
    rho = correlations(genome, model, CELL, best)
    print(
        f"integrated gradients and saturation mutagenesis, {CELL}, {len(rho)} windows: Spearman's "
        f"correlation {np.median(rho):.3f} (median; {min(rho):.3f} to {max(rho):.3f})"
    )


if __name__ == "__main__":
    main()
