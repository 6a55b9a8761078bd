"""Folders of files, on a disk or behind a URL. A file is there whole or not at all.

On a disk a file is written aside, synced and renamed; an object store does as much by itself.
"""

import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

from scbasset_ism.errors import StoreError

Location = str | Path


class Folder:
    """A folder on a disk.

    Args:
        path: It need not exist.
        aside: Where files lie until they are whole; on the same disk.
    """

    def __init__(self, path: Path, aside: Path) -> None:
        self.path, self._aside = path, aside

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether there is anything of this name."""
        return self.path.exists()

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it in one step."""
        target, partial = self.path / name, self._aside / uuid4().hex
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    def sizes(self, below: str = "") -> dict[str, int]:
        """Give the bytes of all files below a folder, by name."""
        return {
            path.relative_to(self.path).as_posix(): path.stat().st_size
            for path in sorted((self.path / below).rglob("*"))
            if path.is_file()
        }

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder and all that it holds."""
        if self.path.exists():
            shutil.rmtree(self.path)

    def free(self) -> int | None:
        """Bytes that the disk has left; None where nobody can tell."""
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        return shutil.disk_usage(there).free


class Bucket:
    """A folder behind an fsspec URL such as s3://bucket/name."""

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415 (for those who have a URL)

        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            scheme = url.partition("://")[0]
            extra = {"s3": "s3", "gs": "gs", "gcs": "gs"}.get(scheme)
            hint = f"pip install 'scbasset-ism[{extra}]'" if extra else error
            raise StoreError(f"{url} needs another package: {hint}") from error
        except ValueError as error:
            raise StoreError(f"{url} can't be used: {error}") from error

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        """Whether there is anything of this name."""
        return bool(self._fs.exists(self._root))

    def read(self, name: str) -> bytes | None:
        """Read a file; None where there is none."""
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it in one step."""
        self._fs.pipe_file(f"{self._root}/{name}", content)

    def sizes(self, below: str = "") -> dict[str, int]:
        """Give the bytes of all files below a folder, by name."""
        self._fs.invalidate_cache()
        found: dict[str, Any] = self._fs.find(f"{self._root}/{below}".rstrip("/"), detail=True)
        return {name.removeprefix(f"{self._root}/"): f["size"] for name, f in found.items()}

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self._fs.exists(f"{self._root}/{name}"):
            self._fs.rm_file(f"{self._root}/{name}")

    def clear(self) -> None:
        """Remove the folder and all that it holds."""
        if self._fs.exists(self._root):
            self._fs.rm(self._root, recursive=True)

    def free(self) -> int | None:
        """Bytes left; None, since nobody can tell."""
        return None


Place = Folder | Bucket


def place_of(location: Location) -> Place:
    """Give the place of a store, from a path or a URL."""
    if "://" in str(location):
        return Bucket(str(location))
    path = Path(location)
    return Folder(path, _progress_path(path) / "aside")


def progress_of(place: Place) -> Place:
    """Give the place beside a store where its run keeps its notes."""
    if isinstance(place, Bucket):
        return Bucket(f"{place.url}.progress")
    path = _progress_path(place.path)
    return Folder(path, path / "aside")


def _progress_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.progress")
