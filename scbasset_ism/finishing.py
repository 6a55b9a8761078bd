"""Ends a store: checks every file, adds up what its shards say, and marks it complete."""

import logging
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import zarr
from zarr.core.buffer import Buffer
from zarr.core.buffer.cpu import Buffer as MemoryBuffer
from zarr.storage import MemoryStore

from scbasset_ism.agreement import SelfCheck
from scbasset_ism.errors import StoreError
from scbasset_ism.progress import ROOT, Progress, seal_root

log = logging.getLogger(__name__)


def try_to_finish(progress: Progress, check: Callable[[dict[str, Any]], None]) -> list[int]:
    """Check all files of a store and mark it complete, if nothing is missing.

    Args:
        progress: Of a store that has begun.
        check: Raises where the store, by its final attributes, must not be finished.

    Returns:
        The shards that are missing, so that the store is still unfinished; else nothing.

    Raises:
        StoreError: A process is writing, or a file that is not of a shard is damaged.
    """
    with progress.finishing():
        missing, manifest = progress.check(), progress.manifest()
        if missing or manifest is None:
            return missing
        names = [name for name in (ROOT, *manifest.files) if name.endswith(ROOT)]
        contents = {name: progress.store.read(name) or b"" for name in names}
        files: MutableMapping[str, Buffer] = {
            name: MemoryBuffer.from_bytes(content) for name, content in contents.items()
        }
        memory = MemoryStore(files)
        root = zarr.open_group(memory, mode="r+")
        attributes = _final_attributes(dict(root.attrs), progress.facts())
        check(attributes)
        root.attrs.update(attributes | {"fingerprint": manifest.fingerprint, "status": "complete"})
        with warnings.catch_warnings():  # zarr warns that version 3 has not yet standardised this
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(memory)
        progress.finish(seal_root(files[ROOT].to_bytes()))
    return []


def _final_attributes(
    attributes: dict[str, Any], facts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Add up what the shards say: statuses, contigs and devices."""
    counts: dict[str, int] = {}
    for one in facts:
        for status, count in one["counts"].items():
            counts[status] = counts.get(status, 0) + count
    md5s: dict[str, str] = {}
    for one in facts:
        for contig, md5 in one.get("contig_md5", {}).items():
            if md5s.setdefault(contig, md5) != md5:
                raise StoreError(
                    f"contig {contig} of the genome changed during the run: its MD5 was "
                    f"{md5s[contig]} and then {md5}; start anew with --overwrite"
                )
    final = attributes | {"counts": counts}
    if "genome" in attributes:
        final["genome"] = attributes["genome"] | {"contig_md5": dict(sorted(md5s.items()))}
    checks = [SelfCheck(**one["self_check"]) for one in facts if "self_check" in one]
    if checks:
        checked = sum(checks, SelfCheck())
        checked.require(attributes["options"]["precision"])
        log.info("self-check: %s", checked)
        final["self_check"] = checked.summary()
    if devices := sorted({one["device"] for one in facts if "device" in one}):
        final["options"] = attributes["options"] | {"device": ", ".join(devices)}
    return final
