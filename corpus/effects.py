"""What decisions on documents come to, and what they come to for the documents of one snapshot. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from corpus.settings import LabelSettings
from corpus.types import Document

Kind = Literal["delete", "revoke", "relabel"]


@dataclass(frozen=True, slots=True)
class Former:
    """An id that a document had before it was moved, up to the snapshot with the number `until`."""

    document_id: str
    until: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What was decided of a document: it is deleted, groups that may not see it any more, the label that it has at least."""

    deleted: bool = False
    revoked: frozenset[str] = frozenset()
    label: str | None = None

    def told(self) -> str:
        """The same effect as the same text, always; empty where there is none."""
        if self == NOTHING:
            return ""
        return json.dumps([self.deleted, sorted(self.revoked), self.label], ensure_ascii=False)


NOTHING = Effect()

MATCHED_FROM = 40
"""Characters from which a text is known again under another id. A row that says "n/a" is no sign that it is the same one."""


def text_hash_of(text: str) -> str:
    """The hash by which a text is known again, whatever white space it has; empty for one that is too short to be known."""
    words = " ".join(text.split())
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest() if len(words) >= MATCHED_FROM else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision. `value` is the group that was revoked or the label; `by` says who decided, as they gave it.

    `seen_in` is the number of the snapshot in which the document was seen, 0 where that is not known. `erased_at` is when a
    deleted document was gone from every file of the data folder. `text_hash`, `version` and `copies` are those of `Seen`.
    """

    number: int
    kind: Kind
    document_id: str
    value: str
    created_at: str
    by: str
    undone_at: str | None
    seen_in: int = 0
    erased_at: str | None = None
    text_hash: str = ""
    version: str = ""
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """In which snapshot, by its number, a document was seen of which something is decided, and its ids of before a move.

    `text_hash` and `version` are of its text as it stood; `copies` are the ids of the other documents with that text, of
    which nothing was decided with it.
    """

    snapshot: int = 0
    former: tuple[Former, ...] = ()
    text_hash: str = ""
    version: str = ""
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Effects:
    """What all entries that stand come to. Immutable; another `version` is another state.

    `of` has the documents that something was decided of, those among them that were moved since under each of their ids.
    """

    version: int = 0
    of: Mapping[str, Effect] = field(default_factory=dict)
    labels: LabelSettings = field(default_factory=LabelSettings)
    _entries: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    _former: Mapping[str, Sequence[Former]] = field(default_factory=dict)
    _later: Mapping[str, Sequence[Former]] = field(default_factory=dict)
    _texts: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    _versions: Mapping[str, Sequence[Entry]] = field(default_factory=dict)

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of the entries."""
        return frozenset(entry.number for entries in self._entries.values() for entry in entries)

    @property
    def texts(self) -> frozenset[str]:
        """The hashes of the texts of which something was decided."""
        return frozenset(self._texts)

    @property
    def named(self) -> frozenset[str]:
        """Every id that a document may have, or have had, of which something was decided."""
        return frozenset([*self._entries, *self._former, *self._later])

    def effect(
        self, document_id: str, former: Sequence[Former] = (), snapshot: int | None = None, text_hash: str = ""
    ) -> Effect:
        """What holds for a document with the ids it had before; `snapshot` is the number of the one that it stands in.

        What was decided of a document before it was moved follows it, but not what was decided of another one that was put in
        its place. In a snapshot of before the move it holds for the document as it was called then. It holds for every
        document with the same text too, but for those that had it already when it was decided.
        """
        return self._sum(self.applying(document_id, former, snapshot, text_hash))

    def applying(
        self, document_id: str, former: Sequence[Former] = (), snapshot: int | None = None, text_hash: str = ""
    ) -> list[Entry]:
        """The entries that hold for a document, some of them more than once."""
        if not self._entries:
            return []
        found = list(self._entries.get(document_id, ()))
        for earlier in {*former, *self._former.get(document_id, ())}:
            found += (entry for entry in self._entries.get(earlier.document_id, ()) if entry.seen_in <= earlier.until)
        for later in self._later.get(document_id, ()) if snapshot is not None else ():
            if snapshot is not None and snapshot <= later.until:
                found += (entry for entry in self._entries.get(later.document_id, ()) if entry.seen_in > later.until)
        return found + self._by_text(document_id, former, text_hash)

    def followed(self, document_id: str, former: Sequence[Former], text_hash: str) -> tuple[Former, ...]:
        """The ids of before of a document that stands in its source now, with those under which its text was decided of."""
        by_text = {Former(entry.document_id, entry.seen_in) for entry in self._by_text(document_id, former, text_hash)}
        return (
            *former,
            *sorted((each for each in by_text if each.document_id != document_id), key=lambda each: each.document_id),
        )

    def of_version(self, document_id: str, version: str) -> Effect:
        """What was decided of a document that had an id in a version of its own, where it has left that id.

        It is known by a move from there, or by its version. Of the document that has the id now nothing is said.
        """
        found: list[Entry] = []
        for later in self._later.get(document_id, ()):
            found += (entry for entry in self._entries.get(later.document_id, ()) if entry.seen_in > later.until)
        found += (entry for entry in self._versions.get(version, ()) if document_id not in entry.copies)
        return self._sum(found)

    def _by_text(self, document_id: str, former: Sequence[Former], text_hash: str) -> list[Entry]:
        if not text_hash:
            return []
        called = {document_id, *(each.document_id for each in former)}
        return [entry for entry in self._texts.get(text_hash, ()) if called.isdisjoint(entry.copies)]

    def former_ids(self, document_id: str) -> tuple[Former, ...]:
        """What was noted of the ids that a document had before, the last one first."""
        return tuple(sorted(self._former.get(document_id, ()), key=lambda each: (-each.until, each.document_id)))

    def label(self, stored: str, effect: Effect) -> str:
        """The label that holds: the higher of what a document was given and what was decided."""
        return stored if effect.label is None else self.labels.highest([stored, effect.label])

    def over(self, document: Document, effect: Effect) -> Document | None:
        """A document as it may be stored; None where it is deleted, or nobody is left who may see it."""
        groups = tuple(group for group in document.groups if group not in effect.revoked)
        if effect.deleted or not groups:
            return None
        return replace(document, groups=groups, label=self.label(document.label, effect))

    def _sum(self, entries: Sequence[Entry]) -> Effect:
        if not entries:
            return NOTHING
        labels = [entry.value for entry in entries if entry.kind == "relabel"]
        return Effect(
            deleted=any(entry.kind == "delete" for entry in entries),
            revoked=frozenset(entry.value for entry in entries if entry.kind == "revoke"),
            label=self.labels.highest(labels) if labels else None,
        )


@dataclass(frozen=True, slots=True)
class EffectRecord:
    """What was decided of a document when a snapshot was made from its file. `withheld`: it is not in the snapshot."""

    document_id: str
    collection: str
    path: str
    effect: str
    withheld: bool

    @property
    def is_deleted(self) -> bool:
        """Whether it was deleted, not only given to nobody any more."""
        return bool(self.effect and json.loads(self.effect)[0])


@dataclass(frozen=True, slots=True, eq=False)
class Overlaid:
    """What was decided of the documents of one snapshot, by their numbers.

    `groups` are those that are left of a document some were revoked of; none are left of one that is deleted.
    """

    groups: Mapping[int, frozenset[str]] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)
    deleted: frozenset[int] = frozenset()

    @property
    def withheld(self) -> tuple[int, ...]:
        """The documents that nobody may see."""
        return self.hidden_from(None)

    def hidden_from(self, groups: Sequence[str] | None) -> tuple[int, ...]:
        """The documents that none of some groups may see any more; None for all the groups there are. Order: by number."""
        if groups is None:
            return tuple(sorted(number for number, left in self.groups.items() if not left))
        return tuple(sorted(number for number, left in self.groups.items() if left.isdisjoint(groups)))

    def groups_of(self, number: int, stored: Sequence[str]) -> tuple[str, ...]:
        """The groups that may see a document."""
        left = self.groups.get(number)
        return tuple(stored) if left is None else tuple(group for group in stored if group in left)

    def label_of(self, number: int, stored: str) -> str:
        """The label of a document."""
        return self.labels.get(number, stored)


UNTOUCHED = Overlaid()
