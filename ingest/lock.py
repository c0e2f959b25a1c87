"""The lock that one run of the job, or one purge, holds on a data folder: the operating system's, free when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from corpus.errors import ConfigError, LockHeld


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder, which is made where there is none.

    Raises: LockHeld, at once, where another holds it; ConfigError where the folder cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir {str(data_dir)!r} cannot be made ({error.strerror}); name another") from error
    path = data_dir / "ingest.lock"
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise LockHeld(str(path)) from error
    try:
        yield
    finally:
        lock.release()
