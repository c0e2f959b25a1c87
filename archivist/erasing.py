"""Erases what was deleted from every file of the data folder: snapshots, pages, uploads, answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archivist.settings import Settings
from corpus.effects import Effects, Former
from corpus.errors import ArchivistError, LockHeld, NoSnapshot
from corpus.overlay import NAME, Overlay
from corpus.settings import LabelSettings

if TYPE_CHECKING:
    from app.state.erasure import ErasedAnswers
    from corpus.erasure import Erased
    from corpus.rewrite import Rewritten

WAIT_S = 20.0
"""How long a running service has to take up the new snapshot and let go of the old one."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was removed where. `pages` counts files; `uploads_kept` hold other documents too, and are the owner's to mend."""

    deleted: Rewritten
    old: Erased
    pages: int
    uploads: tuple[str, ...]
    uploads_kept: tuple[str, ...]
    answers: ErasedAnswers

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that waits for a running service."""
        return not self.deleted.in_use and not self.old.in_use and self.answers.rewritten

    def as_json(self) -> dict[str, Any]:
        """Plain values: documents with the snapshots they were in, snapshots, files, and messages that were erased."""
        return {
            "documents": self.deleted.documents,
            "snapshot": self.deleted.snapshot,
            "snapshots": sorted({*self.deleted.removed, *self.old.snapshots}),
            "in_use": sorted({*self.deleted.in_use, *self.old.in_use}),
            "files": self.old.files,
            "pages": self.pages,
            "uploads": self.uploads,
            "uploads_kept": self.uploads_kept,
            "answers": self.answers.messages,
            "service_db_rewritten": self.answers.rewritten,
        }

    @property
    def summary(self) -> str:
        """The same, for people."""
        what = f"Erased what was deleted: {len(self.deleted.documents)} documents, {len(self.answers.messages)} answers"
        if self.is_complete:
            return f"{what}."
        return f"{what}. Some of it is in use; it goes with the next run, or `archivist snapshots purge` in a minute."


def erase(data_dir: Path, labels: LabelSettings, *, keep: int | None, wait_s: float) -> Erasure:
    """Erase what was deleted and what old runs left; `keep` newest snapshots stay, all that hold nothing deleted where None.

    Done again after a crash, it goes on. Raises: LockHeld, NoSnapshot, SnapshotDamaged, OverlayError, StateError.
    """
    from app.state.erasure import erase_answers
    from corpus.erasure import Erased, erase_old, erase_uploads, files_served, forget_work, standing_anywhere
    from corpus.lock import locked
    from corpus.rewrite import erase_deleted
    from ingest.sources.pages import forget_pages

    with locked(data_dir), _opened(data_dir, labels) as overlay:
        # First what waits, then what holds: a deletion that comes in between, or while this is at work, is the next one's.
        pending = [] if overlay is None else [entry.number for entry in overlay.pending()]
        effects = Effects(labels=labels) if overlay is None else overlay.effects()
        deleted = erase_deleted(data_dir, effects, wait_s, _ignore if overlay is None else overlay.note_moves)
        old = Erased((), (), tuple(forget_work(data_dir))) if keep is None else erase_old(data_dir, keep)
        pages = forget_pages(data_dir, files_served(data_dir))
        uploads, uploads_kept = erase_uploads(data_dir)

        answers = erase_answers(data_dir / "service.db", lambda rested: standing_anywhere(data_dir, effects, rested))
        done = Erasure(deleted, old, pages, tuple(uploads), tuple(uploads_kept), answers)
        if overlay is not None and done.is_complete:
            now = overlay.effects()
            left = {entry.number for ids in uploads_kept.values() for each in ids for entry in now.applying(each)}
            overlay.note_erased([number for number in pending if number not in left])
        return done


def _ignore(moves: Mapping[str, Sequence[Former]]) -> None:
    """Where nothing was ever decided, nothing has to be followed."""


class Erasing:
    """Erases behind a run, whatever comes of the run, where anything was deleted that is not erased yet."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.done: Erasure | None = None

    @contextmanager
    def behind(self) -> Iterator[None]:
        """A refused or failed run erases too: what was deleted has nothing to do with what the sources hold."""
        try:
            yield
        except LockHeld:
            raise
        except ArchivistError:
            with suppress(ArchivistError):
                self._erase()
            raise
        self._erase()

    def _erase(self) -> None:
        if not self._settings.retention.purge_deleted:
            return
        data_dir, labels = self._settings.data_dir, self._settings.labels
        with _opened(data_dir, labels) as overlay:
            if overlay is None or not overlay.pending():
                return
        # Another run that has begun meanwhile does it behind itself.
        with suppress(LockHeld, NoSnapshot):
            self.done = erase(data_dir, labels, keep=None, wait_s=WAIT_S)


@contextmanager
def _opened(data_dir: Path, labels: LabelSettings) -> Iterator[Overlay | None]:
    """The overlay, None where nothing was ever decided."""
    if not (data_dir / NAME).exists():
        yield None
        return
    with closing(Overlay(data_dir / NAME, labels)) as overlay:
        yield overlay
