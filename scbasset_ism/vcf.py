"""Files of variants: one Record per ALT, in file order, scored or with the reason why not.

VCF, BCF, TSV and Parquet, recognised by what they hold; gzip and bgzip alike. Everything streams.
`pos` is 1-based, as written; a Record's `variant` is normalized and 0-based.
"""

import gzip
import hashlib
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import pysam

from scbasset_ism.errors import ReferenceMismatchError, VariantError
from scbasset_ism.genome import Genome, bare_name, is_bgzip, is_cut_short, is_gzip, quiet_htslib
from scbasset_ism.regions import Region
from scbasset_ism.streams import pick
from scbasset_ism.variants import MAX_ALLELE, Status, Variant, is_acgt, normalize

Source = str | Path | Sequence[Variant]
OnMismatch = Literal["skip", "flip", "error"]

_BATCH = 1024  # records read at once
_NEEDED = ("chrom", "pos", "ref", "alt")


@dataclass(frozen=True, slots=True)
class Record:
    """One ALT as it is in the file, and what became of it.

    Attributes:
        record: Number of the record among those read, from 0.
        alt_index: Number of the ALT in its record, from 1 as in a VCF's genotypes.
        chrom: As written; `variant` has the genome's name.
        pos: As written, 1-based.
        id: `.` where there is none.
        ref: As written.
        alt: As written; `.` where there is none.
        variant: Normalized, with the alleles swapped where `sign` is -1; None without a score.
        status: Why there is no score.
        sign: -1 where the genome has ALT: the delta of `variant` times this is alt minus ref.
    """

    record: int
    alt_index: int
    chrom: str
    pos: int
    id: str
    ref: str
    alt: str
    variant: Variant | None
    status: Status
    sign: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over the variants tells before they are scored.

    Attributes:
        name: The path; what to call the source in a message.
        n_rows: ALT alleles, hence rows to write.
        contigs: Names as written, in order of appearance.
        sha256: Of the file, or of the variants' text, a line each.
    """

    name: str
    n_rows: int
    contigs: tuple[str, ...]
    sha256: str


class _Line(NamedTuple):
    """A record as the file has it, whatever the format."""

    chrom: str
    pos: int
    id: str
    ref: str
    alts: tuple[str, ...]


@contextmanager
def spooled(source: Source) -> Iterator[Source]:
    """Make a source that can be read only once (`-` for stdin, a pipe) one that can be read twice.

    It is copied into a temporary file, which is gone afterwards; other sources stay as they are.
    """
    is_stdin = str(source) == "-"
    if not isinstance(source, str | Path) or not (is_stdin or Path(source).is_fifo()):
        yield source
        return
    with TemporaryDirectory(prefix="scbasset-ism-") as folder:
        spool = Path(folder) / "stdin"
        stdin = nullcontext(sys.stdin.buffer)
        with stdin if is_stdin else Path(source).open("rb") as pipe, spool.open("wb") as target:
            shutil.copyfileobj(pipe, target)
        yield spool


def scan(source: Source, region: str | None = None) -> Scan:
    """Count the rows and collect the contigs of a source, in one streaming pass.

    Args:
        source: Path of a VCF, BCF, TSV or Parquet file, or variants.
        region: `chrom:first-last`, 1-based inclusive; only the records that overlap it.

    Raises:
        VariantError: The file can't be read to its end.
    """
    n_rows, contigs = 0, dict[str, None]()
    for line in _lines(source, region):
        n_rows += len(line.alts)
        contigs[line.chrom] = None
    if not isinstance(source, str | Path):
        text = "".join(f"{variant}\n" for variant in source)
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Scan("the variants given", n_rows, tuple(contigs), digest)
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Scan(str(source), n_rows, tuple(contigs), digest)


def reference(source: Source) -> str | None:
    """The assembly that a VCF's header names in `##reference`, as written.

    Raises:
        VariantError: The file can't be read.
    """
    if not isinstance(source, str | Path) or not _is_vcf(_head(Path(source))[1]):
        return None
    with quiet_htslib(), _opened(Path(source)) as file:
        return next((line.value for line in file.header.records if line.key == "reference"), None)


def read(
    source: Source,
    genome: Genome,
    *,
    ref_mismatch: OnMismatch = "skip",
    region: str | None = None,
    rows: Iterable[range] | None = None,
) -> Iterator[Record]:
    """Give one Record per ALT, in the order of the file.

    A base that the genome doesn't know (N) is a mismatch too. An ALT that equals REF is a variant
    without a change. An allele's length is that of the normalized variant.

    Args:
        source: Path of a VCF, BCF, TSV or Parquet file, or variants.
        genome: Where REF is looked up.
        ref_mismatch: What to do where the genome has other bases than REF: leave the row without
            a score, swap the alleles if the genome has ALT (else skip), or raise.
        region: `chrom:first-last`, 1-based inclusive; only the records that overlap it.
        rows: Which of these rows, as ascending ranges; all by default.

    Raises:
        VariantError: The file can't be read to its end.
        ReferenceMismatchError: The genome has other bases, and that shall be an error.
    """
    alleles = (
        (i, line, alt_index, alt)
        for i, line in enumerate(_lines(source, region))
        for alt_index, alt in enumerate(line.alts, start=1)
    )
    for i, line, alt_index, alt in alleles if rows is None else pick(alleles, rows):
        variant, status, sign = _judge(line, alt, genome, ref_mismatch)
        yield Record(
            i, alt_index, line.chrom, line.pos, line.id, line.ref, alt, variant, status, sign
        )


def _judge(
    line: _Line, alt: str, genome: Genome, ref_mismatch: OnMismatch
) -> tuple[Variant | None, Status, int]:
    """The normalized variant, or why there is none; and the sign."""
    ref, alt = line.ref.upper(), alt.upper()
    if not (is_acgt(ref) and is_acgt(alt)):
        return None, _unreadable(alt), 1
    chrom = genome.resolve(line.chrom)
    if chrom is None:
        return None, Status.CONTIG_MISSING, 1
    start, sign = line.pos - 1, 1
    if start < 0 or start + len(ref) > genome.contigs[chrom]:
        return None, Status.OFF_CONTIG, 1
    found = genome.text(chrom, start, start + len(ref))
    if found != ref:
        if ref_mismatch == "error":
            raise ReferenceMismatchError(
                f"{line.chrom}:{line.pos} {line.ref[:50]}>{alt[:50]} ({line.id}): the genome has "
                f"{found[:50]}; is {genome.path} the assembly that the variants were called on?"
            )
        if ref_mismatch == "skip" or genome.text(chrom, start, start + len(alt)) != alt:
            return None, Status.REF_MISMATCH, 1
        ref, alt, sign = alt, ref, -1
    variant = normalize(Variant(chrom, start, ref, alt), genome.text)
    if max(len(variant.ref), len(variant.alt)) > MAX_ALLELE:
        return None, Status.TOO_LONG, 1
    return variant, Status.SCORED, sign


def _unreadable(alt: str) -> Status:
    """Why alleles are no bases."""
    if alt == ".":
        return Status.MISSING_ALT
    if alt == "*":
        return Status.SPANNING_DELETION
    if alt.startswith(("<", ".")) or alt.endswith(".") or "[" in alt or "]" in alt:
        return Status.SYMBOLIC  # <DEL>, G]17:198982], single breakends G. and .G
    return Status.NON_ACGT


def _lines(source: Source, region: str | None) -> Iterator[_Line]:
    """Records of any source, those that overlap the region."""
    wanted = Region.parse(region) if region is not None else None
    if not isinstance(source, str | Path):
        lines = iter([_Line(v.chrom, v.start + 1, ".", v.ref, (v.alt,)) for v in source])
    else:
        lines = _lines_of_file(Path(source), wanted)
    return (line for line in lines if wanted is None or _overlaps(line, wanted))


def _overlaps(line: _Line, region: Region) -> bool:
    """Whether REF has a base in the region; aliases of the contig count."""
    start = line.pos - 1
    return (
        bare_name(line.chrom) == bare_name(region.chrom)
        and start < region.stop
        and start + len(line.ref) > region.start
    )


def _lines_of_file(path: Path, region: Region | None) -> Iterator[_Line]:
    """Records of a file, by what it holds; with an index perhaps only those of the region."""
    head, text = _head(path)
    if not text:
        raise VariantError(f"{path} is empty; a VCF without variants has at least a header")
    if _is_vcf(text):
        return _lines_of_vcf(path, region)
    if text.startswith(b"PAR1"):
        return _lines_of_parquet(path)
    return _lines_of_table(path, is_compressed=is_gzip(head))


def _head(path: Path) -> tuple[bytes, bytes]:
    """The first bytes of a file, as they are and decompressed."""
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
        if is_bgzip(head) and is_cut_short(path):
            raise VariantError(f"{path} is cut short: the end marker of bgzip is missing")
        return head, zlib.decompressobj(wbits=31).decompress(head) if is_gzip(head) else head
    except OSError as error:
        raise VariantError(f"{path} can't be read: {error.strerror}") from error
    except zlib.error as error:
        raise VariantError(f"{path} is damaged: {error}") from error


def _is_vcf(text: bytes) -> bool:
    return text.startswith((b"BCF", b"##fileformat=VCF"))


@contextmanager
def _opened(path: Path, *, indexed: bool = False) -> Iterator[pysam.VariantFile]:
    """A VCF without its samples; as a stream, which gzip needs, unless the index is wanted."""
    with path.open("rb") as stream:
        try:
            file = pysam.VariantFile(str(path) if indexed else stream, drop_samples=True)
        except (OSError, ValueError) as error:
            raise VariantError(
                f"{path} has no readable VCF header: it must run to a line #CHROM, POS, ID, ..."
            ) from error
        try:
            yield file
        finally:
            with suppress(OSError, TypeError):  # says once more that the file is damaged
                file.close()


def _lines_of_vcf(path: Path, region: Region | None) -> Iterator[_Line]:
    """Records of a VCF or BCF."""
    batches = _batches_of_vcf(path, region)
    while True:
        with quiet_htslib():  # as short as can be, since it holds for the whole process
            batch = next(batches, None)
        if batch is None:
            return
        yield from batch


def _batches_of_vcf(path: Path, region: Region | None) -> Iterator[list[_Line]]:
    """Records of a VCF or BCF; by the index where a region is wanted and there is one."""
    n_read, batch = 0, list[_Line]()
    with _opened(path, indexed=region is not None and _has_index(path)) as file:
        try:
            for record in _fetched(file, region) or file:
                batch.append(
                    _Line(
                        record.chrom,
                        record.pos,
                        record.id or ".",
                        record.ref or ".",
                        record.alts or (".",),
                    )
                )
                if len(batch) == _BATCH:
                    yield batch
                    n_read, batch = n_read + _BATCH, []
        except (OSError, ValueError) as error:
            raise VariantError(
                f"{path} can't be read after {n_read + len(batch):,} records: it is damaged or "
                f"cut short, or the next line is no VCF record"
            ) from error
    yield batch


def _has_index(path: Path) -> bool:
    """Whether there is an index that is no older than the file."""
    indexes = [Path(f"{path}{suffix}") for suffix in (".tbi", ".csi")]
    return any(i.exists() and i.stat().st_mtime >= path.stat().st_mtime for i in indexes)


def _fetched(
    file: pysam.VariantFile, region: Region | None
) -> Iterator[pysam.VariantRecord] | None:
    """What the index gives for a region; None where it can't tell."""
    if region is None or file.index is None:
        return None
    contigs = [str(name) for name in file.header.contigs]
    names = [name for name in contigs if bare_name(name) == bare_name(region.chrom)]
    if len(names) != 1:
        return None
    try:
        return file.fetch(names[0], region.start, region.stop)
    except ValueError:  # the index lacks the contig
        return None


def _lines_of_table(path: Path, *, is_compressed: bool) -> Iterator[_Line]:
    """Rows of a tab-separated file."""
    opener: Any = gzip.open if is_compressed else open
    number, columns = 0, list[int]()
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for text in file:
                number += 1
                fields = text.rstrip("\r\n").split("\t")
                if text.startswith("##") or not text.strip():
                    continue
                if not columns:
                    columns = _columns(fields, path)
                elif len(fields) <= max(columns):
                    raise ValueError(f"has {len(fields)} columns, fewer than the header")
                else:
                    yield _line_of_row([fields[i].strip() for i in columns])
    except ValueError as error:
        raise VariantError(f"{path}, line {number}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise VariantError(f"{path} is damaged after line {number}: {error}") from error
    if not columns:
        _columns([], path)


def _lines_of_parquet(path: Path) -> Iterator[_Line]:
    """Rows of a Parquet file."""
    try:
        from pyarrow import parquet  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise VariantError(
            f"{path} is Parquet, which needs pyarrow: pip install 'scbasset-ism[parquet]'"
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            names = [names[i] for i in _columns(names, path)]
            for batch in file.iter_batches(columns=names):
                rows = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
                for row in rows:
                    number += 1
                    yield _line_of_row(row)
    except (OSError, ValueError) as error:
        raise VariantError(f"{path}, row {number}: {error}") from error


def _columns(names: Sequence[str], path: Path) -> list[int]:
    """Where chrom, pos, ref, alt and perhaps id are in a table, in this order."""
    lower = [name.strip().lstrip("#").lower() for name in names]
    missing = [name for name in _NEEDED if name not in lower]
    if len(missing) == len(_NEEDED):
        raise VariantError(
            f"{path} is no VCF, BCF, Parquet or table of variants: it begins with "
            f"{chr(9).join(names)[:40]!r} in place of '##fileformat=VCF' or the tab-separated "
            f"names chrom, pos, ref, alt"
        )
    if missing:
        raise VariantError(f"{path} has no column {' and '.join(missing)}; it has {names[:10]}")
    for name in (*_NEEDED, "id"):
        if lower.count(name) > 1:
            raise VariantError(f"{path} has more than one column {name}")
    return [lower.index(name) for name in (*_NEEDED, "id") if name in lower]


def _line_of_row(row: Sequence[Any]) -> _Line:
    """A row of a table: chrom, pos, ref, alt (several with commas between), perhaps id."""
    chrom, pos, ref, alt, name = (str(x or ".") for x in (*row, ".")[:5])
    if not (pos.isascii() and pos.isdigit() and len(pos) < 11):
        raise ValueError(f"pos {pos!r} is no position")
    return _Line(chrom, int(pos), name, ref, tuple(x or "." for x in alt.split(",")))
