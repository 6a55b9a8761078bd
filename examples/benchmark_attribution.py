"""How fast attributions of all cells are through the bottleneck, against Captum cell by cell.

    python examples/benchmark_attribution.py [--cells 20] [--steps 32] [--rounds 3]

One window, a full-size network with random weights and 2,034 cells, N as the baseline, the same
steps and batches. Captum runs on some of the cells and is scaled up to all. The two ways take
turns; the ratio is the median over the rounds. The largest difference between the two is printed
beside the largest attribution.
"""

import argparse
from statistics import median
from time import perf_counter

import numpy as np
import torch
from captum.attr import IntegratedGradients

import scbasset_ism as sb
from scbasset_ism.model import one_hot


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    model = sb.random_model()
    codes = np.random.default_rng(0).integers(0, 4, (1, model.config.window)).astype(np.uint8)
    options = sb.AttributionOptions(max_steps=args.steps, batch_size=args.batch_size)
    x = one_hot(torch.from_numpy(codes))
    start = one_hot(torch.full((1, model.config.window), 4, dtype=torch.uint8))
    cells = np.linspace(0, model.config.n_cells - 1, args.cells).astype(int)
    weight = model.head.weight.detach().numpy()
    captum, ours = IntegratedGradients(model), []
    theirs: list[float] = []
    for _ in range(args.rounds):
        begin = perf_counter()
        found = sb.attribute(model, codes, options=options).logits(weight)[0]
        ours.append(perf_counter() - begin)
        begin, each = perf_counter(), []
        for cell in cells.tolist():
            maps = captum.attribute(
                x, start, target=cell, n_steps=args.steps, internal_batch_size=args.batch_size
            )
            each.append(maps.sum(1)[0].detach().numpy())
        theirs.append((perf_counter() - begin) / args.cells * model.config.n_cells)
        error = np.abs(found[cells] - np.array(each)).max()
        print(f"{ours[-1]:8.1f} s all cells  {theirs[-1]:8.1f} s cell by cell (scaled)", flush=True)
    ratio = median(b / a for a, b in zip(ours, theirs, strict=True))
    print(f"{ratio:.0f} times as fast; differs by {error:.1e} of {np.abs(found).max():.1e}")


if __name__ == "__main__":
    main()
