"""The nightly job, and its composition root: walk, plan, read, chunk, embed, index, verify, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from corpus.effects import Former
from corpus.embedders.embedder import Embedder, Exporting, exported, open_embedder
from corpus.embedders.graph import read_graph
from corpus.embedders.stamped import values_of
from corpus.embedders.weights import find_model, fingerprint_of
from corpus.errors import (
    ArchivistError,
    ConfigError,
    DocumentError,
    ModelDamaged,
    ModelNotExported,
    ModelNotFound,
    RunRefused,
    SnapshotDamaged,
)
from corpus.lock import locked
from corpus.manifest import EmbedderStamp
from corpus.published import MODELS, current_id, number_of, point_to, purge, refuse_while_held, remove_litter
from corpus.records import Failure, FileRecord
from corpus.snapshot import OpenSnapshot, SnapshotWriter
from corpus.types import MOVED_FROM, Document, chunk_id_of, document_id_of
from ingest.chunking import chunk_document, embedder_input, remembering
from ingest.documents import document_of, failure_of, in_order, key_of, moves_told, where_of
from ingest.embedding import Embedding, Item
from ingest.gate import Counts, Measure, check_by_searching, check_counts, needs_search, shown
from ingest.guard import removals, vanished
from ingest.isolation.pool import Readers
from ingest.isolation.process import Disturbed
from ingest.notify import notify
from ingest.overridden import Overrides
from ingest.parent import made_like_this, making, open_parent
from ingest.plan import Plan, plan
from ingest.readers.extract import Extract
from ingest.report import Event, Listener, Report, Step
from ingest.runs import RunLog
from ingest.scan import Found, scan
from ingest.settings import JobSettings
from ingest.sources.folder import SourceFile
from ingest.sources.pages import forget_pages
from ingest.vectors import VectorSource, forget, input_hash

BATCH_CHUNKS, BATCH_KEPT = 128, 1024
"""Chunks to embed, or chunks with their vectors, that are held in memory before they are written."""

WORK = "work/embeddings.db"
SAMPLE_FILES, SAMPLE_PIECES, SAMPLE_CHARS, SAMPLE_TEXTS = 100, 5, 800, 300
"""Texts on which the loss of a precision is measured: files looked at, pieces of one document, characters, texts at most."""


def run(
    settings: JobSettings,
    listener: Listener = lambda event: None,
    *,
    allow_removals: bool = False,
    measure: Measure | None = None,
    run_id: str | None = None,
    embedder: Embedder | None = None,
) -> Report:
    """Bring the snapshot up to date with the sources, and write the run's report.

    `allow_removals` lets a run remove any share of the documents. `measure` is what the gate measures a golden set with.
    `embedder` is used instead of the configured one.
    Raises: LockHeld where another run is at work, RunRefused where a snapshot is held, or where a guard or the gate stopped it,
    ConfigError where a source is not there, ArchivistError where nothing can be published; what is served is untouched then.
    """
    if not settings.sources:
        raise ConfigError("no source to read; name one under `sources` in the configuration, or with --source PATH")
    with locked(settings.data_dir):
        log = RunLog(settings.data_dir, run_id, settings.ingest.runs_kept)
        return _reported(settings, log, lambda: _run_locked(settings, log, listener, allow_removals, measure, embedder))


def _run_locked(
    settings: JobSettings,
    log: RunLog,
    listener: Listener,
    allow_removals: bool,
    measure: Measure | None,
    embedder: Embedder | None,
) -> Report:
    refuse_while_held(settings.data_dir)
    remove_litter(settings.data_dir)
    parent = open_parent(settings.data_dir)
    overrides = None
    try:
        overrides = Overrides(settings.data_dir, settings.labels, parent.store.stored if parent is not None else None)
        job = _Run(
            settings, log.hearing(listener), parent, overrides,
            allow_removals=allow_removals, measure=measure, embedder=embedder,
        )  # fmt: skip
        return replace(job.run(), run=log.run_id)
    finally:
        if overrides is not None:
            overrides.close()
        if parent is not None:
            parent.close()


def _reported(settings: JobSettings, log: RunLog, work: Callable[[], Report]) -> Report:
    """Do the work, write down how it ended, and tell the webhook where that is not simply well."""
    ended: dict[str, Any]
    try:
        report = work()
    except RunRefused as error:
        ended = log.end("refused", {**error.report, "reasons": error.reasons})
        error.report = ended
        _tell(settings, log, ended)
        raise
    except BaseException as error:
        _tell(settings, log, log.end("failed", {"error": str(error), "error_kind": type(error).__name__}))
        raise
    ended = log.end("published" if report.published else "unchanged", report.as_json())
    if report.failures:
        _tell(settings, log, ended)
    return report


def _tell(settings: JobSettings, log: RunLog, ended: dict[str, Any]) -> None:
    if settings.ingest.webhook_url is not None:
        log.note(ended, webhook=notify(settings.ingest.webhook_url.get_secret_value(), ended))


def _identity(settings: JobSettings, given: Embedder | None) -> tuple[str, str]:
    """The model's name, and what its vectors depend on."""
    if given is not None:
        return given.model, given.fingerprint
    folder = find_model(settings.embedder.model, allow_hub=settings.embedder.allow_hub)
    return settings.embedder.model, fingerprint_of(folder, settings.embedder)


class _Run:
    """One run: its settings, the parent snapshot it starts from, and how far it is."""

    def __init__(
        self,
        settings: JobSettings,
        listener: Listener,
        parent: OpenSnapshot | None,
        overrides: Overrides,
        *,
        allow_removals: bool = False,
        measure: Measure | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.settings, self.listener, self.parent, self.overrides = settings, listener, parent, overrides
        self.allow_removals, self.measure = allow_removals, measure
        self.started = time.monotonic()
        self.given = embedder
        self.embedder: Embedder | None = None
        self.model, self.fingerprint = _identity(settings, embedder)
        # Files are kept as they are only where the parent was made with this model and these chunks.
        self.base = parent if parent is not None and made_like_this(parent, self.fingerprint, settings) else None
        self.files: list[SourceFile] = []
        self.notes: list[str] = []
        self.failures: list[Failure] = []
        self.disturbed: set[tuple[str, str]] = set()
        self.document_ids: set[str] = set()
        self.moved_from: set[str] = set()
        self.stale: tuple[Failure, ...] = ()
        self.total_bytes = self.done_bytes = self.done_files = 0

    def run(self) -> Report:
        """Plan, then act."""
        self._say("scan", "reading the sources")
        found = scan(self.settings, keep_pages=True)
        self.files = [one.file for one in found]
        self.total_bytes = sum(file.size_bytes for file in self.files)
        before = list(self.parent.store.stored.files()) if self.parent else []
        todo = plan((one.record for one in found), before, remake=self.base is None, overridden=self.overrides.against.files)
        if not self.allow_removals:
            share = self.settings.ingest.max_removed_share
            guarded, guarded_before = self.overrides.guarded(todo, before)
            self._refuse_if(removals(guarded, (one.record for one in found), guarded_before, share), todo)
        self.stale = tuple(failure_of(one.file, one.file.stale) for one in found if one.file.stale is not None)
        if self.base is not None and todo.is_empty:
            return self._unchanged(self.base, found, todo)
        if not found and not self._all_deleted(before):
            raise ArchivistError(self._nothing_to_publish("the sources hold no file that their globs admit"))
        return self._build(found, todo)

    def _all_deleted(self, before: Sequence[FileRecord]) -> bool:
        """Whether the sources are empty because every document there was has been deleted on purpose."""
        return bool(before) and self.overrides.against.emptied.issuperset((file.collection, file.path) for file in before)

    def _build(self, files: list[Found], todo: Plan) -> Report:
        settings = self.settings
        dimension = self.base.manifest.embedder.dimension if self.base else self._load().dimension
        vectors = VectorSource(settings.data_dir / WORK, self.parent, self._load, dimension)
        stamp = EmbedderStamp(self.model, self.fingerprint, dimension, settings=values_of(settings.embedder))
        writer = SnapshotWriter(settings.data_dir, self.parent.id if self.parent else None, stamp, making(settings))
        kept = set(todo.kept) if self.base else set()
        readers = Readers(settings.isolation, [one.file for one in files if one.record not in kept])
        embedding = Embedding(vectors, writer)
        finished = False
        try:
            before = self._before(todo)
            pending: list[Item] = []
            inputs = chunks = 0
            # One order whatever was kept: the result then is that of a run from nothing.
            for one in files:
                file, record = one.file, one.record
                base = self.base if record in kept else None
                earlier = before.get((record.collection, record.path))
                for item in self._from_parent(base, file) if base else self._from_file(readers, one, earlier):
                    pending.append(item)
                    inputs, chunks = inputs + len(item.inputs), chunks + len(item.chunks)
                    if inputs >= BATCH_CHUNKS or chunks >= BATCH_KEPT:
                        embedding.add(pending)
                        pending, inputs, chunks = [], 0, 0
                        self._say("ingest", file.path, vectors.embedded)
                # Without a hash the file counts as changed, so that the next run tries it again.
                writer.add_file(
                    replace(record, content_hash=None) if (file.collection, file.path) in self.disturbed else record
                )
                self.done_bytes += file.size_bytes
                self.done_files += 1
            embedding.add(pending)
            embedding.finish()
            self._say("ingest", "all files read", vectors.embedded)
            for failure in self.failures:
                writer.add_failure(failure)
            for decided in self.overrides.records:
                writer.add_effect(decided)
            if writer.documents == 0 and files and not self.overrides.withheld:
                raise ArchivistError(self._nothing_to_publish(f"none of the {len(files)} files could be read"))
            self._say("publish", "verifying and publishing", vectors.embedded)
            manifest = writer.publish(lambda folder: self._checked(folder, writer, todo))
            finished = True
        finally:
            readers.close()
            embedding.close()
            vectors.close(finished=finished)
            if not finished:
                writer.abandon()
        if self.parent is not None:
            self.parent.close()
        purged = purge(settings.data_dir, settings.retention.snapshots, settings.retention.days)
        self._forget_pages(files)
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
            failures=in_order([*self.failures, *self.stale]),
            took_s=round(time.monotonic() - self.started, 3),
            purged=tuple(purged),
            moved=len(todo.moved),
            moves=moves_told(todo),
            stale=len(self.stale),
            gate=tuple(manifest.gate),
            isolation=readers.isolation,
            engine=manifest.embedder.engine,
            notes=tuple(self.notes),
            withheld=self.overrides.withheld,
        )

    def _before(self, todo: Plan) -> dict[tuple[str, str], FileRecord]:
        """Where the content of changed and moved files stands in the parent."""
        if self.parent is None:
            return {}
        earlier = {(file.collection, file.path): file for file in self.parent.store.stored.files()}
        found = {key: earlier[key] for file in todo.changed if (key := (file.collection, file.path)) in earlier}
        return found | {(move.now.collection, move.now.path): move.before for move in todo.moved}

    def _checked(self, folder: Path, writer: SnapshotWriter, todo: Plan) -> list[dict[str, Any]]:
        """What stands in the manifest of a snapshot that may be published. Raises: RunRefused for one that may not."""
        self._say("publish", "checking what was built")
        now = Counts(writer.documents, writer.chunks, len(self.failures))
        withheld, last = self.overrides.against.withheld, None
        if self.parent is not None:
            made = self.parent.manifest
            last = Counts(made.documents - len(withheld), made.chunks - sum(withheld.values()))
        checks = check_counts(self.settings.gate, now, last)
        if needs_search(self.settings.gate):
            checks += check_by_searching(folder, self.settings, lambda texts: self._load().embed_queries(texts), self.measure)
        reasons = [shown(check) for check in checks if not check.passed]
        if self.parent is not None and not self.allow_removals:
            # What was deleted on purpose is not gone.
            before = [name for name in self.parent.store.stored.document_ids() if name not in withheld]
            gone = sum(1 for name in before if name not in self.document_ids and name not in self.moved_from)
            reasons += vanished(gone, len(before), self.settings.ingest.max_removed_share)
        passed = [check.as_json() for check in checks]
        self._refuse_if(reasons, todo, passed)
        # Known only now: what embedded nothing may have embedded the gate's questions.
        made_by = self.embedder or (self.base.manifest.embedder if self.base else self._load())
        writer.embedded_with(made_by.engine, made_by.graph or self._graph())
        if self.overrides.has_changed():
            self.notes.append(
                "documents were deleted, revoked or relabelled while the run was at work; that holds for every read, and the "
                "next run takes it into the snapshot"
            )
        return passed

    def _refuse_if(self, reasons: Sequence[str], todo: Plan, gate: Sequence[Mapping[str, Any]] = ()) -> None:
        if not reasons:
            return
        report = Report(
            snapshot=self.parent.id if self.parent else None, published=False, added=len(todo.added),
            changed=len(todo.changed), kept=len(todo.kept), removed=len(todo.removed), moved=len(todo.moved),
            moves=moves_told(todo), documents=self.parent.manifest.documents if self.parent else 0,
            chunks=self.parent.manifest.chunks if self.parent else 0, embedded=0, reused=0,
            failures=in_order(self.failures), took_s=round(time.monotonic() - self.started, 3), gate=tuple(gate),
        )  # fmt: skip
        raise RunRefused(reasons, self._after, report.as_json())

    def _forget_pages(self, files: Sequence[Found]) -> None:
        # What was kept of a page holds the text of what is withheld, too: it is fetched anew each time.
        forget_pages(
            self.settings.data_dir, self.overrides.without_withheld((one.file.collection, one.file.path) for one in files)
        )

    def _unchanged(self, base: OpenSnapshot, files: Sequence[Found], todo: Plan) -> Report:
        if self.parent is not None and self._is_not_current(base):
            point_to(self.settings.data_dir, base.id)
        # A run that died right behind publishing left them.
        forget(self.settings.data_dir / WORK)
        for one in files:
            self.overrides.keep((one.file.collection, one.file.path))
        self._forget_pages(files)
        self._mend_graph(base.manifest.embedder.graph)
        purged = purge(self.settings.data_dir, self.settings.retention.snapshots, self.settings.retention.days)
        self._say("done", f"nothing changed since {base.id}; nothing was embedded")
        return Report(
            snapshot=base.id, published=False, added=0, changed=0, kept=len(todo.kept), removed=0,
            documents=base.manifest.documents, chunks=base.manifest.chunks, embedded=0, reused=base.manifest.chunks,
            failures=in_order([*base.store.stored.failures(), *self.stale]), took_s=round(time.monotonic() - self.started, 3),
            stale=len(self.stale), notes=tuple(self.notes), purged=tuple(purged),
            withheld=self.overrides.withheld,
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
            self._say("load_model", f"loading {self.model}")
            self.embedder = self.given or self._open()
            longest = self.embedder.max_tokens
            if self.settings.chunking.max_tokens > longest:
                raise ConfigError(
                    f"chunking.max_tokens {self.settings.chunking.max_tokens} is longer than the {longest} tokens that "
                    f"{self.model!r} embeds; set it to {longest} or less"
                )
        return self.embedder

    def _open(self) -> Embedder:
        return open_embedder(self.settings.embedder, models=self.settings.data_dir / MODELS, exporting=self._exporting)

    @property
    def _exporting(self) -> Exporting:
        return Exporting(self.fingerprint, self._sample, self.notes.append)

    def _sample(self) -> list[str]:
        """Pieces of the documents, from files all over the sources."""
        pieces: list[str] = []
        files = self.files[:: max(1, len(self.files) // SAMPLE_FILES)]
        with closing(Readers(self.settings.isolation, files)) as readers:
            for file in files:
                for found in readers.extracts(file):
                    if not isinstance(found, DocumentError):
                        text = found.text[: SAMPLE_CHARS * SAMPLE_PIECES]
                        pieces += [text[begin : begin + SAMPLE_CHARS] for begin in range(0, len(text), SAMPLE_CHARS)]
        return pieces[:SAMPLE_TEXTS]

    def _graph(self) -> str | None:
        """The exported model for a snapshot whose parent names none, so that the service need not import torch."""
        if self.embedder is not None or self.given is not None or self.settings.embedder.engine == "sentence-transformers":
            return None
        try:
            graph = exported(self.settings.embedder, self.settings.data_dir / MODELS, self._exporting)
        except ModelNotExported as error:
            self.notes.append(f"the model was not exported: {error.reason}")
            return None
        return None if graph is None else graph.graph_id

    def _mend_graph(self, named: str | None) -> None:
        """Export the model again where the graph that a snapshot names is gone or damaged: the service needs it."""
        if self.settings.embedder.engine == "sentence-transformers":
            return
        if named is None:
            self.notes.append("the snapshot names no exported model; the next run that publishes tries to export it")
            return
        try:
            read_graph(self.settings.data_dir / MODELS, named).check()
        except (ModelNotFound, ModelDamaged):
            self._load()

    @cached_property
    def _count_tokens(self) -> Callable[[str], int]:
        return remembering(self._load().count_tokens)

    def _from_parent(self, parent: OpenSnapshot, file: SourceFile) -> Iterator[Item]:
        """The documents of an unchanged file, with their vectors."""
        self.failures += parent.store.stored.failures_of_file(file.collection, file.path)
        self.overrides.keep((file.collection, file.path))
        for document, chunks, hashes, ordinals in parent.store.stored.documents_of_file(file.collection, file.path):
            self.document_ids.add(document.document_id)
            former = parent.store.stored.former_ids(document.document_id) if MOVED_FROM in document.metadata else ()
            yield Item(file.path, document, chunks, hashes, [], parent.dense.vectors(ordinals), former)

    def _from_file(self, readers: Readers, one: Found, before: FileRecord | None) -> Iterator[Item]:
        """The documents of a file that has to be read. What cannot be read is noted; the rest goes on."""
        file = one.file
        for found in readers.extracts(file):
            try:
                if isinstance(found, DocumentError):
                    raise found
                document, former = self._known_as(document_of(self.settings, one, found), found, before)
                if document.document_id in self.document_ids:
                    raise DocumentError(
                        where_of(file, found), "another document has the same name", "give one of the two another name"
                    )
            except DocumentError as error:
                if isinstance(error, Disturbed):
                    self.disturbed.add((file.collection, file.path))
                self._fail(file, error)
                continue
            self.document_ids.add(document.document_id)
            stored = self.overrides.over(file.path, document, former)
            if stored is not None:
                item = self._unchanged_text(one, stored, found, before) or self._cut(file.path, stored)
                item.former = former
                yield item

    def _cut(self, path: str, document: Document) -> Item:
        """A document cut into chunks, whose vectors are still to be had."""
        embedder = self._load()
        chunks = chunk_document(
            document,
            self._count_tokens,
            max_tokens=self.settings.chunking.max_tokens,
            overlap_tokens=self.settings.chunking.overlap_tokens,
            special_tokens=embedder.special_tokens,
        )
        inputs = [embedder_input(document.title, chunk.heading, chunk.text) for chunk in chunks]
        return Item(path, document, chunks, [input_hash(self.fingerprint, text) for text in inputs], inputs, None)

    def _known_as(self, document: Document, found: Extract, before: FileRecord | None) -> tuple[Document, tuple[Former, ...]]:
        """The document, and the ids by which it was known before it was moved, the last one first, as its metadata has them."""
        if self.parent is None or before is None:
            return document, ()
        earlier = document_id_of(before.collection, key_of(before.path, found))
        # One that is withheld is not in the snapshot; what was decided of it knows its ids.
        former = self.parent.store.stored.former_ids(earlier) or self.overrides.effects.former_ids(earlier)
        if earlier != document.document_id:
            former = (Former(earlier, number_of(self.parent.id)), *former)
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
        if self.base is None or before is None or before.content_hash is None or before.content_hash != one.record.content_hash:
            return None
        parts = self.base.store.stored.document_with_parts(document_id_of(before.collection, key_of(before.path, found)))
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
        return Item(one.file.path, document, own, hashes, [], self.base.dense.vectors(ordinals))

    def _fail(self, file: SourceFile, error: DocumentError) -> None:
        self.failures.append(failure_of(file, error))

    @property
    def _after(self) -> str:
        return f"snapshot {self.parent.id!r} stays in service" if self.parent else "look at `sources`"

    def _nothing_to_publish(self, reason: str) -> str:
        listed = "".join(f"\n  {failure.path}: {failure.reason}; {failure.advice}" for failure in self.failures[:20])
        return f"{reason}; nothing was published, {self._after}{listed}"

    def _say(self, step: Step, message: str, embedded: int = 0) -> None:
        self.listener(Event(step, message, self.done_bytes, self.total_bytes, self.done_files, embedded))
