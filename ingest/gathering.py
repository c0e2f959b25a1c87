"""The documents of a run, file by file: taken from the parent with their vectors, or read and cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from corpus.effects import Former
from corpus.errors import DocumentError
from corpus.published import number_of
from corpus.records import Failure, FileRecord
from corpus.snapshot import OpenSnapshot
from corpus.types import MOVED_FROM, Document, chunk_id_of, document_id_of
from ingest.chunking import chunk_document, embedder_input
from ingest.documents import document_of, failure_of, key_of, where_of
from ingest.embedding import Item
from ingest.isolation.pool import Readers
from ingest.isolation.process import Disturbed
from ingest.model import Model
from ingest.overridden import Overrides
from ingest.readers.extract import Extract
from ingest.scan import Found
from ingest.settings import JobSettings
from ingest.sources.folder import SourceFile
from ingest.vectors import input_hash


class Gathering:
    """Gives the documents of files, and keeps what is known of them all.

    `base` is the parent where what it holds may be kept as it is. `failures` is what could not be read, `disturbed` the files
    whose reading came to an end by something else than what is in them, `document_ids` the documents that there are now, and
    `moved_from` the ids of before of those that were moved.
    """

    def __init__(
        self, settings: JobSettings, parent: OpenSnapshot | None, base: OpenSnapshot | None, overrides: Overrides, model: Model
    ) -> None:
        self._settings, self._parent, self._base, self._overrides, self._model = settings, parent, base, overrides, model
        self.failures: list[Failure] = []
        self.disturbed: set[tuple[str, str]] = set()
        self.document_ids: set[str] = set()
        self.moved_from: set[str] = set()

    def from_parent(self, parent: OpenSnapshot, file: SourceFile) -> Iterator[Item]:
        """The documents of an unchanged file, with their vectors."""
        self.failures += parent.store.stored.failures_of_file(file.collection, file.path)
        self._overrides.keep((file.collection, file.path))
        for document, chunks, hashes, ordinals in parent.store.stored.documents_of_file(file.collection, file.path):
            self.document_ids.add(document.document_id)
            former = parent.store.stored.former_ids(document.document_id) if MOVED_FROM in document.metadata else ()
            yield Item(file.path, document, chunks, hashes, [], parent.dense.vectors(ordinals), former)

    def from_file(self, readers: Readers, one: Found, before: FileRecord | None) -> Iterator[Item]:
        """The documents of a file that has to be read. What cannot be read is noted; the rest goes on."""
        file = one.file
        for found in readers.extracts(file):
            try:
                if isinstance(found, DocumentError):
                    raise found
                document, former = self._known_as(document_of(self._settings, one, found), found, before)
                if document.document_id in self.document_ids:
                    raise DocumentError(
                        where_of(file, found), "another document has the same name", "give one of the two another name"
                    )
            except DocumentError as error:
                if isinstance(error, Disturbed):
                    self.disturbed.add((file.collection, file.path))
                self.failures.append(failure_of(file, error))
                continue
            self.document_ids.add(document.document_id)
            stored = self._overrides.over(file.path, document, former)
            if stored is not None:
                item = self._unchanged_text(one, stored, found, before) or self._cut(file.path, stored)
                item.former = former
                yield item

    def _cut(self, path: str, document: Document) -> Item:
        """A document cut into chunks, whose vectors are still to be had."""
        embedder = self._model.load()
        chunks = chunk_document(
            document,
            self._model.count_tokens,
            max_tokens=self._settings.chunking.max_tokens,
            overlap_tokens=self._settings.chunking.overlap_tokens,
            special_tokens=embedder.special_tokens,
        )
        inputs = [embedder_input(document.title, chunk.heading, chunk.text) for chunk in chunks]
        return Item(path, document, chunks, [input_hash(self._model.fingerprint, text) for text in inputs], inputs, None)

    def _known_as(self, document: Document, found: Extract, before: FileRecord | None) -> tuple[Document, tuple[Former, ...]]:
        """The document, and the ids by which it was known before it was moved, the last one first, as its metadata has them."""
        if self._parent is None or before is None:
            return document, ()
        earlier = document_id_of(before.collection, key_of(before.path, found))
        # One that is withheld is not in the snapshot; what was decided of it knows its ids.
        former = self._parent.store.stored.former_ids(earlier) or self._overrides.effects.former_ids(earlier)
        if earlier != document.document_id:
            former = (Former(earlier, number_of(self._parent.id)), *former)
            self.moved_from.add(earlier)
        former = tuple(each for each in former if each.document_id != document.document_id)  # moved there and back again
        if former:
            ids = " ".join(each.document_id for each in former)
            document = replace(document, metadata={**document.metadata, MOVED_FROM: ids})
        return document, former

    def _unchanged_text(self, one: Found, document: Document, found: Extract, before: FileRecord | None) -> Item | None:
        """A document whose file was moved, or of which something else is said now, with the chunks and vectors it has.

        They stand as they were embedded, under the title it had then.
        """
        if (
            self._base is None
            or before is None
            or before.content_hash is None
            or before.content_hash != one.record.content_hash
        ):
            return None
        parts = self._base.store.stored.document_with_parts(document_id_of(before.collection, key_of(before.path, found)))
        if parts is None or (parts[0].text, parts[0].sections) != (document.text, document.sections):
            return None
        _, chunks, hashes, ordinals = parts
        own = [
            replace(
                chunk,
                chunk_id=chunk_id_of(document.document_id, document.version, chunk.start, chunk.end),
                document_id=document.document_id,
                version=document.version,
            )
            for chunk in chunks
        ]
        return Item(one.file.path, document, own, hashes, [], self._base.dense.vectors(ordinals))
