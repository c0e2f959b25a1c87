"""The lock that one run of the job, or one purge, holds on a data folder: the operating system's, free when its holder dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from corpus.errors import ConfigError, LockHeld

NAME = "ingest.lock"
WAIT_S = 0.2
"""Whoever looks whether the lock is held has it for an instant; that must not turn a run away."""


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder, which is made where there is none.

    Raises: LockHeld, at once, where another holds it; ConfigError where the folder cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir {str(data_dir)!r} cannot be made ({error.strerror}); name another") from error
    path = data_dir / NAME
    lock = filelock.FileLock(path, timeout=WAIT_S, poll_interval=0.01)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise LockHeld(str(path)) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(data_dir: Path) -> bool:
    """Whether a run or a purge is at work, in this process or another, on this host or in another container of it."""
    try:
        with (data_dir / NAME).open("rb") as file:
            # Shared, so that two who look do not see each other. Closing the file lets go of it.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
