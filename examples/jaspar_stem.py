"""A model to start a training from: motifs of JASPAR in its stem, the rest at random.

    python examples/jaspar_stem.py JASPAR2024_CORE_vertebrates_non-redundant_pfms_jaspar.txt \
        peaks.h5ad genome.fa -o stem/ [--test-regions test.bed --validation-regions validation.bed]
    scbasset-ism train peaks.h5ad --genome genome.fa --init stem/ ...

Where peaks are few, a training finds the motifs that many cells share and misses those of a few.
Kernels that begin as known motifs may help, an idea of DanQ (Quang & Xie, Nucleic Acids Res. 44,
e107, 2016). Here the training peaks choose them. A motif's score in a peak is its best match on
either strand near the middle. What base composition explains (the first three principal components
of all scores) is taken out of the scores, and what all cells share (the first component) out of the
cells. Then those motifs are picked whose scores correlate most with any one cell, no two of them
alike. Their log-odds, and the reverse complements, become kernels as large as the random ones. The
matrices are JASPAR's, https://jaspar.elixir.no (Rauluseviciute et al., Nucleic Acids Res. 52, D174,
2024), CC BY 4.0.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scbasset_ism import Genome
from scbasset_ism.accessibility import read_accessibility
from scbasset_ism.bases import Codes
from scbasset_ism.checkpoint import save_checkpoint
from scbasset_ism.examples import Examples, read_examples
from scbasset_ism.model import Scbasset, one_hot
from scbasset_ism.recipe import Recipe, scaled_config

NEAR = 150  # bases to either side of a peak's middle in which a motif counts
ALIKE = 0.45  # correlation of two motifs' scores from which on one of them is enough
Floats = NDArray[np.float32]


def read_motifs(path: Path, width: int) -> tuple[list[str], Floats]:
    """Read matrices of counts in JASPAR's format.

    Returns:
        Their names, and log-odds against even bases, (motifs, 4, width), the mean over the bases
        taken out; of longer motifs the most informative stretch, shorter ones padded with 0.
    """
    names, kernels = [], []
    for text in path.read_text().split(">")[1:]:
        title, *rows = text.strip().splitlines()
        counts = np.array([row.strip(" ]").split("[")[1].split() for row in rows[:4]], dtype=float)
        share = (counts + 0.2) / (counts.sum(axis=0) + 0.8)
        odds = np.log((share + 0.01) / 1.04 / 0.25)
        information = (share * odds).sum(axis=0)
        if odds.shape[1] > width:
            first = int(np.argmax(np.convolve(information, np.ones(width), "valid")))
            odds = odds[:, first : first + width]
        before = (width - odds.shape[1]) // 2
        kernel = np.zeros((4, width), np.float32)
        kernel[:, before : before + odds.shape[1]] = odds - odds.mean(axis=0)
        names.append(title.split()[1])
        kernels.append(kernel)
    return names, np.stack(kernels)


def both_strands(kernels: Floats) -> Floats:
    """Append the reverse complement of each kernel."""
    return np.concatenate([kernels, kernels[:, ::-1, ::-1]])


def best_matches(codes: Codes, kernels: Floats) -> Floats:
    """Score the best match of each motif on either strand, (sequences, motifs)."""
    both, found = torch.from_numpy(both_strands(kernels)), []
    with torch.inference_mode():
        for some in torch.from_numpy(codes).split(256):
            best = torch.conv1d(one_hot(some), both).amax(dim=2)
            found.append(best.reshape(len(some), 2, -1).amax(dim=1))
    return torch.cat(found).numpy()


def standard(numbers: Floats, n_components: int) -> Floats:
    """Give columns mean 0 and variance 1, without the first principal components of them all."""
    numbers = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    _, axes = np.linalg.eigh(numbers.T @ numbers)
    first = axes[:, -n_components:]
    numbers = numbers - (numbers @ first) @ first.T
    return numbers / numbers.std(axis=0)


def pick(examples: Examples, kernels: Floats, n_motifs: int) -> list[int]:
    """Choose the motifs that tell most of any one cell, best first."""
    train, middle = examples.split.train, examples.spans.shape[1] // 2
    codes = examples.spans[train, middle - NEAR : middle + NEAR]
    scores = standard(best_matches(codes, kernels), 3)
    cells = standard(examples.labels(train), 1)
    alike = np.corrcoef(scores.T)
    picked: list[int] = []
    for motif in np.argsort(-(scores.T @ cells).max(axis=1)):
        if len(picked) < n_motifs and (alike[motif, picked] < ALIKE).all():
            picked.append(int(motif))
    return picked


def motif_stem(kernels: Floats, recipe: Recipe) -> Scbasset:
    """Make a model of random weights whose first kernels are these, on both strands."""
    torch.manual_seed(recipe.seed)
    model = Scbasset(scaled_config(1, recipe))
    stem = torch.from_numpy(both_strands(kernels))
    with torch.no_grad():
        weight = model.stem.conv.weight
        size = weight.flatten(1).norm(dim=1).mean()
        weight[: len(stem)] = stem * (size / stem.flatten(1).norm(dim=1))[:, None, None]
        model.stem.batch_norm.bias[: len(stem)] = -1.0  # near 0 but where the motif is
    return model


def main() -> None:
    """Pick motifs, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("motifs", type=Path, help="matrices of counts, JASPAR's format")
    parser.add_argument("peaks", help="AnnData of cells x peaks, as for `train`")
    parser.add_argument("genome", help="FASTA file")
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("--test-regions")
    parser.add_argument("--validation-regions")
    parser.add_argument("--channels", type=int, default=160)
    parser.add_argument("--n-motifs", type=int, default=64)
    args = parser.parse_args()
    if 2 * args.n_motifs > args.channels:
        raise SystemExit(
            f"{args.n_motifs} motifs on two strands don't fit in {args.channels} channels"
        )
    recipe = Recipe(channels=args.channels)
    examples = read_examples(
        read_accessibility(args.peaks),
        Genome(args.genome),
        recipe,
        test=args.test_regions,
        validation=args.validation_regions,
    )
    names, kernels = read_motifs(args.motifs, scaled_config(1, recipe).stem_kernel)
    picked = pick(examples, kernels, args.n_motifs)
    print(" ".join(names[i] for i in picked))
    save_checkpoint(motif_stem(kernels[picked], recipe), args.out)


if __name__ == "__main__":
    main()
