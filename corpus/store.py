"""chunks.db as callers may see it: every read asks which groups may see a document, and what the overlay says of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from corpus.effects import UNTOUCHED, Effects, Overlaid
from corpus.overlay import Overlay
from corpus.records import DocumentSummary
from corpus.standing import Rested, standing
from corpus.store_rows import (
    DOCUMENT_COLUMNS,
    PASSAGE_COLUMNS,
    PASSAGE_TABLES,
    SUMMARY_COLUMNS,
    document_of,
    passage_of,
    summary_of,
)
from corpus.stored import Stored
from corpus.types import Document, Mask, Ordinals, Passage

SHOWN_TO = (
    "number IN (SELECT number FROM document_groups WHERE name IN ({})) AND number NOT IN (SELECT value FROM json_each(?))"
)
"""Documents that any of some groups may see, those aside that the overlay hides from them."""

Described = TypeVar("Described", Document, DocumentSummary)


class Store:
    """An open chunks.db for callers. Safe for use by several threads.

    With an overlay every read asks it, and `number` is that of the snapshot: what was deleted or revoked since is not there
    for who may not see it, and labels are those of now. `stored` gives what was written, whoever may see it.
    """

    def __init__(self, path: Path, overlay: Overlay | None = None, number: int | None = None) -> None:
        """Raises: SnapshotDamaged."""
        self.stored = Stored(path)
        self._overlay, self._number = overlay, number
        self._overlaid: tuple[Effects, Overlaid] = (Effects(), UNTOUCHED)

    @property
    def documents(self) -> int:
        """Documents that are stored."""
        return self.stored.documents

    @property
    def chunks(self) -> int:
        """Chunks that are stored."""
        return self.stored.chunks

    def close(self) -> None:
        """Close the file."""
        self.stored.close()

    def overlaid(self) -> Overlaid:
        """What the overlay says of the documents here; the same object until it says something else. Raises: OverlayError."""
        if self._overlay is None:
            return UNTOUCHED
        effects = self._overlay.effects()
        known, found = self._overlaid
        if known is not effects:
            found = self.overlaid_by(effects)
            self._overlaid = (effects, found)
        return found

    def overlaid_by(self, effects: Effects) -> Overlaid:
        """What some effects come to for the documents here."""
        groups: dict[int, frozenset[str]] = {}
        labels: dict[int, str] = {}
        deleted: set[int] = set()
        for number, document_id, label, stored, text_hash in self.stored.touched(effects):
            effect = effects.effect(document_id, self.stored.former_ids_of(number), self._number, text_hash)
            if effect.deleted:
                deleted.add(number)
            if effect.deleted or effect.revoked:
                groups[number] = frozenset() if effect.deleted else frozenset(json.loads(stored)) - effect.revoked
            if effect.label is not None:
                labels[number] = effects.label(label, effect)
        return Overlaid(groups, labels, frozenset(deleted)) if groups or labels else UNTOUCHED

    def counts(self) -> tuple[int, int]:
        """Documents and chunks that somebody may see."""
        withheld = list(self.overlaid().withheld)
        return self.documents - len(withheld), self.chunks - int(self.stored.counts[withheld].sum())

    def mask(self, groups: Sequence[str], facets: Mapping[str, Sequence[str]], overlaid: Overlaid | None = None) -> Mask:
        """The chunks that a caller in any of `groups` may see, and that for every field have any of its values.

        Shapes: (chunks,) bool.
        """
        over = self.overlaid() if overlaid is None else overlaid
        seen = self._numbers("SELECT number FROM document_groups WHERE name IN ({})", groups)
        seen[list(over.hidden_from(groups))] = False
        for field, values in facets.items():
            has = self._numbers("SELECT number FROM facets WHERE field = ? AND value IN ({})", values, field)
            for number, label in over.labels.items() if field == "label" else ():
                has[number] = label in values
            seen &= has
        return np.repeat(seen, self.stored.counts)

    def _numbers(self, sql: str, values: Sequence[str], *before: str) -> Mask:
        marks = ", ".join("?" * len(values))
        mask = np.zeros(self.documents, dtype=np.bool_)
        numbers = [number for (number,) in self.stored.rows(sql.format(marks), [*before, *values])]
        mask[numbers] = True
        return mask

    def passages(self, ordinals: Ordinals | Sequence[int]) -> list[Passage]:
        """The passages of some chunks, in the order asked for. The caller has checked that they may be seen."""
        over = self.overlaid()
        wanted = [int(ordinal) for ordinal in ordinals]
        marks = ", ".join("?" * len(wanted))
        sql = f"SELECT {PASSAGE_COLUMNS} {PASSAGE_TABLES} WHERE c.ordinal IN ({marks})"
        found = {row[0]: passage_of(row, over) for row in self.stored.rows(sql, wanted)}
        return [found[ordinal] for ordinal in wanted]

    def passages_of(self, document_id: str) -> list[Passage]:
        """All passages of a document, in reading order. The caller has checked that it may be seen."""
        over = self.overlaid()
        sql = f"SELECT {PASSAGE_COLUMNS} {PASSAGE_TABLES} WHERE d.document_id = ? ORDER BY c.ordinal"
        withheld = frozenset(over.withheld)
        return [passage_of(row, over) for row in self.stored.rows(sql, [document_id]) if row[-1] not in withheld]

    def wordings(self, ordinals: Ordinals | Sequence[int]) -> dict[int, str]:
        """All that is said on some chunks, by ordinal: title, headings and text, a line each."""
        wanted = [int(ordinal) for ordinal in ordinals]
        sql = (
            f"SELECT c.ordinal, d.title, c.heading, c.text {PASSAGE_TABLES} WHERE c.ordinal IN ({', '.join('?' * len(wanted))})"
        )
        return {row[0]: "\n".join([row[1], *json.loads(row[2]), row[3]]) for row in self.stored.rows(sql, wanted)}

    def document(self, document_id: str, groups: Sequence[str]) -> Document | None:
        """One document; None if there is none, or none that any of `groups` may see."""
        over = self.overlaid()
        rows = self.stored.rows(
            f"SELECT {DOCUMENT_COLUMNS}, number FROM documents WHERE document_id = ? AND {_shown_to(groups)}",  # noqa: S608 - only question marks
            [document_id, *groups, _hidden(over, groups)],
        )
        return _overlaid(document_of(rows[0][:-1]), rows[0][-1], over) if rows else None

    def document_summaries(self, groups: Sequence[str], *, after: str | None, limit: int) -> list[DocumentSummary]:
        """The documents that any of `groups` may see, ordered by id, from the one behind `after` on."""
        over = self.overlaid()
        rows = self.stored.rows(
            f"SELECT {SUMMARY_COLUMNS}, number FROM documents "  # noqa: S608 - only question marks
            f"WHERE document_id > ? AND {_shown_to(groups)} ORDER BY document_id LIMIT ?",
            [after or "", *groups, _hidden(over, groups), limit],
        )
        return [_overlaid(summary_of(row[:-1]), row[-1], over) for row in rows]

    def labels(self, document_ids: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
        """Today's labels of those of some documents that any of `groups` may see; the others are left out."""
        over = self.overlaid()
        wanted = list(dict.fromkeys(document_ids))
        rows = self.stored.rows(
            f"SELECT document_id, label, number FROM documents WHERE document_id IN ({', '.join('?' * len(wanted))}) "  # noqa: S608 - only question marks
            f"AND {_shown_to(groups)}",
            [*wanted, *groups, _hidden(over, groups)],
        )
        return {document_id: over.label_of(number, label) for document_id, label, number in rows}

    def standing(self, wanted: Iterable[Rested], groups: Sequence[str]) -> dict[Rested, str]:
        """Those of some versions of documents that still stand here for any of `groups`, each with its label of now."""
        over = self.overlaid()
        return standing(self.stored, self._overlaid[0], over, wanted, groups)

    def labels_in_use(self) -> list[str]:
        """The labels that stand on any document, whoever may see it, also on one that was deleted since."""
        stored = [label for (label,) in self.stored.rows("SELECT DISTINCT label FROM documents", [])]
        return sorted({*stored, *self.overlaid().labels.values()})


def _shown_to(groups: Sequence[str]) -> str:
    return SHOWN_TO.format(", ".join("?" * len(groups)))


def _hidden(over: Overlaid, groups: Sequence[str]) -> str:
    return json.dumps(over.hidden_from(groups))


def _overlaid(found: Described, number: int, over: Overlaid) -> Described:
    if number not in over.groups and number not in over.labels:
        return found
    return replace(found, groups=over.groups_of(number, found.groups), label=over.label_of(number, found.label))
