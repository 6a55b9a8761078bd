"""Who writes which shard: locks that end with their process, killed or not.

Byte i + 1 of the file `lock` stands for shard i and byte 0 for the manifest. The kernel keeps the
locks (fcntl), on one machine and over NFS and Lustre, so none is left behind. Object stores have
none: there two workers with the same part do the work twice.
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scbasset_ism.errors import StoreError
from scbasset_ism.places import Folder, Place

log = logging.getLogger(__name__)

PATIENCE = 3.0  # seconds; a process that was killed needs a moment to go
NAME = "lock"
_BUSY = {errno.EACCES, errno.EAGAIN}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def locked(folder: Place, who: str, bytes_: range | None = None) -> Iterator[None]:
    """Hold some bytes of the lock, all by default.

    Args:
        folder: Where the lock lies.
        who: What the bytes stand for, in a message.
        bytes_: Which; an empty range needs no lock.

    Raises:
        StoreError: Another process holds one of them.
    """
    if not isinstance(folder, Folder) or bytes_ == range(0):
        yield
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    file = _take(folder.path / NAME, who, bytes_ or range(0))
    try:
        yield
    finally:
        os.close(file)


def _take(path: Path, who: str, bytes_: range) -> int:
    """Lock bytes of a file, and give its descriptor; an empty range means all bytes."""
    deadline = time.monotonic() + PATIENCE
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, len(bytes_), bytes_.start)
            if _is_at(file, path):  # else its run ended, and removed it
                return file
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                log.warning("%s: no locks here, so no part must be given to two workers", path)
                return file
            if error.errno not in _BUSY:
                os.close(file)
                raise
        os.close(file)
        if time.monotonic() > deadline:
            raise StoreError(
                f"{who} is being written by another process: wait until it ends, or end it"
            )
        time.sleep(0.05)


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
