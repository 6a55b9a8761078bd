"""Stretches of a genome that a user names: BED lines, and `chrom:start-stop`."""

import gzip
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import IO, Self

from scbasset_ism.errors import RegionError

END = 2**31 - 1  # past the end of any contig; htslib's own limit
_NOT_REGIONS = ("#", "track", "browser")


@dataclass(frozen=True, slots=True)
class Region:
    """A named stretch of a contig, 0-based and half-open.

    The summit is narrowPeak's where the file has one, else the middle.
    """

    chrom: str
    start: int
    stop: int
    name: str
    summit: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `chrom`, `chrom:pos`, `chrom:first-` or `chrom:first-last`, 1-based inclusive.

        >>> Region.parse("chr20:1,000,001-1,000,010")
        Region(chrom='chr20', start=1000000, stop=1000010, name='chr20:1,000,001-1,000,010', ...)

        Raises:
            RegionError: The text is something else.
        """
        chrom, colon, places = text.strip().rpartition(":")
        if not colon and places:
            return cls(places, 0, END, text, 0)
        if match := re.fullmatch(r"(\d+)(?:(-)(\d*))?", places.replace(",", ""), re.ASCII):
            first, dash, last = match.groups()
            start, stop = int(first) - 1, int(last or (END if dash else first))
            if chrom and 0 <= start < stop:
                return cls(chrom, start, stop, text, (start + stop) // 2)
        raise RegionError(f"{text!r} is no region; write it as chr20:1000001-2000000")

    def window_start(self, window: int) -> int:
        """First base of the window on this region, by the rule of the authors' preprocessing.

        The middle is `(start + stop) // 2`, and it lies at offset `window // 2`.

        >>> Region("chr20", 100, 201, "peak", 150).window_start(1344)
        -522
        """
        return (self.start + self.stop) // 2 - window // 2


class Peaks:
    """Looks up the peak that holds a position.

    Args:
        regions: In any order; they may overlap.
        resolve: Gives the name by which variants call a contig, or None for one to leave out.
    """

    def __init__(
        self, regions: Iterable[Region], resolve: Callable[[str], str | None] = lambda name: name
    ) -> None:
        by_chrom = defaultdict[str, list[Region]](list)
        for region in regions:
            name = resolve(region.chrom)
            if name is not None:
                by_chrom[name].append(region)
        self._peaks = {
            chrom: sorted(peaks, key=attrgetter("start")) for chrom, peaks in by_chrom.items()
        }
        self._starts = {chrom: [p.start for p in peaks] for chrom, peaks in self._peaks.items()}
        self._longest = {
            chrom: max(p.stop - p.start for p in peaks) for chrom, peaks in self._peaks.items()
        }

    def nearest(self, chrom: str, start: int, stop: int) -> Region | None:
        """Give the peak that holds all of `start` to `stop`; of several, the nearest summit's."""
        if chrom not in self._peaks:
            return None
        starts = self._starts[chrom]
        first = bisect_left(starts, stop - self._longest[chrom])
        last = bisect_right(starts, start)
        holding = [peak for peak in self._peaks[chrom][first:last] if peak.stop >= stop]
        return min(holding, key=lambda peak: abs(peak.summit - start), default=None)


def read_bed(path: str | Path) -> Iterator[Region]:
    """Read the first columns of a BED or narrowPeak file, plain or gzip.

    Raises:
        RegionError: The file is missing, or a line is not BED.
    """
    path = Path(path)
    try:
        with _open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip() and not line.startswith(_NOT_REGIONS):
                    yield _parse_line(line, f"{path}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise RegionError(f"{path} can't be read as BED: {error}") from error


def _open_text(path: Path) -> IO[str]:
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt") if is_gzip else path.open()


def _parse_line(line: str, place: str) -> Region:
    fields = line.rstrip("\r\n").split("\t")
    if len(fields) < 3:
        fields = line.split()
    chrom, start, stop, name, *_ = [*fields, "", "", "", ""]
    if not (chrom and start.isdecimal() and stop.isdecimal() and int(start) < int(stop)):
        raise RegionError(
            f"{place}: {line.strip()[:60]!r} is not BED; write chrom, start and stop "
            "(0-based, half-open, start below stop), separated by tabs"
        )
    first, last = int(start), int(stop)
    has_summit = len(fields) == 10 and fields[9].isdecimal()  # narrowPeak
    summit = first + int(fields[9]) if has_summit else (first + last) // 2
    return Region(chrom, first, last, name or f"{chrom}:{start}-{stop}", summit)
