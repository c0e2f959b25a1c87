"""A run that is handed an embedder uses that one, and loads none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from corpus.settings import EmbedderSettings, SearchSettings
from corpus.snapshot import open_current
from corpus.types import Vectors
from ingest import job
from ingest.embedding import Embedding, Item
from tests.making import FILES, job_settings, write_files


class Digests:
    """Embeds a text as the direction that its digest seeds."""

    engine, model, fingerprint = "digests", "digests-8", "digests"
    graph: str | None = None
    dimension, max_tokens, special_tokens = 8, 256, 2

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """A direction a text."""
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in texts]
        vectors = np.stack([np.random.default_rng(seed).standard_normal(8) for seed in seeds]).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    embed_queries = embed_documents


def test_a_given_embedder_is_used_instead_of_the_configured_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vectors, name and fingerprint stand in the snapshot; the configured model, which is nowhere, is not looked for."""
    write_files(tmp_path / "documents", FILES)
    monkeypatch.setattr("ingest.model.open_embedder", lambda *_, **__: pytest.fail("a model was loaded"))
    settings = job_settings(tmp_path / "data", tmp_path / "documents", embedder=EmbedderSettings(model="nowhere"))
    report = job.run(settings, embedder=Digests())
    assert (report.embedded, report.reused, report.engine) == (10, 1, "digests")  # two files are alike
    snapshot, _ = open_current(tmp_path / "data", SearchSettings())
    made = snapshot.manifest.embedder
    assert (made.model, made.fingerprint, made.dimension) == ("digests-8", "digests", 8)
    stored = snapshot.dense.vectors(np.arange(snapshot.dense.size))
    snapshot.close()
    assert stored.std(axis=0).min() > 0.1
    assert job.run(settings, embedder=Digests()).embedded == 0


def test_what_is_kept_is_written_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that keeps thousands of chunks holds about a thousand of them at a time."""
    rows = [json.dumps({"id": str(number), "text": f"Row {number} of the export."}) + "\n" for number in range(2100)]
    folder = write_files(tmp_path / "documents", {"export.jsonl": "".join(rows), "last.md": "# Last\n\nThe last one.\n"})
    settings = job_settings(tmp_path / "data", folder)
    assert job.run(settings, embedder=Digests()).chunks == 2101
    held: list[int] = []

    class Watched(Embedding):
        def add(self, items: list[Item]) -> None:
            held.append(sum(len(item.chunks) for item in items))
            super().add(items)

    monkeypatch.setattr(job, "Embedding", Watched)
    write_files(folder, {"last.md": "# Last\n\nAnother one.\n"})
    report = job.run(settings, embedder=Digests())
    assert (report.embedded, report.reused) == (1, 2100)
    assert held == [1024, 1024, 53]
