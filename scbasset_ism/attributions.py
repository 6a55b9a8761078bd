"""Reads what `attribute` wrote."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scbasset_ism.bases import N, encode
from scbasset_ism.contributions import own_base, save_modisco
from scbasset_ism.errors import StoreError
from scbasset_ism.frames import ZarrArray
from scbasset_ism.places import Location
from scbasset_ism.variants import Variant, normalize
from scbasset_ism.window_store import BASES, Group, WindowStore

GAP = "-"


class Attributions(WindowStore):
    """What each base of stretches of DNA adds to the logit of any cell: values are logits.

    Windows, cells and groups are named as `WindowStore` says. Hypothetical attributions are what
    each of the four bases would add in its place; `corrected` subtracts their mean (see
    `Contributions`).

    Attributes:
        tolerance: Of the completeness error; numbers of a window that is above are refused.
    """

    kind = "attribute"
    factors = ("hypothetical", "window_bottleneck", "difference")

    def __init__(self, path: Location, tolerance: float | None = None) -> None:
        """Open a finished store.

        Args:
            path: Where it lies.
            tolerance: By default that of the run, which left windows above it `INCOMPLETE`.
        """
        super().__init__(path)
        own = self.attributes["options"]["tolerance"]
        self.tolerance = float(own if tolerance is None else tolerance)

    @property
    def hypothetical_bottleneck(self) -> ZarrArray:
        """(windows, positions, 4, bottleneck) float32, on disk."""
        return self.array("obsm/hypothetical")

    @property
    def difference(self) -> ZarrArray:
        """Bottleneck of the window minus that of the baseline, (windows, bottleneck), on disk."""
        return self.array("obsm/difference")

    def hypothetical(
        self, window: str | int, group: Group, labels: Any = None, *, corrected: bool = False
    ) -> pd.DataFrame:
        """Give what each base would add, (positions, 4); index: 1-based positions of the contig.

        Raises:
            StoreError: There is no such window, cell or group, or the window has no numbers.
        """
        values = self._of(window, group, labels)
        return values.sub(values.mean(axis=1), axis=0) if corrected else values

    def logits(
        self, window: str | int, group: Group, labels: Any = None, *, corrected: bool = False
    ) -> pd.Series:
        """Give what the bases that are there add, (positions); an N adds 0."""
        values = self.hypothetical(window, group, labels, corrected=corrected)
        codes = encode(self.sequence(window))
        own = own_base(values.to_numpy()[None], codes[None])[0]
        return pd.Series(own, index=values.index, name="attribution")

    def to_logo(
        self, window: str | int, group: Group, labels: Any = None, *, corrected: bool = False
    ) -> pd.DataFrame:
        """Give what a logo shows, (positions, 4): what the bases that are there add, the rest 0."""
        own = self.logits(window, group, labels, corrected=corrected)
        there = np.eye(5, 4, dtype=bool)[encode(self.sequence(window))]
        values = np.where(there, own.to_numpy()[:, None], np.float32(0))
        return pd.DataFrame(values, index=own.index, columns=BASES)

    def top_positions(
        self,
        window: str | int,
        group: Group,
        labels: Any = None,
        *,
        n: int = 10,
        corrected: bool = False,
    ) -> pd.DataFrame:
        """Find the positions whose bases add or take most.

        Returns:
            By absolute value, of equal ones the first first: `offset` in the stretch, the base
            that is there and its `attribution`; index: position.
        """
        own = self.logits(window, group, labels, corrected=corrected)
        order = np.argsort(-np.abs(own.to_numpy()), kind="stable")[:n]
        bases = np.array(list(self.sequence(window)))[order]
        columns = {"offset": order, "base": bases, "attribution": own.to_numpy()[order]}
        return pd.DataFrame(columns, index=own.index[order])

    def saliency(self, window: str | int, group: Group, labels: Any = None) -> pd.Series:
        """Give the largest absolute gradient over the four bases, (positions).

        Raises:
            StoreError: The store holds no gradients.
        """
        if self.attributes["options"]["method"] != "input-x-gradient":
            raise StoreError(
                f"{self.path}: a saliency needs gradients: attribute with the method "
                "input-x-gradient"
            )
        return self._of(window, group, labels).abs().max(axis=1).rename("saliency")

    def alt_minus_ref(
        self, variant: str, group: Group, labels: Any = None, *, corrected: bool = False
    ) -> pd.DataFrame:
        """Compare the two haplotypes of a variant, base by base.

        Args:
            variant: As it is written in the column `source`.
            group: Cells.
            labels: Where the group is named by its label.
            corrected: Subtract the mean over the four bases first.

        Returns:
            `ref_base` and `alt_base`, what they add (`ref`, `alt`) and `delta`, alt minus ref. A
            base that only one haplotype has stands opposite a gap, which adds 0. Index: position
            on the contig; inserted bases have that of the base before them.

        Raises:
            StoreError: The store has not both haplotypes of the variant.
        """
        names = (variant, f"{variant}/alt")
        own = normalize(Variant.parse(variant), lambda _, start, stop: GAP * (stop - start))
        lengths = len(own.ref), len(own.alt)
        columns: dict[str, NDArray[Any]] = {}
        positions = np.empty(0)
        for haplotype, name, length in zip(("ref", "alt"), names, lengths, strict=True):
            values = self.logits(name, group, labels, corrected=corrected)
            at, n_gaps = len(values) // 2 + length, max(lengths) - length
            bases = np.array(list(self.sequence(name)))
            columns[f"{haplotype}_base"] = np.insert(bases, [at] * n_gaps, GAP)[: len(values)]
            columns[haplotype] = np.insert(values.to_numpy(), [at] * n_gaps, 0)[: len(values)]
            if haplotype == "ref":
                places = values.index.to_numpy()
                positions = np.insert(places, [at] * n_gaps, places[0] + at - 1)[: len(values)]
        table = pd.DataFrame(columns, index=pd.Index(positions, name="position"))
        table = table[["ref_base", "alt_base", "ref", "alt"]]
        return table.assign(delta=table["alt"] - table["ref"])

    def save_modisco(
        self, folder: str | Path, group: Group, labels: Any = None, *, corrected: bool = False
    ) -> list[str]:
        """Write the files that TF-MoDISco reads; windows without numbers are left out.

        Shorter stretches lie in the middle, with no base and no attribution around them.

        Args:
            folder: It gets `raw.npz` and `shap.npz` (see the function `save_modisco`), and
                `windows.bed` with the places of the windows, for `modisco seqlet-bed`.
            group: Cells.
            labels: Where the group is named by its label.
            corrected: Subtract the mean over the four bases first.

        Returns:
            Names of the windows, in the order of the files.
        """
        table = self.windows()
        chosen = np.flatnonzero(self._are_usable(table))
        length = self.bottleneck.shape[1]
        codes = np.full((len(chosen), length), N, dtype=np.uint8)
        hypothetical = np.zeros((len(chosen), length, 4), dtype=np.float32)
        lines = []
        for i, number in enumerate(chosen.tolist()):
            values = self.hypothetical(number, group, labels, corrected=corrected)
            row = table.iloc[number]
            first = length // 2 - len(values) // 2
            place = slice(first, first + len(values))
            codes[i, place], hypothetical[i, place] = encode(row["sequence"]), values
            fields = (row["chrom"], row["start"], row["stop"], table.index[number], 0, ".")
            lines.append("\t".join(map(str, fields)) + "\n")
        save_modisco(folder, codes, hypothetical)
        (Path(folder) / "windows.bed").write_text("".join(lines))
        return list(table.index[chosen])

    def _are_usable(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        known = rows["status"].isin(["SCORED", "INCOMPLETE"])
        return (known & ~(rows["completeness_error"] > self.tolerance)).to_numpy()

    def _trouble(self, row: pd.Series) -> str:
        if row["status"] not in {"SCORED", "INCOMPLETE"}:
            return super()._trouble(row)
        return (
            f"is not complete: its attributions miss the logits by {row['completeness_error']:.1%} "
            f"after {row['n_steps']} steps, more than {self.tolerance:.1%}; attribute it with more "
            "steps, or open the store with a larger tolerance"
        )


def open_attributions(path: Location, *, tolerance: float | None = None) -> Attributions:
    """Open what `attribute` wrote.

    Args:
        path: Where it lies.
        tolerance: Windows with a larger completeness error have no numbers; by default that of
            the run. They have the status INCOMPLETE.
    """
    return Attributions(path, tolerance)
