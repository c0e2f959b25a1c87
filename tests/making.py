"""A small organisation's documents, and what a test needs to bring them through the job."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpus.embedders.weights import find_model, fingerprint_of
from corpus.published import MODELS
from corpus.settings import EmbedderSettings, LabelSettings, RetentionSettings, SearchSettings
from corpus.snapshot import open_current
from ingest.isolation.settings import IsolationSettings
from ingest.settings import ChunkingSettings, JobSettings, RuleSettings, SourceSettings

REMOTE = (
    "Employees may work from home up to {days} days a week. They agree the days with their team lead, write them into the "
    "shared calendar by Friday noon, and stay reachable by telephone during core hours. The company lends a screen, a chair "
    "and a headset to everybody who works from home on a regular basis, and pays a flat rate for electricity and heating."
)
FILES = {
    "policies/travel.md": (
        "# Travel policy\n\n## Booking\n\nTrips are booked through the travel desk at least seven days ahead.\n\n"
        "## Expenses\n\nExpense reports are due within 30 days of the last day of travel. Use form TR-204 for the report.\n"
    ),
    "policies/remote-2025.md": f"# Remote work 2025\n\n{REMOTE.format(days=2)}\n",
    "policies/remote-2026.md": f"# Remote work 2026\n\n{REMOTE.format(days=3)}\n",
    "policies/remote-2026-copy.md": f"# Remote work 2026\n\n{REMOTE.format(days=3)}\n",
    "it/errors.txt": "Error E-4410 means that the badge reader lost its network. Restart the reader and wait two minutes.\n",
    "it/passwörter.txt": (
        "Passwörter haben mindestens vierzehn Zeichen und werden nur geändert, wenn der Verdacht besteht, dass sie bekannt "
        "geworden sind. Die Versicherungen der Häuser verwaltet die Abteilung Gebäude.\n"
    ),
    "oficina.md": (
        "# Guía de la oficina\n\nLa oficina de Valencia abre a las ocho de la mañana y cierra a las siete de la tarde. "
        "Las tarjetas de acceso se recogen en la recepción 😀 del edificio.\n"
    ),
    "board/salaries.md": "# Salary bands\n\nThe canary salary band of directors begins at 190000 crowns a year.\n",
    "faq.jsonl": "".join(
        json.dumps(row, ensure_ascii=False) + "\n"
        for row in (
            {
                "id": "1",
                "title": "Parking",
                "text": "Visitors park in the yard behind hall three.",
                "metadata": {"site": "leeds"},
            },
            {
                "id": "2",
                "title": "Bonus",
                "text": "The bonus of the board is paid in March.",
                "groups": ["board"],
                "label": "secret",
            },
            {"id": "3", "title": "Canteen", "text": "The canteen serves lunch from noon.", "label": "no-such-label"},
        )
    ),
}
RULES = (RuleSettings(match="board/**", groups=("board",), label="confidential"),)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files under a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def link_models(models: Path, data_dir: Path) -> Path:
    """Put exported models into a data folder: the same files, 90 MB each, which nothing may change in place."""
    return Path(shutil.copytree(models, data_dir / MODELS, copy_function=os.link, dirs_exist_ok=True))


def copy_published(folder: Path, target: Path) -> Path:
    """A copy of a data folder, or of a folder that has one, that may be changed in everything but the exported models."""

    def place(source: str, to: str) -> None:
        (os.link if Path(source).parent.parent.name == MODELS else shutil.copy2)(source, to)

    return Path(shutil.copytree(folder, target, copy_function=place))


def job_settings(data_dir: Path, *folders: Path, rules: Sequence[RuleSettings] = RULES, **values: Any) -> JobSettings:
    """The job's settings for one or several source folders, each named after its folder. One process reads all files."""
    parts: dict[str, Any] = {
        "sources": tuple(SourceSettings(path=folder, name=folder.name, rules=tuple(rules)) for folder in folders),
        "labels": LabelSettings(),
        "embedder": EmbedderSettings(),
        "chunking": ChunkingSettings(),
        "retention": RetentionSettings(),
        "isolation": IsolationSettings(workers=1),
    }
    return JobSettings(data_dir=data_dir, **{**parts, **values})


def fingerprint() -> str:
    """The default model's."""
    return fingerprint_of(find_model("all-MiniLM-L6-v2", allow_hub=False), EmbedderSettings())


def contents(data_dir: Path, *, vectors: bool = True) -> str:
    """A digest of what is published: documents, chunks, and the vectors bit for bit."""
    snapshot, damage = open_current(data_dir, SearchSettings())
    assert damage is None
    try:
        digest = hashlib.sha256()
        for document, passages in snapshot.store.stored.documents_with_passages():
            digest.update(repr((document, passages)).encode())
            if vectors:
                ordinals = np.array([passage.ordinal for passage in passages], dtype=np.int64)
                digest.update(snapshot.dense.vectors(ordinals).tobytes())
        return digest.hexdigest()
    finally:
        snapshot.close()


def litter(data_dir: Path) -> list[str]:
    """What a run left that is neither a snapshot nor the pointer to one."""
    known = {"snapshots", "CURRENT", "ingest.lock", "work", "runs", "models", "overlay.db"}
    left = [entry.name for entry in data_dir.iterdir() if entry.name not in known]
    left += [entry.name for entry in (data_dir / "snapshots").iterdir() if entry.name.startswith(".")]
    left += [entry.name for entry in (data_dir / "runs").glob(".*")]
    return left + [entry.name for entry in (data_dir / "work").iterdir()]
