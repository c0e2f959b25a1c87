"""What a snapshot says of itself: manifest.json, its own check sum in the snapshot's id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus.errors import SnapshotDamaged

FORMAT = 3


@dataclass(frozen=True, slots=True)
class EmbedderStamp:
    """Which model's vectors a snapshot holds, what made them, and the exported graph that embeds questions for it, if any.

    `settings` is what the vectors depend on besides the model (see embedders/stamped.py); None in those of earlier versions.
    """

    model: str
    fingerprint: str
    dimension: int
    engine: str = "sentence-transformers"
    graph: str | None = None
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says of itself. `files` maps each file's relative path to its SHA-256; `gate` is what was checked.

    `dense` says how vectors are searched: all of them, or candidates, with the recall that was measured.
    """

    format: int
    id: str
    parent: str | None
    created_at: str
    embedder: EmbedderStamp
    chunking: Mapping[str, int]
    documents: int
    chunks: int
    failures: int
    files: Mapping[str, str]
    gate: Sequence[Mapping[str, Any]] = ()
    dense: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest:
    """Read a snapshot's manifest. Raises: SnapshotDamaged."""
    try:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        data: dict[str, Any] = json.loads(text)
        if data.get("format") != FORMAT:
            raise SnapshotDamaged(folder.name, f"its format is {data.get('format')!r}, this version reads {FORMAT}")
        manifest = Manifest(**{**data, "embedder": EmbedderStamp(**data["embedder"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotDamaged(folder.name, f"manifest.json cannot be read ({type(error).__name__})") from error
    if manifest.id != folder.name:
        raise SnapshotDamaged(folder.name, f"its manifest is that of {manifest.id!r}")
    if not manifest.id.endswith(f"-{digest_of(data)}") or text != as_written(data):
        raise SnapshotDamaged(folder.name, "its manifest was changed")
    return manifest


def as_written(manifest: Mapping[str, Any]) -> str:
    """The manifest as it stands on disk, to the last byte."""
    return json.dumps(manifest, indent=1) + "\n"


def digest_of(manifest: Mapping[str, Any]) -> str:
    """What a snapshot's id ends in: it stands for every value of the manifest and, through their hashes, for the files.

    It is taken of what is written, so that a manifest of an earlier version, which lacks a value, keeps its id.
    """
    values = {key: value for key, value in manifest.items() if key != "id"}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
