"""What of a store is written, kept beside it in OUT.progress until it is finished.

`manifest.json` says which run this is; a marker for every shard says that its files are on the
disk, and what they hold. A store with a manifest is unfinished, whatever else is true of it.
Markers of another run, damaged ones and those whose files differ count for nothing.
"""

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from scbasset_ism.errors import StoreError
from scbasset_ism.locks import NAME as LOCK
from scbasset_ism.locks import locked
from scbasset_ism.places import Place, progress_of

ROOT = "zarr.json"  # the metadata of a store's root: written when the store begins and ends
MANIFEST = "manifest.json"
UNFINISHED = (
    "run the same command again, which does what is missing, or start anew with --overwrite"
)
# Size and crc32 by name. Not crc32c: chunks end with theirs, and the crc32c of anything that ends
# with its own crc32c is the same, so that a chunk in place of another would not be seen.
Files = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Part:
    """A worker's share: part `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise StoreError(f"there is no part {self}: the first of eight is 1/8, the last 8/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read `2/8`."""
        number, _, count = text.partition("/")
        if not (number.isdecimal() and count.isdecimal()):
            raise StoreError(f"{text!r} is no part: the first of eight is 1/8, the last 8/8")
        return cls(int(number), int(count))

    def shards(self, n_shards: int) -> range:
        """Give the shards that the part owns, next to each other."""
        return range(
            (self.number - 1) * n_shards // self.count, self.number * n_shards // self.count
        )


@dataclass(frozen=True)
class Manifest:
    """Which run a store belongs to.

    Attributes:
        fingerprint: All that its numbers depend on, by name; JSON.
        n_shards: Shards of the store.
        files: Those that are not of a shard, without the root's metadata.
        facts: Those that hold before the first shard.
    """

    fingerprint: dict[str, Any]
    n_shards: int
    files: Files
    facts: dict[str, Any]

    @property
    def run(self) -> str:
        """Stands for the fingerprint in the markers."""
        text = json.dumps(self.fingerprint, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def check(self, fingerprint: dict[str, Any], where: Place) -> None:
        """Raise StoreError, and say what differs, where this is another run."""
        if found := differences(self.fingerprint, fingerprint):
            raise StoreError(
                f"{where} was begun by another run: {'; '.join(found)}; choose another "
                "output, or start anew with --overwrite"
            )


class Progress:
    """The manifest and the markers of a store.

    Args:
        store: Where the store lies.
    """

    def __init__(self, store: Place) -> None:
        self.store, self.folder = store, progress_of(store)

    def begin(self, manifest: Manifest, skeleton: Mapping[str, bytes], *, overwrite: bool) -> None:
        """Begin a store, or go on with it.

        Args:
            manifest: Which run this is.
            skeleton: Files of the store without rows; those that differ or miss are written.
            overwrite: Replace what is there, finished or not.

        Raises:
            StoreError: The store is finished, begun by another run, or no store at all.
        """
        with (
            sentences(self.store),
            locked(self.folder, f"{self.store}", None if overwrite else range(1)),
        ):
            known = None if overwrite else self.manifest()
            if known is None:
                known = self._make_room(overwrite=overwrite)
            if known is None:
                self.folder.write(MANIFEST, _seal(vars(manifest)))
            else:
                known.check(manifest.fingerprint, self.store)
            for name, content in skeleton.items():
                if self.store.read(name) != content:
                    self.store.write(name, content)

    def manifest(self) -> Manifest | None:
        """Read which run this is; None where the store is finished or not begun."""
        sealed = self.folder.read(MANIFEST)
        if sealed is None:
            return None
        values = _unseal(sealed)
        if values is None:
            raise StoreError(f"{self.folder}/{MANIFEST} is damaged: start anew with --overwrite")
        return Manifest(**values | {"files": _files(values)})

    @contextmanager
    def writing(self, shards: range) -> Iterator[None]:
        """Hold shards, so that no other process writes them.

        Raises:
            StoreError: One does.
        """
        who = f"one of the shards {shards.start}-{shards.stop - 1} of {self.store}"
        held = range(shards.start + 1, shards.stop + 1) if shards else range(0)
        with sentences(self.store), locked(self.folder, who, held):
            yield

    def write(self, shard: int, files: Mapping[str, bytes], facts: dict[str, Any]) -> None:
        """Write the files of a shard, then its marker.

        Args:
            shard: Its number.
            files: By name.
            facts: What is to be known of the shard when the store is finished; JSON.
        """
        manifest = self._begun()
        with sentences(self.store):
            for name, content in files.items():
                self.store.write(name, content)
            marker = {"run": manifest.run, "files": seals(files), "facts": facts}
            self.folder.write(_marker(shard), _seal(marker))

    def missing(self, shards: Sequence[int] | None = None) -> list[int]:
        """List the shards without a marker, or whose files have other sizes; all by default."""
        n_shards = self._begun().n_shards
        markers, sizes = self._markers(), self.store.sizes()
        return [
            shard
            for shard in (range(n_shards) if shards is None else shards)
            if shard not in markers
            or any(sizes.get(name) != size for name, (size, _) in _files(markers[shard]).items())
        ]

    def check(self) -> list[int]:
        """Read every file; forget the markers of shards that are not as they were written.

        Returns:
            The shards that are missing now.

        Raises:
            StoreError: A file that is not of a shard is damaged; going on with the run mends it.
        """
        manifest, missing = self._begun(), set(self.missing())
        for name, seal in manifest.files.items():
            if _seal_of(self.store.read(name)) != seal:
                raise StoreError(f"{self.store}/{name} is damaged or missing: {UNFINISHED}")
        for shard, marker in self._markers().items():
            files = _files(marker).items()
            if shard not in missing and any(
                _seal_of(self.store.read(name)) != seal for name, seal in files
            ):
                missing.add(shard)
            if shard in missing:
                self.folder.remove(_marker(shard))
        return sorted(missing)

    def marked(self) -> int:
        """Count the markers."""
        return len(self.folder.sizes("shards"))

    def facts(self) -> list[dict[str, Any]]:
        """Give what is known of the run and of all shards that are written."""
        return [self._begun().facts, *(marker["facts"] for marker in self._markers().values())]

    def finish(self, root: bytes) -> None:
        """Replace the root's metadata, and remove what is not of the store.

        The caller holds `finishing`, and knows that no shard is missing.
        """
        manifest = self._begun()
        ours = {ROOT, *manifest.files}.union(*(_files(m) for m in self._markers().values()))
        with sentences(self.store):
            for name in self.store.sizes().keys() - ours:
                self.store.remove(name)
            self.store.write(ROOT, root)
            self.folder.remove(MANIFEST)
            with suppress(OSError):  # another process may look in at this moment
                self.folder.clear()

    @contextmanager
    def finishing(self) -> Iterator[None]:
        """Hold the whole store.

        Raises:
            StoreError: A process is still writing.
        """
        self._begun()
        with sentences(self.store), locked(self.folder, str(self.store)):
            yield

    def _begun(self) -> Manifest:
        manifest = self.manifest()
        if manifest is None:
            raise StoreError(f"{self.store} is finished, or not begun: there is no {self.folder}")
        return manifest

    def _markers(self) -> dict[int, dict[str, Any]]:
        """The markers of this run that can be read, by shard."""
        manifest = self._begun()
        found = {}
        for shard in range(manifest.n_shards):
            marker = _unseal(self.folder.read(_marker(shard)) or b"")
            if marker is not None and marker["run"] == manifest.run:
                found[shard] = marker
        return found

    def _make_room(self, *, overwrite: bool) -> Manifest | None:
        """Clear what may be replaced; give the manifest of a worker that has begun by now.

        Nothing is removed without `overwrite`: where there are no locks, several workers may begin
        the store at once, and write the same bytes.
        """
        try:
            self._check_free_to_begin(overwrite=overwrite)
        except StoreError:
            if not overwrite and (known := self.manifest()):
                return known
            self.folder.clear()  # no run is there: a manifest is written before the store is
            raise
        if overwrite:
            self._forget()
            self._clear_store()
        return None

    def _check_free_to_begin(self, *, overwrite: bool) -> None:
        """Raise StoreError where something lies in the way."""
        attributes = root_attributes(self.store)
        if overwrite:
            is_ours = attributes is not None or self.folder.read(MANIFEST) is not None
            if self.store.exists() and not is_ours:
                raise StoreError(
                    f"{self.store} is not one of our stores, so --overwrite leaves it alone"
                )
        elif attributes is not None and attributes.get("status") != "complete":
            raise StoreError(
                f"{self.store} is unfinished and its {self.folder} is gone: start anew with "
                "--overwrite"
            )
        elif self.store.exists():
            raise StoreError(
                f"{self.store} exists: choose another output, or replace it with --overwrite"
            )

    def _forget(self) -> None:
        """Remove all notes but the lock; the manifest first."""
        self.folder.remove(MANIFEST)
        for name in self.folder.sizes().keys() - {LOCK}:
            self.folder.remove(name)

    def _clear_store(self) -> None:
        """Remove an older store; its root first, so that it never looks whole."""
        self.store.remove(ROOT)
        self.store.clear()


def root_attributes(place: Place) -> dict[str, Any] | None:
    """Read the attributes of a store of this package, finished or not; None where there is none."""
    try:
        attributes = json.loads(place.read(ROOT) or b"")["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return attributes if "format_version" in attributes else None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in which values two fingerprints differ; JSON."""
    names = [*now, *(name for name in before if name not in now)]
    mine, other = (json.loads(_json(dict(values))) for values in (before, now))
    return [
        f"{name} was {_short(mine.get(name))} and is {_short(other.get(name))}"
        for name in names
        if mine.get(name) != other.get(name)
    ]


def seal_root(metadata: bytes) -> bytes:
    """Add the crc32 of the root's metadata to the attributes in them."""
    document = json.loads(metadata)
    document["attributes"]["crc32"] = _crc_of_root(document)
    return json.dumps(document, indent=2).encode()


def is_whole_root(metadata: bytes) -> bool:
    """Whether the root's metadata are those that were sealed."""
    try:
        document = json.loads(metadata)
        return bool(document["attributes"]["crc32"] == _crc_of_root(document))
    except (ValueError, KeyError, TypeError):
        return False


def _crc_of_root(document: dict[str, Any]) -> str:
    others = {name: value for name, value in document["attributes"].items() if name != "crc32"}
    return f"{crc32(json.dumps(document | {'attributes': others}, sort_keys=True).encode()):08x}"


def seals(files: Mapping[str, bytes]) -> Files:
    """Give size and crc32 of files."""
    return {name: (len(content), crc32(content)) for name, content in files.items()}


@contextmanager
def sentences(where: Place) -> Iterator[None]:
    """Turn what the operating system says into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreError(
                f"{where}: the disk is full; make room, then run the same command again, which "
                "does what is missing"
            ) from error
        raise StoreError(f"{where} can't be written: {error.strerror or error}") from error


def _marker(shard: int) -> str:
    return f"shards/{shard}.json"


def _seal_of(content: bytes | None) -> tuple[int, int] | None:
    return None if content is None else (len(content), crc32(content))


def _files(marker: dict[str, Any]) -> Files:
    """The files of a marker; JSON has made lists of the pairs."""
    return {name: (size, crc) for name, (size, crc) in marker["files"].items()}


def _json(values: object) -> bytes:
    return json.dumps(values).encode()


def _seal(values: dict[str, Any]) -> bytes:
    """Write JSON with its own checksum on a second line."""
    body = _json(values)
    return b"%s\n%08x\n" % (body, crc32(body))


def _unseal(sealed: bytes) -> dict[str, Any] | None:
    """Read what `_seal` wrote; None where it is damaged."""
    body, _, crc = sealed.partition(b"\n")
    return json.loads(body) if crc == b"%08x\n" % crc32(body) else None


def _short(value: object) -> str:
    """A value for a message; hashes by their first digits."""
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and text.isalnum() else text
