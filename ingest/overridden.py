"""What was decided of documents between runs, for a run: what it withholds, what it reads again, what the guards pass over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from corpus.effects import NOTHING, EffectRecord, Effects, Former, text_hash_of
from corpus.overlay import NAME, Overlay
from corpus.records import FileRecord
from corpus.settings import LabelSettings
from corpus.stored import Stored
from corpus.types import Document
from ingest.plan import Plan

FileKey = tuple[str, str]
"""A source's name and a path in it."""


@dataclass(frozen=True, slots=True)
class Overridden:
    """What is decided now against what a snapshot was made with.

    `documents` of which something else is decided now stand in `files`. `withheld` are documents of the snapshot that may not
    be stored any more, each with its number of chunks, and `emptied` the files that have no others.
    """

    documents: int = 0
    files: frozenset[FileKey] = frozenset()
    withheld: Mapping[str, int] = field(default_factory=dict)
    emptied: frozenset[FileKey] = frozenset()


def overridden(made: Stored | None, effects: Effects) -> Overridden:
    """Compare a snapshot with what is decided now."""
    if made is None:
        return Overridden()
    then = {record.document_id: record for record in made.effect_records()}
    places = made.places(effects)
    now = {place.document_id: (effect, (place.collection, place.path)) for place, effect in places}
    for document_id, record in then.items():
        now.setdefault(document_id, (effects.effect(document_id), (record.collection, record.path)))
    differing = [
        where
        for document_id, (effect, where) in now.items()
        if effect.told() != (then[document_id].effect if document_id in then else "")
    ]
    withheld = {
        place.document_id: place.chunks for place, effect in places if effect.deleted or effect.revoked.issuperset(place.groups)
    }
    still = {
        where
        for document_id, (effect, where) in now.items()
        if document_id in withheld
        or (document_id in then and then[document_id].withheld and then[document_id].effect == effect.told())
    }
    emptied = {where for where in still if withheld.keys() >= set(made.documents_in(*where))}
    return Overridden(len(differing), frozenset(differing), withheld, frozenset(emptied))


class Overrides:
    """What one run does by what is decided when it begins. What is decided later holds for reads, and for the next run."""

    def __init__(self, data_dir: Path, labels: LabelSettings, parent: Stored | None) -> None:
        """Raises: OverlayError."""
        self._path, self._labels = data_dir / NAME, labels
        # A run makes no database: without one nothing is decided yet.
        self._overlay = Overlay(self._path, labels) if self._path.exists() else None
        self.effects = Effects(labels=labels) if self._overlay is None else self._overlay.effects()
        self.against = overridden(parent, self.effects)
        self.records: list[EffectRecord] = []
        self._kept: dict[FileKey, list[EffectRecord]] = defaultdict(list)
        for record in parent.effect_records() if parent is not None else ():
            self._kept[record.collection, record.path].append(record)

    def keep(self, where: FileKey) -> None:
        """The file is kept as it is, and so is what was decided of its documents."""
        self.records += self._kept.get(where, ())

    def over(self, path: str, document: Document, former: Sequence[Former]) -> Document | None:
        """The document of a file as it may be stored, None where it is withheld. `former` are its ids of before."""
        text_hash = text_hash_of(document.text)
        effect = self.effects.effect(document.document_id, former, text_hash=text_hash)
        if effect == NOTHING:
            return document
        found = self.effects.over(document, effect)
        told = EffectRecord(document.document_id, document.collection, path, effect.told(), withheld=found is None)
        self.records.append(told)
        if self._overlay is not None:
            # The snapshot forgets a document that it does not hold; what was decided of it must not lose sight of it, nor of
            # one that was known by its text and may be edited later.
            followed = self.effects.followed(document.document_id, former, text_hash)
            self._overlay.note_moves({document.document_id: followed})
        return found

    @property
    def withheld(self) -> int:
        """Documents of the sources that are not stored."""
        return sum(record.withheld for record in self.records)

    def without_withheld(self, files: Iterable[FileKey]) -> list[FileKey]:
        """The files that have no document which is withheld."""
        holding = {(record.collection, record.path) for record in self.records if record.withheld}
        return [where for where in files if where not in holding]

    def guarded(self, todo: Plan, before: Sequence[FileRecord]) -> tuple[Plan, list[FileRecord]]:
        """A plan and the files before it, without those of which every document was deleted on purpose."""
        emptied = self.against.emptied
        removed = tuple(file for file in todo.removed if (file.collection, file.path) not in emptied)
        return replace(todo, removed=removed), [file for file in before if (file.collection, file.path) not in emptied]

    def has_changed(self) -> bool:
        """Whether anything was decided since the run began."""
        if self._overlay is None:
            return self._path.exists()
        # What the run itself notes of moves is nothing that was decided.
        return self._overlay.effects().numbers != self.effects.numbers

    def close(self) -> None:
        """Close the database."""
        if self._overlay is not None:
            self._overlay.close()
