"""The snapshot that a run starts from, and whether what it holds can be kept as it is."""

from __future__ import annotations

from pathlib import Path

from corpus.errors import NoSnapshot, SnapshotDamaged
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_current
from ingest.settings import JobSettings

CHUNKER_VERSION = 1


def open_parent(data_dir: Path) -> OpenSnapshot | None:
    """The snapshot to start from; None where there is none, or none that is whole."""
    try:
        return open_current(data_dir, SearchSettings())[0]
    except (NoSnapshot, SnapshotDamaged):
        return None


def making(settings: JobSettings) -> dict[str, int]:
    """What, besides the model, decides how a document is cut."""
    chunking = settings.chunking
    return {"version": CHUNKER_VERSION, "max_tokens": chunking.max_tokens, "overlap_tokens": chunking.overlap_tokens}


def made_like_this(parent: OpenSnapshot, fingerprint: str, settings: JobSettings) -> bool:
    """Whether chunks and vectors of the parent are what this model and these settings would make."""
    made = parent.manifest
    return made.embedder.fingerprint == fingerprint and dict(made.chunking) == making(settings)
