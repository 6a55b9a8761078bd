"""Scores as INFO fields of the VCF that was scored; its records and their order stay as they are.

Lines are carried over as text, so what is not added is the same to the byte. Only a BCF goes
through htslib.
"""

import gzip
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import pysam
import pysam.bcftools

from scbasset_ism import __version__
from scbasset_ism.columns import NUMBER, TEXT_VALUES, Columns, blocks, distinct, symbol, text_rows
from scbasset_ism.errors import ExportError
from scbasset_ism.genome import is_gzip, quiet_htslib
from scbasset_ism.outputs import bgzipped, try_to_index
from scbasset_ism.reader import Scores

_INFO = 7  # column of the record

log = logging.getLogger(__name__)


class _Row(NamedTuple):
    """A row of the store, with its values as INFO fields; no text without a score."""

    name: str
    status: str
    values: str


class Original:
    """The VCF that was scored.

    Attributes:
        path: Where it lies.
        rows: Its rows in the store.

    Raises:
        ExportError: It is not there, or another file.
    """

    def __init__(self, store: Scores, path: Path | None = None) -> None:
        """Find the file.

        Args:
            store: Of the scores.
            path: If it lies elsewhere than where it was scored, or is one of several whose rows
                are in a merged store.
        """
        inputs = [one for one in store.inputs if "variants" in one]
        self.path = path or _own_path(store, inputs)
        digest = _sha256(self.path)
        edges = accumulate((one["rows"] for one in inputs), initial=0)
        self.rows = [
            range(first, first + one["rows"])
            for first, one in zip(edges, inputs, strict=False)
            if one["variants"]["sha256"] == digest
        ]
        if not self.rows:
            scored = sorted({one["variants"]["sha256"][:12] for one in inputs})
            raise ExportError(
                f"{self.path} is not the file that was scored: its sha256 is {digest[:12]}... and "
                f"{store.path} has {'..., '.join(scored)}...; give the original with --vcf"
            )


def write_vcf(
    store: Scores, columns: Columns, path: Path, *, original: Original, prefix: str
) -> Counter[str]:
    """Write the original VCF with INFO fields; bgzip, or BCF by the name, and an index.

    Each field has a value for each ALT (Number=A): PREFIX_status, and PREFIX_name of every column
    where an ALT has a score. Records without ALT, or that were not read for the store, stay bare.

    Args:
        store: Of the scores.
        columns: Which deltas.
        path: Where; .vcf.gz or .bcf.
        original: What was scored.
        prefix: Of the fields' ids.

    Returns:
        Count of the statuses.

    Raises:
        ExportError: The original is no VCF, or has such fields; the prefix can't begin an id.
    """
    if not re.fullmatch(r"[A-Za-z_][0-9A-Za-z_.]*", prefix):
        raise ExportError(f"the prefix {prefix!r} must be letters, digits, _ and ., a letter first")
    counts, is_bcf = Counter[str](), path.suffix == ".bcf"
    text = path.with_name("records.vcf.gz") if is_bcf else path
    fields = _Fields(columns, prefix)
    rows = _rows(store, columns, fields.ids, original.rows)
    with quiet_htslib():
        with _opened(original.path) as (header, records), bgzipped(text) as file:
            header = fields.header(_complete_header(original.path) if is_bcf else header)
            for line in chain(header, _records(records, rows, fields, counts)):
                file.write(f"{line}\n".encode(errors="surrogateescape"))
        if is_bcf:
            _write_bcf(text, path)
            text.unlink()
    if not try_to_index(path, preset="bcf" if is_bcf else "vcf"):
        log.warning("%s has no index: its records are not in the order of positions", path.name)
    return counts


class _Fields:
    """The INFO fields that are added."""

    def __init__(self, columns: Columns, prefix: str) -> None:
        self.status, self._about = f"{prefix}_status", columns.about
        ids = (f"{prefix}_{symbol(name)}" for name in columns.names)
        self.ids = distinct(ids, taken=[self.status])

    def header(self, original: list[str]) -> list[str]:
        """A header with the fields' lines at its end.

        Raises:
            ExportError: It has such fields.
        """
        ids = {found[1] for line in original if (found := re.match(r"##INFO=<ID=([^,>]+)", line))}
        if known := ids.intersection([self.status, *self.ids]):
            raise ExportError(f"the VCF has a field {min(known)}: choose another --prefix")
        lines = [self._line(self.status, "String", "Whether the ALT has a score, or why not")]
        for name, about in zip(self.ids, self._about, strict=True):
            what = f"Delta logit of accessibility, ALT minus REF, {about}"
            lines.append(self._line(name, "Float", what))
        return [*original[:-1], *lines, original[-1]]

    def text(self, rows: list[_Row]) -> str:
        """The fields of a record."""
        status = f"{self.status}={','.join(row.status for row in rows)}"
        if not any(row.values for row in rows):
            return status
        if len(rows) == 1:
            return f"{status};{rows[0].values}"
        values = (
            [field.partition("=")[2] for field in row.values.split(";")]
            if row.values
            else ["."] * len(self.ids)
            for row in rows
        )
        columns = zip(self.ids, zip(*values, strict=True), strict=True)
        return ";".join([status, *(f"{name}={','.join(column)}" for name, column in columns)])

    @staticmethod
    def _line(name: str, kind: str, about: str) -> str:
        about = re.sub(r"\s+", " ", about).replace("\\", "\\\\").replace('"', '\\"')
        source = f'Source="scbasset-ism",Version="{__version__}"'
        return f'##INFO=<ID={name},Number=A,Type={kind},Description="{about}",{source}>'


def _records(
    lines: Iterator[str], rows: Iterator[_Row], fields: _Fields, counts: Counter[str]
) -> Iterator[str]:
    """Lines of the records, with the fields of those whose rows the store has, which are counted.

    A store of a region lacks records, and then all ALTs of them.
    """
    coming = next(rows, None)
    for line in lines:
        columns = line.split("\t", _INFO + 1)
        alts = columns[4].split(",")
        names = [f"{columns[0]}:{int(columns[1])}:{columns[3]}:{alt}" for alt in alts]
        if coming is None or coming.name != names[0]:
            yield line
            continue
        found = [coming, *islice(rows, len(alts) - 1)]
        coming = next(rows, None)
        if [row.name for row in found] != names:
            raise ExportError(f"the store has {[row.name for row in found]} in place of {names}")
        counts.update(row.status for row in found)
        if alts != ["."]:
            info = columns[_INFO]
            columns[_INFO] = ("" if info in {"", "."} else f"{info};") + fields.text(found)
        yield "\t".join(columns)
    if coming is not None:
        raise ExportError(f"the VCF has no record for {coming.name}, the store's next row")


def _rows(
    store: Scores, columns: Columns, ids: list[str], ranges: Iterable[range]
) -> Iterator[_Row]:
    """Rows of the store as text."""
    template = ";".join(f"{name}={NUMBER}" for name in ids)
    for rows in ranges:
        for block in blocks(store, columns, rows, TEXT_VALUES):
            texts = text_rows(block.values, template, "")
            yield from map(_Row, block.table.index, block.table["status"], texts)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Iterator[str]]]:
    """The header and the records of a VCF, plain or gzip, or of a BCF as a VCF would have them.

    Lines are without their ends.
    """
    with path.open("rb") as file:
        opener: Any = gzip.open if is_gzip(file.read(2)) else open
    with opener(path, "rb") as file:
        is_bcf = file.read(3) == b"BCF"
    if is_bcf:
        with pysam.VariantFile(str(path)) as file:
            yield str(file.header).splitlines(), (str(record)[:-1] for record in file)
        return
    with opener(path, "rt", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        lines = (line.rstrip("\r\n") for line in file)
        header = [next(lines, "")]
        if not header[0].startswith("##fileformat=VCF"):
            raise ExportError(f"{path} is no VCF, so it has no records that can be annotated")
        while not header[-1].startswith("#CHROM"):
            header.append(next(lines))
        yield header, lines


def _complete_header(path: Path) -> list[str]:
    """Lines of the header, with those that it lacks for its records, which a BCF can't do without.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as stream, pysam.VariantFile(stream) as file:
        for _ in file:
            pass
        return str(file.header).splitlines()


def _write_bcf(text: Path, out: Path) -> None:
    """Write a VCF as BCF; pysam's own writer would add END to records that have none."""
    try:
        pysam.bcftools.view("--no-version", "-Ob", "-o", str(out), str(text), catch_stdout=False)
    except pysam.utils.SamtoolsError as error:
        reason = str(error).rpartition("stderr=")[2].strip()
        raise ExportError(f"the VCF can't be written as BCF: {reason}; name a .vcf.gz") from error


def _own_path(store: Scores, inputs: list[dict[str, Any]]) -> Path:
    """The file that the store names."""
    names = list(dict.fromkeys(one["variants"]["path"] for one in inputs))
    if len(names) > 1:
        raise ExportError(
            f"{store.path} holds the rows of {len(names):,} files, from {names[0]} to {names[-1]}: "
            "choose one with --vcf"
        )
    if not Path(names[0]).is_file():
        raise ExportError(
            f"{store.path} was written from {names[0]}, which is no file here: give the VCF that "
            "was scored with --vcf"
        )
    return Path(names[0])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(f"{path} can't be read: {error.strerror}") from error
