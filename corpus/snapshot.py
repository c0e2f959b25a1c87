"""One published version of the corpus: write, verify, publish, open, activate.

`data/snapshots/<id>/` holds manifest.json, chunks.db, dense.faiss and lexical/; `data/CURRENT` names the one being served.
`data/models/` holds the exported models that manifests name.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from corpus.dense import EXACT_UP_TO, DenseIndex, DenseWriter
from corpus.disk import link, sync, writing
from corpus.effects import EffectRecord, Former, Seen
from corpus.embedders.stamped import check_stamped
from corpus.embedders.weights import file_sha256
from corpus.errors import Conflict, EmbedderError, NotFound, NotWritten, SnapshotDamaged, SnapshotError
from corpus.lexical import LexicalFilter, LexicalIndex, LexicalWriter, field_of
from corpus.manifest import FORMAT, EmbedderStamp, Manifest, as_written, digest_of, read_manifest
from corpus.overlay import Overlay
from corpus.published import BUILDING, MODELS, current_id, held, number_of, pointing, refuse_while_held, snapshot_ids
from corpus.records import Failure, FileRecord, facets_of
from corpus.search import Searcher
from corpus.settings import EmbedderSettings, SearchSettings
from corpus.store import Store
from corpus.store_writer import StoreWriter
from corpus.stored import Stored
from corpus.types import Chunk, Document, Vectors

SAMPLE = 20

LINKED_FROM = 65_536
"""Bytes from which a file is shared with the parent: what damages one damages both, which little is not worth."""


class SnapshotWriter:
    """Writes a new snapshot beside the others. Nothing of it is visible before `publish` returns."""

    def __init__(
        self,
        data_dir: Path,
        parent: str | None,
        embedder: EmbedderStamp,
        chunking: Mapping[str, int],
        *,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self._data_dir, self._parent, self._embedder, self._chunking = data_dir, parent, embedder, dict(chunking)
        self._folder = data_dir / "snapshots" / f"{BUILDING}{secrets.token_hex(4)}"
        with writing(self._folder):
            self._folder.mkdir(parents=True)
        self._store = StoreWriter(self._folder / "chunks.db")
        try:
            self._dense = DenseWriter(self._folder / "dense.faiss", embedder.dimension, exact_up_to=exact_up_to)
        except NotWritten:
            self._store.abandon()
            raise
        self._searched: Mapping[str, Any] = {}
        self._failures = 0

    def add_file(self, file: FileRecord) -> None:
        """Note a file that was read or that failed."""
        self._store.add_file(file)

    def add_failure(self, failure: Failure) -> None:
        """Note what could not be read."""
        self._store.add_failure(failure)
        self._failures += 1

    def add_effect(self, record: EffectRecord) -> None:
        """Note what was decided of a document, also of one that is withheld."""
        self._store.add_effect(record)

    def add_document(
        self,
        path: str,
        document: Document,
        chunks: Sequence[Chunk],
        input_hashes: Sequence[bytes],
        vectors: Vectors,
        former: Sequence[Former] = (),
    ) -> None:
        """Add a document of the file `path`. Shapes: vectors (len(chunks), dimension), in the chunks' order."""
        if len(vectors) != len(chunks):
            raise ValueError(f"{len(chunks)} chunks of {document.source!r} came with {len(vectors)} vectors")
        self._store.add_document(path, document, chunks, input_hashes, former)
        self._dense.add(vectors)

    @property
    def documents(self) -> int:
        """Documents added so far."""
        return self._store.documents

    @property
    def chunks(self) -> int:
        """Chunks added so far."""
        return self._store.chunks

    def embedded_with(self, engine: str, graph: str | None) -> None:
        """Note what the vectors were made with, which is known only once something had to be embedded."""
        self._embedder = replace(self._embedder, engine=engine, graph=graph)

    def publish(
        self, check: Callable[[Path], Sequence[Mapping[str, Any]]] | None = None, *, in_place_of: str | None = None
    ) -> Manifest:
        """Complete the files, verify them by opening and searching, and make the snapshot the current one.

        `check` is handed the folder of the complete files; what it gives back stands in the manifest as `gate`, and what it
        raises keeps the snapshot from being published. `in_place_of` names the current one where this is the same without what
        was deleted; it then takes over its hold too.

        Order: files, fsync, verification, manifest, fsync, rename, fsync, pointer. A crash at any point leaves the old one.
        Raises: SnapshotDamaged where the verification fails, NotWritten, RunRefused where a snapshot is held; nothing is
        published then.
        """
        with writing(self._folder):
            self._store.close()
            self._searched = self._dense.close()
            self._write_lexical()
        gate = check(self._folder) if check is not None else ()
        with writing(self._folder):
            return self._publish(gate, in_place_of)

    def _publish(self, gate: Sequence[Mapping[str, Any]], in_place_of: str | None) -> Manifest:
        number = max(map(number_of, snapshot_ids(self._data_dir)), default=0) + 1
        unnamed = Manifest(
            format=FORMAT,
            id="",
            parent=self._parent,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            embedder=self._embedder,
            chunking=self._chunking,
            documents=self._store.documents,
            chunks=self._store.chunks,
            failures=self._failures,
            files=self._shared(_hash_files(self._folder)),
            gate=gate,
            dense=self._searched,
        )
        manifest = replace(unnamed, id=f"{number:06d}-{digest_of(asdict(unnamed))}")
        (self._folder / "manifest.json").write_text(as_written(asdict(manifest)), encoding="utf-8")
        _verify_by_searching(self._folder)
        _sync_tree(self._folder)
        target = self._data_dir / "snapshots" / manifest.id
        with pointing(self._data_dir) as pointer:
            if in_place_of is None:
                refuse_while_held(self._data_dir)
            elif current_id(self._data_dir) != in_place_of:
                raise Conflict(f"snapshot {in_place_of!r} is not the current one any more; do it again")
            self._folder.rename(target)
            self._folder = target
            sync(target.parent)
            pointer.set_current(manifest.id)
            if in_place_of is not None and held(self._data_dir) == in_place_of:
                pointer.set_hold(manifest.id)
        return manifest

    def _shared(self, files: dict[str, str]) -> dict[str, str]:
        """The files by their hashes, those that are as the parent's made one with them where the file system can."""
        if self._parent is not None:
            parent = self._data_dir / "snapshots" / self._parent
            for name, digest in files.items():
                there, here = parent / name, self._folder / name
                with suppress(OSError):  # the parent has no such file
                    if here.stat().st_size == there.stat().st_size >= LINKED_FROM and file_sha256(there) == digest:
                        link(there, here)
        return files

    def abandon(self) -> None:
        """Remove what was written, unless it is what CURRENT names: publishing may fail behind its last step."""
        try:
            served = current_id(self._data_dir) == self._folder.name
        except SnapshotError:
            served = False
        self._store.abandon()
        self._dense.abandon()
        if not served:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _write_lexical(self) -> None:
        stored = Stored(self._folder / "chunks.db")
        try:
            languages = stored.languages()
            writer = LexicalWriter(self._folder / "lexical", [field_of(language) for language in languages])
            for number, (document, passages) in enumerate(stored.documents_with_passages()):
                facets = facets_of(document)
                for passage in passages:
                    words = "\n".join([document.title, *passage.heading, passage.text])
                    writer.add(passage.ordinal, number, words, document.language, document.groups, facets)
            writer.close()
        finally:
            stored.close()


class OpenSnapshot:
    """A snapshot whose files were checked and opened. Held in use by a shared lock, so that nothing purges it.

    With an overlay, what it says holds for every read.
    """

    def __init__(self, folder: Path, settings: SearchSettings, overlay: Overlay | None = None) -> None:
        self.manifest = read_manifest(folder)
        self.id = self.manifest.id
        self.created_at = datetime.fromisoformat(self.manifest.created_at)
        try:
            self._lock = (folder / "manifest.json").open("rb")
        except OSError as error:
            raise SnapshotDamaged(self.id, f"manifest.json cannot be read ({type(error).__name__})") from error
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        store = None
        try:
            _check_hashes(folder, self.manifest)
            self.store = store = Store(folder / "chunks.db", overlay, number_of(self.id))
            self.dense = DenseIndex(folder / "dense.faiss")
            self.lexical = LexicalIndex(folder / "lexical")
            if not self.store.chunks == self.dense.size == self.lexical.size == self.manifest.chunks:
                raise SnapshotDamaged(
                    self.id,
                    f"chunks.db has {self.store.chunks} chunks, the dense index {self.dense.size}, "
                    f"the lexical index {self.lexical.size}, the manifest {self.manifest.chunks}",
                )
        except BaseException:
            if store is not None:
                store.close()
            self._lock.close()
            raise
        self._settings = settings
        self.search = Searcher(self.store, self.dense, self.lexical, settings)

    def searcher(self, settings: SearchSettings) -> Searcher:
        """A search over this snapshot under some settings; the one that is there, where they are its own."""
        return self.search if settings == self._settings else Searcher(self.store, self.dense, self.lexical, settings)

    def seen(self, document_id: str) -> Seen:
        """What an entry of the overlay should know of a document: that it was seen here, its text's hash, its ids of before."""
        return self.store.stored.seen(document_id, number_of(self.id))

    def close(self) -> None:
        """Close the files and let the snapshot go."""
        self.store.close()
        self._lock.close()


@contextmanager
def searching(folder: Path, settings: SearchSettings) -> Iterator[Searcher]:
    """A search over the complete files of a snapshot that is not published yet."""
    store = Store(folder / "chunks.db")
    try:
        yield Searcher(store, DenseIndex(folder / "dense.faiss"), LexicalIndex(folder / "lexical"), settings)
    finally:
        store.close()


def open_snapshot(data_dir: Path, snapshot_id: str, settings: SearchSettings, overlay: Overlay | None = None) -> OpenSnapshot:
    """Open one snapshot. Raises: SnapshotDamaged."""
    return OpenSnapshot(data_dir / "snapshots" / snapshot_id, settings, overlay)


def open_current(
    data_dir: Path, settings: SearchSettings, overlay: Overlay | None = None
) -> tuple[OpenSnapshot, SnapshotDamaged | None]:
    """Open the current snapshot, or, where it is damaged, the newest older one that is not; the error then comes with it.

    Raises: NoSnapshot; SnapshotDamaged where no snapshot can be opened.
    """
    damage: SnapshotDamaged | None = None
    try:
        wanted = current_id(data_dir)
        return open_snapshot(data_dir, wanted, settings, overlay), None
    except SnapshotDamaged as error:
        wanted, damage = error.snapshot, error
    for name in reversed(snapshot_ids(data_dir)):
        if name == wanted:
            continue
        try:
            return open_snapshot(data_dir, name, settings, overlay), damage
        except SnapshotDamaged:
            continue
    raise damage


def activate(data_dir: Path, snapshot_id: str, *, hold: bool = False, embedder: EmbedderSettings | None = None) -> None:
    """Make a published snapshot the current one, once it and the model of its vectors are found whole.

    With `hold` no run publishes another. `embedder` says on what models run here; left out, the defaults.
    Raises: NotFound, NotWritten, SnapshotDamaged; EmbedderError where its questions could not be embedded; Conflict where
    another one is held. Nothing has changed then.
    """
    if snapshot_id not in snapshot_ids(data_dir):
        raise NotFound("snapshot", snapshot_id)
    # Open, it is in use, and nothing removes it.
    with closing(open_snapshot(data_dir, snapshot_id, SearchSettings())) as snapshot:
        try:
            check_stamped(snapshot.manifest.embedder, embedder or EmbedderSettings(), models=data_dir / MODELS)
        except EmbedderError as error:
            raise EmbedderError(f"snapshot {snapshot_id!r} cannot be served: {error}") from error
        with pointing(data_dir) as pointer:
            if hold:
                pointer.set_hold(snapshot_id)
            elif (other := held(data_dir)) not in (None, snapshot_id):
                raise Conflict(
                    f"snapshot {other!r} is held; run `archivist snapshots release` first, or hold {snapshot_id!r} instead"
                )
            pointer.set_current(snapshot_id)


def _hash_files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}


def _check_hashes(folder: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise SnapshotDamaged(manifest.id, f"{name} cannot be read ({type(error).__name__})") from error
        if found != expected:
            raise SnapshotDamaged(manifest.id, f"{name} is not the file that was published")


def _verify_by_searching(folder: Path) -> None:
    """Open what was written and find a sample of its chunks by their own vectors and words."""
    store, dense, lexical = Store(folder / "chunks.db"), DenseIndex(folder / "dense.faiss"), LexicalIndex(folder / "lexical")
    try:
        if not store.chunks == dense.size == lexical.size:
            raise SnapshotDamaged(folder.name, f"{store.chunks}, {dense.size} and {lexical.size} chunks in the three stores")
        step = max(1, store.chunks // SAMPLE)
        for ordinal in range(0, store.chunks, step):
            passage = store.passages([ordinal])[0]
            vector = dense.vectors(np.array([ordinal]))[0]
            _, cosines = dense.search(vector, 1, store.mask(passage.groups, {}))
            if not np.isclose(cosines[0], float(vector @ vector), atol=1e-2):
                raise SnapshotDamaged(folder.name, f"chunk {ordinal} is not found by its own vector")
        lexical.search("the", 1, LexicalFilter(["everyone"], {}, sees_everything=False))
    finally:
        store.close()


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)
