"""Draws what every substitution of a stretch of DNA does to some cells, as sequence logos.

    scbasset-ism ism 20:55990385-55990425 --model demo --genome genome.fa.gz -o ism.zarr
    python examples/saturation.py ism.zarr --group "erythroid=UwdukeK562" \
        --group "T cells=E033,E034" -o figure.svg

A letter is as high as the logit that its base is worth: the base's own delta (0) less the mean over
the four bases, as in the authors' notebook. So a motif that opens the place stands upright.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from scbasset_ism import open_saturations
from scbasset_ism.plot import logo


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", help="what `scbasset-ism ism` wrote")
    parser.add_argument("--window", type=int, default=0, help="number of the window, from 0")
    parser.add_argument("--group", action="append", required=True, help="name=cell,cell,...")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    found = open_saturations(args.store)
    figure = Figure(figsize=(10, 1.6 * len(args.group)), layout="constrained")
    axes = figure.subplots(len(args.group), squeeze=False, sharex=True, sharey=True)[:, 0]
    for ax, group in zip(axes, args.group, strict=True):
        name, _, cells = group.partition("=")
        values = found.to_logo(args.window, cells.split(","))
        logo(found.sequence(args.window), values.to_numpy(), ax, start=values.index[0])
        ax.set_title(name, loc="left", fontsize=9)
    axes[-1].set_xlabel(f"position on {found.windows()['chrom'].iloc[args.window]}")
    figure.savefig(args.output)


if __name__ == "__main__":
    main()
