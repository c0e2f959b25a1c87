"""Takes out of conversations what was written from documents that are gone, and makes sure that the file forgets it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from app.state import tables
from app.state.database import Database
from corpus.standing import Rested

ERASED = "This answer was erased: it rested on a document that was deleted."
BATCH = 500


@dataclass(frozen=True, slots=True)
class ErasedAnswers:
    """The messages that were erased, and whether the file was rewritten without them.

    `rewritten` is False where the running service did not let go of the file for a moment: then purge again.
    """

    messages: tuple[str, ...]
    rewritten: bool


def erase_answers(path: Path, present: Callable[[Sequence[Rested]], set[Rested]]) -> ErasedAnswers:
    """Erase every answer that rests on a version of a document which `present` knows no more: words, quotes, rewritten
    question.

    What a person asked, and that an answer was given, stays. Raises: StateError.
    """
    if not path.exists():
        return ErasedAnswers((), True)
    database = _Erasure(path)
    try:
        return database.erase(present)
    finally:
        database.close()


class _Erasure(Database):
    def erase(self, present: Callable[[Sequence[Rested]], set[Rested]]) -> ErasedAnswers:
        passages, messages = tables.message_passages, tables.messages
        with self._read() as connection:
            rows = connection.execute(sa.select(passages.c.document_id, passages.c.version).distinct())
            known = [(document_id, version) for document_id, version in rows]
        gone = sorted(set(known) - present(known))
        erased: list[str] = []
        with self._write() as connection:
            for begin in range(0, len(gone), BATCH):
                rested = sa.tuple_(passages.c.document_id, passages.c.version)
                resting = sa.select(passages.c.message_id).where(rested.in_(gone[begin : begin + BATCH]))
                changed = connection.execute(
                    messages.update()
                    .where(messages.c.message_id.in_(resting), messages.c.content != ERASED)
                    .values(content=ERASED, standalone_question=None, citations=None, grounding=None)
                    .returning(messages.c.message_id)
                )
                erased += changed.scalars()
        return ErasedAnswers(tuple(sorted(erased)), self._rewrite())

    def _rewrite(self) -> bool:
        """Write the file anew: a page that was only ever rearranged may still hold words in a gap."""
        with self._translated(), self._driver_connection() as connection:
            # What VACUUM copies through must not lie in a temporary file.
            connection.execute("PRAGMA temp_store = MEMORY")
            try:
                connection.execute("VACUUM")
                busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError:
                return False
            return bool(busy == 0)
