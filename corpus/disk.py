"""Writing durably, and what it means when the disk does not take it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corpus.errors import NotWritten


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Translates what the operating system says of a full or failing disk. Raises: NotWritten."""
    try:
        yield
    except OSError as error:
        raise NotWritten(str(path), error.strerror or type(error).__name__) from error


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link(there: Path, here: Path) -> bool:
    """Make a file the same one as another of the same content. Returns False, the file being what it was, where the file
    system cannot."""
    beside = here.with_name(f".{here.name}.link")
    try:
        os.link(there, beside)
    except OSError:
        return False
    beside.replace(here)
    return True
