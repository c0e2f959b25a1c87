"""Makes the current snapshot anew without what was deleted since, from its own stores: nothing is read or embedded."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from corpus.effects import EffectRecord, Effects, Former, text_hash_of
from corpus.errors import SnapshotDamaged
from corpus.manifest import read_manifest
from corpus.published import current_id, number_of, remove_litter, remove_snapshot, snapshot_ids
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, SnapshotWriter, open_snapshot
from corpus.store import Store

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Which documents were taken out of which snapshots.

    `snapshot` is the one that took the place of the current one, None where that held none of them. `in_use` are snapshots that
    hold some and are still open in a service; they are not served to anybody who asks now, and go with the next purge.
    """

    documents: dict[str, list[str]]
    snapshot: str | None
    removed: tuple[str, ...]
    in_use: tuple[str, ...]


Note = Callable[[Mapping[str, Sequence[Former]]], None]
"""Is told the ids of before of documents that go, so that what was decided of them does not lose sight of them."""


def erase_deleted(data_dir: Path, effects: Effects, wait_s: float, note: Note) -> Rewritten:
    """Leave no snapshot that holds a deleted document; a service has `wait_s` seconds to let go of the old one.

    A snapshot that cannot be read could hold any, so it goes too. The caller holds the job's lock. A crash on the way leaves
    the old snapshot or the new one in service, and the next call goes on.
    Raises: NoSnapshot, SnapshotDamaged where the current one cannot be read, Conflict where another was activated meanwhile.
    """
    current = current_id(data_dir)
    remove_litter(data_dir)
    documents: dict[str, list[str]] = defaultdict(list)
    holding: list[str] = []
    for name in snapshot_ids(data_dir):
        try:
            there = _deleted(data_dir / "snapshots" / name, effects)
        except SnapshotDamaged:
            if name == current:
                raise
            holding.append(name)
            continue
        for document_id in there:
            documents[document_id].append(name)
        if there:
            holding.append(name)
    made = _without(data_dir, current, effects, note) if current in holding else None
    removed: list[str] = []
    deadline = time.monotonic() + wait_s
    while left := [name for name in holding if name not in removed]:
        removed += [name for name in left if remove_snapshot(data_dir, name)]
        if time.monotonic() >= deadline:
            break
        if len(removed) < len(holding):
            time.sleep(POLL_S)
    in_use = tuple(name for name in holding if name not in removed)
    return Rewritten(dict(documents), made, tuple(removed), in_use)


def _deleted(folder: Path, effects: Effects) -> list[str]:
    """The ids of the documents of a snapshot that were deleted."""
    read_manifest(folder)
    with closing(Store(folder / "chunks.db", number=number_of(folder.name))) as store:
        return store.stored.ids_of(store.overlaid_by(effects).deleted)


def _without(data_dir: Path, snapshot_id: str, effects: Effects, note: Note) -> str:
    """Publish a snapshot again without what was deleted; its id. All else stands as it stood."""
    with closing(open_snapshot(data_dir, snapshot_id, SearchSettings())) as old:
        made = old.manifest
        writer = SnapshotWriter(data_dir, old.id, made.embedder, made.chunking)
        try:
            _copy(old, writer, effects, note)
            return writer.publish(lambda folder: made.gate, in_place_of=old.id).id
        except BaseException:
            writer.abandon()
            raise


def _copy(old: OpenSnapshot, writer: SnapshotWriter, effects: Effects, note: Note) -> None:
    stored = old.store.stored
    deleted = frozenset(stored.ids_of(old.store.overlaid_by(effects).deleted))
    for file in stored.files():
        writer.add_file(file)
        for document, chunks, hashes, ordinals in stored.documents_of_file(file.collection, file.path):
            former = stored.former_ids(document.document_id)
            if document.document_id not in deleted:
                writer.add_document(file.path, document, chunks, hashes, old.dense.vectors(ordinals), former)
                continue
            text_hash = text_hash_of(document.text)
            note({document.document_id: effects.followed(document.document_id, former, text_hash)})
            told = effects.effect(document.document_id, former, text_hash=text_hash).told()
            writer.add_effect(EffectRecord(document.document_id, file.collection, file.path, told, withheld=True))
    for failure in stored.failures():
        writer.add_failure(failure)
    # Where something else is decided of these by now, the next run sees it by what stands here.
    for record in stored.effect_records():
        if record.document_id not in deleted:
            writer.add_effect(record)
