"""The nightly job, and its composition root: walk, plan, read, chunk, embed, index, verify, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpus.embedders.embedder import Embedder
from corpus.embedders.stamped import values_of
from corpus.erasure import erase_uploads
from corpus.errors import ArchivistError, ConfigError, RunRefused, SnapshotDamaged
from corpus.lock import locked
from corpus.manifest import EmbedderStamp
from corpus.published import current_id, point_to, purge, refuse_while_held, remove_litter
from corpus.records import Failure, FileRecord
from corpus.snapshot import OpenSnapshot, SnapshotWriter
from ingest.documents import failure_of, in_order, moves_told
from ingest.embedding import Embedding, Item
from ingest.gate import Counts, Measure, check_by_searching, check_counts, needs_search, shown
from ingest.gathering import Gathering
from ingest.guard import removals, vanished
from ingest.isolation.pool import Readers
from ingest.model import Model
from ingest.notify import notify
from ingest.overridden import Overrides
from ingest.parent import made_like_this, making, open_parent
from ingest.plan import Plan, plan
from ingest.report import Event, Listener, Report, Step
from ingest.runs import RunLog
from ingest.scan import Found, scan
from ingest.settings import JobSettings
from ingest.sources.pages import forget_pages
from ingest.vectors import VectorSource, forget

BATCH_CHUNKS, BATCH_KEPT = 128, 1024
"""Chunks to embed, or chunks with their vectors, that are held in memory before they are written."""

WORK = "work/embeddings.db"


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
        for died in log.killed:
            _tell(settings, log, died)
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
        self.notes: list[str] = []
        self.total_bytes = self.done_bytes = self.done_files = 0
        self.model = Model(settings, embedder, self.notes.append, lambda message: self._say("load_model", message))
        # Files are kept as they are only where the parent was made with this model and these chunks.
        self.base = parent if parent is not None and made_like_this(parent, self.model.fingerprint, settings) else None
        self.gathering = Gathering(settings, parent, self.base, overrides, self.model)
        self.stale: tuple[Failure, ...] = ()

    def run(self) -> Report:
        """Plan, then act."""
        self._say("scan", "reading the sources")
        found = scan(self.settings, keep_pages=True)
        self.model.files = [one.file for one in found]
        self.total_bytes = sum(one.file.size_bytes for one in found)
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
        settings, gathering = self.settings, self.gathering
        dimension = self.base.manifest.embedder.dimension if self.base else self.model.load().dimension
        vectors = VectorSource(settings.data_dir / WORK, self.parent, self.model.load, dimension)
        stamp = EmbedderStamp(self.model.name, self.model.fingerprint, dimension, settings=values_of(settings.embedder))
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
                for item in gathering.from_parent(base, file) if base else gathering.from_file(readers, one, earlier):
                    pending.append(item)
                    inputs, chunks = inputs + len(item.inputs), chunks + len(item.chunks)
                    if inputs >= BATCH_CHUNKS or chunks >= BATCH_KEPT:
                        embedding.add(pending)
                        pending, inputs, chunks = [], 0, 0
                        self._say("ingest", file.path, vectors.embedded)
                # Without a hash the file counts as changed, so that the next run tries it again.
                writer.add_file(
                    replace(record, content_hash=None) if (file.collection, file.path) in gathering.disturbed else record
                )
                self.done_bytes += file.size_bytes
                self.done_files += 1
            embedding.add(pending)
            embedding.finish()
            self._say("ingest", "all files read", vectors.embedded)
            for failure in gathering.failures:
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
        self._forget_uploads()
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
            failures=in_order([*gathering.failures, *self.stale]),
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
        now = Counts(writer.documents, writer.chunks, len(self.gathering.failures))
        withheld, last = self.overrides.against.withheld, None
        if self.parent is not None:
            made = self.parent.manifest
            last = Counts(made.documents - len(withheld), made.chunks - sum(withheld.values()))
        checks = check_counts(self.settings.gate, now, last)
        if needs_search(self.settings.gate):
            checks += check_by_searching(
                folder, self.settings, lambda texts: self.model.load().embed_queries(texts), self.measure
            )
        reasons = [shown(check) for check in checks if not check.passed]
        if self.parent is not None and not self.allow_removals:
            # What was deleted on purpose is not gone.
            before = [name for name in self.parent.store.stored.document_ids() if name not in withheld]
            there = self.gathering.document_ids | self.gathering.moved_from
            gone = sum(1 for name in before if name not in there)
            reasons += vanished(gone, len(before), self.settings.ingest.max_removed_share)
        passed = [check.as_json() for check in checks]
        self._refuse_if(reasons, todo, passed)
        # Known only now: what embedded nothing may have embedded the gate's questions.
        made_by = self.model.loaded or (self.base.manifest.embedder if self.base else self.model.load())
        writer.embedded_with(made_by.engine, made_by.graph or self.model.graph())
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
            failures=in_order(self.gathering.failures), took_s=round(time.monotonic() - self.started, 3), gate=tuple(gate),
        )  # fmt: skip
        raise RunRefused(reasons, self._after, report.as_json())

    def _forget_pages(self, files: Sequence[Found]) -> None:
        # What was kept of a page holds the text of what is withheld, too: it is fetched anew each time.
        forget_pages(
            self.settings.data_dir, self.overrides.without_withheld((one.file.collection, one.file.path) for one in files)
        )

    def _forget_uploads(self) -> None:
        # One that was stored after its delete was erased is pending nowhere. What was undone meanwhile is not looked at yet.
        if self.settings.retention.purge_deleted and self.overrides.withheld and not self.overrides.has_changed():
            erase_uploads(self.settings.data_dir)

    def _unchanged(self, base: OpenSnapshot, files: Sequence[Found], todo: Plan) -> Report:
        if self.parent is not None and self._is_not_current(base):
            point_to(self.settings.data_dir, base.id)
        # A run that died right behind publishing left them.
        forget(self.settings.data_dir / WORK)
        for one in files:
            self.overrides.keep((one.file.collection, one.file.path))
        self._forget_pages(files)
        self._forget_uploads()
        self.model.mend_graph(base.manifest.embedder.graph)
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

    @property
    def _after(self) -> str:
        return f"snapshot {self.parent.id!r} stays in service" if self.parent else "look at `sources`"

    def _nothing_to_publish(self, reason: str) -> str:
        listed = "".join(f"\n  {failure.path}: {failure.reason}; {failure.advice}" for failure in self.gathering.failures[:20])
        return f"{reason}; nothing was published, {self._after}{listed}"

    def _say(self, step: Step, message: str, embedded: int = 0) -> None:
        self.listener(Event(step, message, self.done_bytes, self.total_bytes, self.done_files, embedded))
