"""Draws what every substitution of a stretch of DNA does to some cells, as sequence logos.

    python examples/saturation.py 20:56754765-56754805 --model demo --genome genome.fa.gz \
        --group "K562=UwdukeK562" --group "stem cells=pluripotent" -o figure.svg

A group is named by ids of cells, or by what stands in any column of their table.
The window is centred on the region. A letter is as high as the logit that its base is worth: the
base's own delta (0) less the mean over the four bases, as in the authors' notebook. So a motif that
opens the place stands upright.
"""

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure

from scbasset_ism.bases import decode
from scbasset_ism.checkpoint import load_model
from scbasset_ism.delta import Engine
from scbasset_ism.genome import Genome
from scbasset_ism.model import Scbasset
from scbasset_ism.plot import logo
from scbasset_ism.regions import Region


def base_values(model: Scbasset, genome: Genome, region: Region) -> torch.Tensor:
    """Value of every base of a region, (bases, 4, cells): its delta less the mean of the four."""
    start = region.window_start(model.config.window)
    codes = genome.codes(region.chrom, start, start + model.config.window)
    saturation = Engine(model).saturate(torch.from_numpy(codes.copy())[None])
    inside = slice(region.start - start, region.stop - start)
    with torch.inference_mode():
        delta = saturation.delta_bottleneck[0, inside] @ model.head.weight.T  # (bases, 4, cells)
    return delta - delta.mean(1, keepdim=True)


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("region", type=Region.parse, help="chrom:first-last, 1-based")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--genome", type=Genome, required=True)
    parser.add_argument("--group", action="append", required=True, help="name=cells")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    model, region = load_model(args.model), args.region
    sequence = decode(args.genome.codes(region.chrom, region.start, region.stop))
    values = base_values(model, args.genome, region)
    figure = Figure(figsize=(10, 1.6 * len(args.group)), layout="constrained")
    axes = figure.subplots(len(args.group), squeeze=False, sharex=True, sharey=True)[:, 0]
    for ax, group in zip(axes, args.group, strict=True):
        name, _, cells = group.partition("=")
        members = model.cells.reset_index().isin(cells.split(",")).any(axis=1).to_numpy()
        if not members.any():
            parser.error(f"the model has no cell called {cells}")
        logo(sequence, values[:, :, members].mean(2).numpy(), ax, start=region.start + 1)
        ax.set_title(name, loc="left", fontsize=9)
    axes[-1].set_xlabel(f"position on {region.chrom}")
    figure.savefig(args.output)


if __name__ == "__main__":
    main()
