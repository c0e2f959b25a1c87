"""The nightly job, and its composition root: walk, plan, read, chunk, embed, index, verify, publish."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import filelock

from corpus.embedders.embedder import Embedder, Exporting, open_embedder
from corpus.embedders.graph import read_graph
from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import (
    ArchivistError,
    ConfigError,
    DocumentError,
    LockHeld,
    ModelDamaged,
    ModelNotFound,
    NoSnapshot,
    SnapshotDamaged,
)
from corpus.language import detect_language
from corpus.settings import LabelSettings, SearchSettings
from corpus.snapshot import (
    MODELS,
    EmbedderStamp,
    OpenSnapshot,
    SnapshotWriter,
    current_id,
    open_current,
    point_to,
    purge,
    remove_litter,
)
from corpus.store import Failure, FileRecord
from corpus.types import Document, document_id_of, version_of
from ingest.chunking import chunk_document, embedder_input, remembering
from ingest.embedding import Embedding, Item
from ingest.labels import Access, access_of_file, access_of_row
from ingest.plan import Plan, plan
from ingest.readers.extract import Extract
from ingest.readers.read import READER_VERSION, format_of, read
from ingest.report import Event, Listener, Report, Step
from ingest.settings import JobSettings
from ingest.sources.folder import SourceFile, walk
from ingest.vectors import VectorSource, input_hash

CHUNKER_VERSION = 1
BATCH_CHUNKS = 128
SAMPLE_FILES, SAMPLE_PIECES, SAMPLE_CHARS, SAMPLE_TEXTS = 100, 5, 800, 300
"""Texts on which the loss of a precision is measured: files looked at, pieces of one document, characters, texts at most."""


def run(settings: JobSettings, listener: Listener = lambda event: None) -> Report:
    """Bring the snapshot up to date with the sources.

    Raises: LockHeld where another run is at work, ConfigError where a source is not there, ArchivistError where nothing can
    be published; the served snapshot is untouched then.
    """
    if not settings.sources:
        raise ConfigError("no source to read; name one under `sources` in the configuration, or with --source PATH")
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data_dir {str(settings.data_dir)!r} cannot be made ({error.strerror}); name another") from error
    path = settings.data_dir / "ingest.lock"
    try:
        with filelock.FileLock(path, timeout=0):
            remove_litter(settings.data_dir)
            parent = _open_parent(settings.data_dir)
            try:
                return _Run(settings, listener, parent).run()
            finally:
                if parent is not None:
                    parent.close()
    except filelock.Timeout as error:
        raise LockHeld(str(path)) from error


class _Run:
    """One run: its settings, the parent snapshot it starts from, and how far it is."""

    def __init__(self, settings: JobSettings, listener: Listener, parent: OpenSnapshot | None) -> None:
        self.settings, self.listener, self.parent = settings, listener, parent
        self.started = time.monotonic()
        self.embedder: Embedder | None = None
        folder = find_model(settings.embedder.model, allow_hub=settings.embedder.allow_hub)
        self.fingerprint = fingerprint_of(folder, settings.embedder)
        # Files are kept as they are only where the parent was made with this model and these chunks.
        self.base = parent if parent is not None and self._made_like_this(parent) else None
        self.files: list[SourceFile] = []
        self.notes: list[str] = []
        self.failures: list[Failure] = []
        self.disturbed: set[SourceFile] = set()
        self.document_ids: set[str] = set()
        self.total_bytes = self.done_bytes = self.done_files = 0

    def run(self) -> Report:
        """Plan, then act."""
        self._say("scan", "reading the sources")
        sources = {source.collection: source for source in self.settings.sources}
        files = sorted(
            (file for source in self.settings.sources for file in walk(source)), key=lambda file: (file.collection, file.path)
        )
        self.files = files
        self.total_bytes = sum(file.size_bytes for file in files)
        rights = [access_of_file(sources[file.collection], file.path, self.settings.labels) for file in files]
        labels = self.settings.labels
        records = [_record(file, access, labels) for file, access in zip(files, rights, strict=True)]
        todo = plan(records, self.base.store.files() if self.base else [])
        if self.base is not None and todo.is_empty:
            return self._unchanged(self.base, todo)
        if not files:
            raise ArchivistError(self._nothing_to_publish("the sources hold no file that their globs admit"))
        return self._build(list(zip(files, rights, records, strict=True)), todo)

    def _build(self, files: list[tuple[SourceFile, Access, FileRecord]], todo: Plan) -> Report:
        settings = self.settings
        dimension = self.base.manifest.embedder.dimension if self.base else self._load().dimension
        vectors = VectorSource(settings.data_dir / "work" / "embeddings.db", self.parent, self._load, dimension)
        stamp = EmbedderStamp(settings.embedder.model, self.fingerprint, dimension)
        writer = SnapshotWriter(settings.data_dir, self.parent.id if self.parent else None, stamp, _making(settings))
        embedding = Embedding(vectors, writer)
        finished = False
        try:
            kept = set(todo.kept)
            pending: list[Item] = []
            # One order whatever was kept: the result then is that of a run from nothing.
            for file, rights, record in files:
                base = self.base if record in kept else None
                for item in self._from_parent(base, file) if base else self._from_file(file, rights):
                    pending.append(item)
                    if sum(len(waiting.inputs) for waiting in pending) >= BATCH_CHUNKS:
                        embedding.add(pending)
                        pending = []
                        self._say("ingest", file.path, vectors.embedded)
                # Without a hash the file counts as changed, so that the next run tries it again.
                writer.add_file(replace(record, content_hash=None) if file in self.disturbed else record)
                self.done_bytes += file.size_bytes
                self.done_files += 1
            embedding.add(pending)
            embedding.finish()
            self._say("ingest", "all files read", vectors.embedded)
            for failure in self.failures:
                writer.add_failure(failure)
            if writer.documents == 0:
                raise ArchivistError(self._nothing_to_publish(f"none of the {len(files)} files could be read"))
            self._say("publish", "verifying and publishing", vectors.embedded)
            made_by = self.embedder or (self.base.manifest.embedder if self.base else self._load())
            writer.embedded_with(made_by.engine, made_by.graph)
            manifest = writer.publish()
            finished = True
        finally:
            embedding.close()
            vectors.close(finished=finished)
            if not finished:
                writer.abandon()
        if self.parent is not None:
            self.parent.close()
        purged = purge(settings.data_dir, settings.retention.snapshots)
        self._say("done", f"published {manifest.id}", vectors.embedded)
        return Report(
            snapshot=manifest.id,
            published=True,
            added=len(todo.added),
            changed=len(todo.changed),
            kept=len(todo.kept),
            removed=len(todo.removed),
            documents=manifest.documents,
            chunks=manifest.chunks,
            embedded=vectors.embedded,
            reused=manifest.chunks - vectors.embedded,
            failures=tuple(sorted(self.failures, key=lambda failure: (failure.collection, failure.path, failure.item))),
            took_s=round(time.monotonic() - self.started, 3),
            purged=tuple(purged),
            engine=made_by.engine,
            notes=tuple(self.notes),
        )

    def _unchanged(self, base: OpenSnapshot, todo: Plan) -> Report:
        if self.parent is not None and self._is_not_current(base):
            point_to(self.settings.data_dir, base.id)
        self._mend_graph(base.manifest.embedder.graph)
        self._say("done", f"nothing changed since {base.id}; nothing was embedded")
        return Report(
            snapshot=base.id, published=False, added=0, changed=0, kept=len(todo.kept), removed=0,
            documents=base.manifest.documents, chunks=base.manifest.chunks, embedded=0, reused=base.manifest.chunks,
            failures=tuple(base.store.failures()), took_s=round(time.monotonic() - self.started, 3), notes=tuple(self.notes),
        )  # fmt: skip

    def _is_not_current(self, base: OpenSnapshot) -> bool:
        """Whether the current snapshot is damaged and this is the older one that was opened in its place."""
        try:
            return current_id(self.settings.data_dir) != base.id
        except SnapshotDamaged:
            return True

    def _load(self) -> Embedder:
        """The embedder, loaded when it is first needed: a run that embeds nothing loads no model."""
        if self.embedder is None:
            self._say("load_model", f"loading {self.settings.embedder.model}")
            models = self.settings.data_dir / MODELS
            exporting = Exporting(self.fingerprint, self._sample, self.notes.append)
            self.embedder = open_embedder(self.settings.embedder, models=models, exporting=exporting)
            longest = self.embedder.max_tokens
            if self.settings.chunking.max_tokens > longest:
                raise ConfigError(
                    f"chunking.max_tokens {self.settings.chunking.max_tokens} is longer than the {longest} tokens that "
                    f"{self.settings.embedder.model!r} embeds; set it to {longest} or less"
                )
        return self.embedder

    def _sample(self) -> list[str]:
        """Pieces of the documents, from files all over the sources."""
        pieces: list[str] = []
        for file in self.files[:: max(1, len(self.files) // SAMPLE_FILES)]:
            for found in _extracts(file):
                if not isinstance(found, DocumentError):
                    text = found.text[: SAMPLE_CHARS * SAMPLE_PIECES]
                    pieces += [text[begin : begin + SAMPLE_CHARS] for begin in range(0, len(text), SAMPLE_CHARS)]
        return pieces[:SAMPLE_TEXTS]

    def _mend_graph(self, named: str | None) -> None:
        """Export the model again where the graph that a snapshot names is gone or damaged: the service needs it."""
        if named is None or self.settings.embedder.engine == "sentence-transformers":
            return
        try:
            read_graph(self.settings.data_dir / MODELS, named).check()
        except (ModelNotFound, ModelDamaged):
            self._load()

    @cached_property
    def _count_tokens(self) -> Callable[[str], int]:
        return remembering(self._load().count_tokens)

    def _made_like_this(self, parent: OpenSnapshot) -> bool:
        made = parent.manifest
        return made.embedder.fingerprint == self.fingerprint and dict(made.chunking) == _making(self.settings)

    def _from_parent(self, parent: OpenSnapshot, file: SourceFile) -> Iterator[Item]:
        """The documents of an unchanged file, with their vectors."""
        self.failures += parent.store.failures_of_file(file.collection, file.path)
        for document, chunks, hashes, ordinals in parent.store.documents_of_file(file.collection, file.path):
            self.document_ids.add(document.document_id)
            yield Item(file.path, document, chunks, hashes, [], parent.dense.vectors(ordinals))

    def _from_file(self, file: SourceFile, rights: Access) -> Iterator[Item]:
        """The documents of a file that has to be read. What cannot be read is noted; the rest goes on."""
        for found in _extracts(file):
            if isinstance(found, DocumentError):
                if isinstance(found, _Disturbed):
                    self.disturbed.add(file)
                self._fail(file, found)
                continue
            document = _document(self.settings, file, found, rights)
            if document.document_id in self.document_ids:
                where = f"{file.path}#{found.row_id}" if found.row_id is not None else file.path
                self._fail(file, DocumentError(where, "another document has the same name", "give one of the two another name"))
                continue
            self.document_ids.add(document.document_id)
            embedder = self._load()
            chunks = chunk_document(
                document,
                self._count_tokens,
                max_tokens=self.settings.chunking.max_tokens,
                overlap_tokens=self.settings.chunking.overlap_tokens,
                special_tokens=embedder.special_tokens,
            )
            inputs = [embedder_input(document.title, chunk.heading, chunk.text) for chunk in chunks]
            yield Item(file.path, document, chunks, [input_hash(self.fingerprint, text) for text in inputs], inputs, None)

    def _fail(self, file: SourceFile, error: DocumentError) -> None:
        item = error.path.removeprefix(file.path).lstrip("#: ")
        self.failures.append(Failure(file.collection, file.path, item, error.reason, error.advice))

    def _nothing_to_publish(self, reason: str) -> str:
        after = f"snapshot {self.parent.id!r} stays in service" if self.parent else "look at `sources`"
        listed = "".join(f"\n  {failure.path}: {failure.reason}; {failure.advice}" for failure in self.failures[:20])
        return f"{reason}; nothing was published, {after}{listed}"

    def _say(self, step: Step, message: str, embedded: int = 0) -> None:
        self.listener(Event(step, message, self.done_bytes, self.total_bytes, self.done_files, embedded))


def _document(settings: JobSettings, file: SourceFile, found: Extract, rights: Access) -> Document:
    key = file.path if found.row_id is None else f"{file.path}#{found.row_id}"
    own = access_of_row(rights, found.groups, found.label, settings.labels)
    return Document(
        document_id=document_id_of(file.collection, key),
        version=version_of(found.title, found.text),
        collection=file.collection,
        source=found.source or key,
        title=found.title,
        text=found.text,
        sections=found.sections,
        format=format_of(file.path) or "",
        language=found.language or detect_language(found.text),
        groups=own.groups,
        label=own.label,
        metadata=found.metadata,
    )


def _record(file: SourceFile, access: Access, labels: LabelSettings) -> FileRecord:
    # The labels' order decides what the labels in an export's rows come to.
    rules = json.dumps([access.groups, access.label, labels.order, READER_VERSION])
    rules_hash = hashlib.sha256(rules.encode()).hexdigest()[:16]
    return FileRecord(file.collection, file.path, file.size_bytes, file.content_hash, rules_hash)


def _making(settings: JobSettings) -> dict[str, int]:
    """What, besides the model, decides how a document is cut."""
    chunking = settings.chunking
    return {"version": CHUNKER_VERSION, "max_tokens": chunking.max_tokens, "overlap_tokens": chunking.overlap_tokens}


def _open_parent(data_dir: Path) -> OpenSnapshot | None:
    """The snapshot to start from; None where there is none, or none that is whole."""
    try:
        return open_current(data_dir, SearchSettings())[0]
    except (NoSnapshot, SnapshotDamaged):
        return None


class _Disturbed(DocumentError):
    """The file was there when the sources were walked and could not be read now: it may well be readable tomorrow."""


def _extracts(file: SourceFile) -> Iterator[Extract | DocumentError]:
    if file.problem is not None:
        yield file.problem
        return
    try:
        data = file.location.read_bytes()
        if hashlib.sha256(data).hexdigest() != file.content_hash:
            raise _Disturbed(file.path, "it changed while the job was reading it", "the next run will read it again")
        yield from read(file.path, data)
    except DocumentError as error:
        yield error
    except OSError as error:
        yield _Disturbed(file.path, f"cannot be read ({error.strerror})", "check the disk or the mount")
    except Exception as error:  # noqa: BLE001 - the job's boundary around one document: a reader's bug must not stop the night
        reason = f"the reader failed ({type(error).__name__}: {error})"
        yield DocumentError(file.path, reason, "report it; the file is left out")
