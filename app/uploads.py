"""Documents that were uploaded: files in data_dir/uploads, each with its sidecar, which the job reads as one more source.

A file never lies there under its name with less than all of its bytes, nor with rights wider than those it was given.
"""

from __future__ import annotations

import os
import secrets
import threading
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml

from corpus.disk import sync, writing
from corpus.errors import Conflict, Invalid
from corpus.formats import FORMATS, format_of
from corpus.types import document_id_of

UPLOADS = "uploads"
"""The folder in data_dir, and the name of the source, which is part of its documents' ids."""

SIDECAR = ".meta.yaml"
PARTIAL = ".upload-"
"""How files begin that are being written; the job leaves out what begins with a dot."""

CLOSED = "# Another version was being uploaded when the service was stopped: upload it again.\ngroups: []\n"
"""A sidecar that keeps its file out."""

MAX_NAME_BYTES = 200
"""File systems take 255; the sidecar has the name with its own ending."""

_NOT_IN_NAMES = '/\\:*?"<>|'
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³")}
"""Names that Windows gives to devices, whatever their ending. Source: "Naming Files, Paths, and Namespaces", Microsoft."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of an uploaded document: who may see it, how confidential it is, and perhaps its title."""

    groups: tuple[str, ...]
    label: str
    title: str | None = None

    def as_sidecar(self) -> str:
        """The same, as the job reads it beside the file."""
        title = {} if self.title is None else {"title": self.title}
        return yaml.safe_dump({**title, "groups": list(self.groups), "label": self.label}, allow_unicode=True, sort_keys=False)


def checked_name(name: str) -> str:
    """The name under which a file is stored: one name in one folder, on any system. Raises: Invalid."""
    stored = unicodedata.normalize("NFC", name)
    reason = _reason_against(stored)
    if reason is not None:
        raise Invalid(f"name {name[:80]!r} {reason}; give the file's own name, such as travel-policy.pdf", "name")
    return stored


def _reason_against(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if any(unicodedata.category(each)[0] == "C" or unicodedata.category(each) in ("Zl", "Zp") for each in name):
        return "holds a character that cannot be seen"
    if any(each in _NOT_IN_NAMES for each in name):
        return f"holds one of {' '.join(_NOT_IN_NAMES)}"
    if name.startswith((".", "~", " ")) or name.endswith((".", " ")):
        return "begins or ends with a dot, a tilde or a space"
    if name.split(".")[0].rstrip().casefold() in _DEVICES:
        return "is that of a device"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    return None


def kinds_read() -> str:
    """The endings of the files that can be read."""
    return ", ".join(FORMATS)


def document_of(name: str) -> str | None:
    """The id of the document that an uploaded file becomes; None for an export, whose rows have ids of their own."""
    return None if format_of(name) == "jsonl" else document_id_of(UPLOADS, name)


class Uploads:
    """The folder of uploads. Safe for use by several threads of the one service over a data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / UPLOADS
        self._lock = threading.Lock()

    def tidy(self) -> None:
        """Remove what was being received when an earlier service was killed. Raises: NotWritten."""
        with writing(self._folder):
            for left in self._folder.glob(f"{PARTIAL}*"):
                left.unlink(missing_ok=True)

    def receive(self) -> IO[bytes]:
        """A new file to receive an upload into. Raises: NotWritten."""
        with writing(self._folder):
            if not self._folder.is_dir():
                self._folder.mkdir(parents=True, exist_ok=True)
                sync(self._folder.parent)
            return (self._folder / f"{PARTIAL}{secrets.token_hex(8)}").open("xb")

    def add(self, received: IO[bytes], data: bytes) -> None:
        """The next bytes of an upload. Raises: NotWritten."""
        with writing(Path(received.name)):
            received.write(data)

    def discard(self, received: IO[bytes]) -> None:
        """Let go of what was received; the file is removed unless it was put in place."""
        with suppress(OSError):
            received.close()
        with suppress(OSError):
            Path(received.name).unlink(missing_ok=True)

    def put(self, received: IO[bytes], name: str, said: Said, check: Callable[[], None] = lambda: None) -> bool:
        """Put what was received in place, durably, in the place of an earlier file of this name. Whether there was one.

        `check` raises where that must not be any more. It is asked while nothing is removed: who decides and removes then does
        so before it, and is heard, or after the file is in place, and finds it.
        Raises: Conflict for a name that differs from another's by capitals only; NotWritten.
        """
        target, sidecar = self._folder / name, self._folder / f"{name}{SIDECAR}"
        with self._lock, writing(target):
            check()
            received.flush()
            os.fsync(received.fileno())
            replaces = self._replaces(name)
            wanted = said.as_sidecar()
            # The earlier file must not stand beside a sidecar that opens it further, if all ends between two steps.
            differs = replaces and _content(sidecar) != wanted
            self._write(sidecar, CLOSED if differs else wanted)
            Path(received.name).replace(target)
            sync(self._folder)
            if differs:
                self._write(sidecar, wanted)
        return replaces

    def _replaces(self, name: str) -> bool:
        folded = name.casefold()
        for path in self._folder.iterdir():
            if path.name == name:
                return True
            if path.name.casefold() == folded:
                raise Conflict(f"name {name!r} differs from that of {path.name!r} by capitals only; use that one, or another")
        return False

    def _write(self, path: Path, text: str) -> None:
        beside = self._folder / f"{PARTIAL}{secrets.token_hex(8)}"
        try:
            with beside.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        sync(self._folder)

    def name_of(self, document_id: str) -> str | None:
        """The uploaded file that becomes this document, None where there is none. An export's rows are not looked for."""
        if not self._folder.is_dir():
            return None
        names = (unicodedata.normalize("NFC", path.name) for path in self._folder.iterdir())
        return next((name for name in names if document_of(name) == document_id), None)

    def remove(self, document_id: str) -> None:
        """Remove the uploaded file that becomes this document, if there is one, then what is said of it. Raises: NotWritten."""
        with self._lock, writing(self._folder):
            name = self.name_of(document_id)
            if name is None:
                return
            # In this order: a file without its sidecar would be everybody's.
            for path in (self._folder / name, self._folder / f"{name}{SIDECAR}"):
                path.unlink(missing_ok=True)
                sync(self._folder)


def _content(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
