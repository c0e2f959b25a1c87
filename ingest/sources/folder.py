"""Walks a folder (or takes one file) and hashes what lies there."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from corpus.errors import ConfigError, DocumentError
from ingest.described import Described
from ingest.settings import SourceSettings
from ingest.sources.globs import matches
from ingest.sources.sidecar import described_file, read_sidecar


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source. `path` is relative, POSIX, NFC; `content_hash` is None where `problem` says why it cannot be read.

    A page has its address as `path`, and `read_as` is the name that tells the readers its format. `stale` says why a page is
    as an earlier run fetched it. `described` is what a sidecar says.
    """

    collection: str
    path: str
    location: Path
    size_bytes: int
    content_hash: str | None
    problem: DocumentError | None = None
    read_as: str = ""
    stale: DocumentError | None = None
    described: Described | None = None

    @property
    def name(self) -> str:
        """The name by which a reader reads it."""
        return self.read_as or self.path


def walk(source: SourceSettings) -> Iterator[SourceFile]:
    """The files of a source that its globs admit, ordered by path, each read once to hash it. No path comes twice.

    Raises: ConfigError where the source itself is not there or cannot be read.
    """
    root = source.folder
    try:
        if root.is_file():
            beside = [here for here in root.parent.iterdir() if described_file(_posix(here.name)) == _posix(root.name)]
            yield _with_sidecar(source, _source_file(source, root, _posix(root.name)), beside)
            return
        if not root.is_dir():
            raise ConfigError(f"source {source.collection!r}: no folder or file {str(root)!r}; is it mounted?")
        os.listdir(root)
    except PermissionError as error:
        raise ConfigError(f"source {source.collection!r}: no permission to read {str(root)!r}") from error
    taken: dict[str, Path] = {}
    sidecars: dict[str, list[Path]] = {}
    found = sorted(_paths(source, root, sidecars), key=lambda pair: (pair[1], os.fsencode(pair[0])))
    for location, path in found:
        if path in taken:
            yield _same_name(source, location, path, taken)
            continue
        taken[path] = location
        yield _with_sidecar(source, _source_file(source, location, path), sidecars.get(path, ()))
    for described, beside in sorted(sidecars.items()):
        location = beside[0]
        if described not in taken and not (location.parent / PurePosixPath(described).name).exists():
            path = _posix(location.relative_to(root).as_posix())
            problem = DocumentError(path, f"there is no {described!r} that it describes", "mend its name, or remove it")
            yield SourceFile(source.collection, path, location, 0, None, problem)


def _with_sidecar(source: SourceSettings, file: SourceFile, beside: Sequence[Path]) -> SourceFile:
    """The file with what its sidecar says; left out where the sidecar is broken."""
    if not beside:
        return file
    try:
        if len(beside) > 1:
            names = f"{beside[0].name!r} and {beside[1].name!r}"
            raise DocumentError(file.path, f"it has two sidecars, {names}", "remove one of the two")
        root = source.folder if source.folder.is_dir() else source.folder.parent
        return replace(file, described=read_sidecar(beside[0], root, file.path))
    except DocumentError as error:
        return replace(file, content_hash=None, problem=file.problem or error)


def _same_name(source: SourceSettings, location: Path, path: str, taken: dict[str, Path]) -> SourceFile:
    """A file whose name is that of another once both are normalised: the first one in byte order stands, this one fails."""
    number = 2
    while f"{path} ({number})" in taken:
        number += 1
    shown = f"{path} ({number})"
    taken[shown] = location
    problem = DocumentError(
        shown, f"its name is spelled like {path!r} in other bytes, so both would be one document", "rename one of the two"
    )
    return SourceFile(source.collection, shown, location, 0, None, problem)


def _paths(source: SourceSettings, root: Path, sidecars: dict[str, list[Path]]) -> Iterator[tuple[Path, str]]:
    """What the globs admit. Sidecars are put aside whatever the globs say of them: one left out would open its file."""
    unreadable: list[Path] = []

    def note(error: OSError) -> None:
        unreadable.append(Path(error.filename))

    for folder, folders, names in os.walk(root, followlinks=False, onerror=note):
        here = Path(folder)
        # A link to a folder is not followed; it is handed on like a file, so that it is listed with the reason.
        names += [name for name in folders if (here / name).is_symlink()]
        # A folder that has a sidecar's name is handed on like one: it cannot be read as one, and so keeps its file out.
        for name in set(folders).difference(names):
            described = described_file(_posix((here / name).relative_to(root).as_posix()))
            if described is not None:
                sidecars.setdefault(described, []).append(here / name)
        folders[:] = [name for name in folders if not _excluded(source, _posix((here / name).relative_to(root).as_posix()))]
        for name in names:
            path = _posix((here / name).relative_to(root).as_posix())
            described = described_file(path)
            if described is not None:
                sidecars.setdefault(described, []).append(here / name)
            elif not _excluded(source, path) and any(matches(path, pattern) for pattern in source.include):
                yield here / name, path
    for location in unreadable:
        yield location, _posix(location.relative_to(root).as_posix())


def _excluded(source: SourceSettings, path: str) -> bool:
    return any(matches(path, pattern) for pattern in source.exclude)


def _posix(path: str) -> str:
    # A name that is not valid UTF-8 comes with surrogates; it is shown, and hashed, with a replacement character.
    return unicodedata.normalize("NFC", path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def _source_file(source: SourceSettings, location: Path, path: str) -> SourceFile:
    size = 0
    try:
        is_link = location.is_symlink()
        if is_link and not location.resolve().is_relative_to(source.folder.resolve()):
            raise DocumentError(path, "is a link that leads out of the source", "put the file itself there, or add its folder")
        if is_link and location.is_dir():
            raise DocumentError(path, "is a link to a folder, which is not followed", "exclude it; the folder itself is read")
        status = location.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DocumentError(path, "no permission to list the folder", "let the job's user read it, or exclude it")
        if not stat.S_ISREG(status.st_mode):
            raise _leads_nowhere(path)
        size = status.st_size
        if size > source.max_file_bytes:
            raise DocumentError(
                path, f"has {size:,} bytes, more than max_file_bytes {source.max_file_bytes:,}", "split it, or raise the limit"
            )
        with location.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return SourceFile(source.collection, path, location, size, None, _leads_nowhere(path))
    except PermissionError:
        problem = DocumentError(path, "no permission to read it", "let the job's user read it, or exclude it")
        return SourceFile(source.collection, path, location, size, None, problem)
    except OSError as error:
        problem = DocumentError(path, f"cannot be read ({error.strerror})", "check the disk or the mount")
        return SourceFile(source.collection, path, location, size, None, problem)
    except DocumentError as error:
        return SourceFile(source.collection, path, location, size, None, error)
    return SourceFile(source.collection, path, location, size, digest)


def _leads_nowhere(path: str) -> DocumentError:
    return DocumentError(path, "is not a regular file or leads nowhere", "remove or exclude it")
