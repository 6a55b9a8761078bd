"""Files that other tools read: whole or not at all, compressed so that they can be indexed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pysam

from scbasset_ism.errors import ExportError
from scbasset_ism.genome import quiet_htslib

_INDEXES = (".tbi", ".csi")


@contextmanager
def written(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a path to write at; what lies there afterwards, an index too, takes its place at `out`.

    Raises:
        ExportError: There is something already, or it can't be written.
    """
    if out.exists() and not (overwrite and out.is_file()):
        way = "name another file, or replace it with --overwrite"
        raise ExportError(f"{out} exists: {way}" if out.is_file() else f"{out} is no file")
    try:
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            partial = Path(folder, out.name)
            yield partial
            for suffix in _INDEXES:  # of another file, once this one is there
                Path(f"{out}{suffix}").unlink(missing_ok=True)
            partial.replace(out)
            for index in Path(folder).iterdir():
                index.replace(out.parent / index.name)
    except OSError as error:
        raise ExportError(f"{out} can't be written: {error.strerror or error}") from error


@contextmanager
def bgzipped(path: Path) -> Iterator[pysam.BGZFile]:
    """Open a file to be written as bgzip, which any gzip reads."""
    # Digits hardly compress: level 1 takes a fifth of the time of 6, for a tenth more bytes.
    file = pysam.BGZFile(str(path), "w1", None)  # type: ignore[arg-type]
    try:
        yield file
    finally:
        file.close()


def try_to_index(path: Path, **columns: Any) -> bool:
    """Index a bgzip or BCF file; not if its records don't lie in the order of their positions."""
    try:
        with quiet_htslib():
            pysam.tabix_index(str(path), force=True, **columns)
    except OSError:
        return False
    return True
