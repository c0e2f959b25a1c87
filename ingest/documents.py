"""From what a reader found, and what is said of it, to a document; and how failures and moves are named."""

from __future__ import annotations

from collections.abc import Sequence

from corpus.errors import DocumentError
from corpus.formats import format_of
from corpus.records import Failure
from corpus.types import MOVED_FROM, Document, document_id_of, version_of
from ingest.described import language_of, metadata_of, title_of
from ingest.labels import access_of_row, narrowed
from ingest.plan import Plan
from ingest.readers.extract import Extract
from ingest.scan import Found
from ingest.settings import JobSettings
from ingest.sources.folder import SourceFile

MOVES_TOLD = 1000
"""Moves that a report lists; their number is always told."""


def document_of(settings: JobSettings, one: Found, found: Extract) -> Document:
    """A document with all that is said of it. Raises: DocumentError where what is said leaves nobody who may see it."""
    file = one.file
    key = key_of(file.path, found)
    if found.row_id is not None:
        own = access_of_row(one.rights, found.groups, found.label, settings.labels)
    else:
        narrow = narrowed(one.rights, found.groups, found.label, settings.labels)
        if narrow is None:
            raise DocumentError(
                file.path,
                f"its front matter names none of the groups that its file is given to, {list(one.rights.groups)}",
                "name some of the file's groups, or give it to more in the source's rules",
            )
        own = narrow
    title = title_of(one.described, found)
    metadata = metadata_of(one.described, found, where_of(file, found))
    metadata.pop(MOVED_FROM, None)  # ours to say, since what was decided of the earlier document follows it
    return Document(
        document_id=document_id_of(file.collection, key),
        version=version_of(title, found.text),
        collection=file.collection,
        source=found.source or key,
        title=title,
        text=found.text,
        sections=found.sections,
        format=format_of(file.name) or "",
        language=language_of(one.described, found),
        groups=own.groups,
        label=own.label,
        metadata=metadata,
    )


def key_of(path: str, found: Extract) -> str:
    """What a document's id is made of, besides its source: its path, and its row's own id."""
    return path if found.row_id is None else f"{path}#{found.row_id}"


def where_of(file: SourceFile, found: Extract) -> str:
    """How a document is named in an error."""
    return key_of(file.name, found)


def failure_of(file: SourceFile, error: DocumentError) -> Failure:
    """A failure as it is listed."""
    item = error.path.removeprefix(file.name).removeprefix(file.path).lstrip("#: ")
    return Failure(file.collection, file.path, item, error.reason, error.advice)


def in_order(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    """Failures in the order in which they are listed."""
    return tuple(sorted(failures, key=lambda failure: (failure.collection, failure.path, failure.item)))


def moves_told(todo: Plan) -> tuple[dict[str, str], ...]:
    """The moves that a report lists."""
    return tuple(
        {
            "source": move.now.collection,
            "path": move.now.path,
            "from_source": move.before.collection,
            "from_path": move.before.path,
        }
        for move in todo.moved[:MOVES_TOLD]
    )
