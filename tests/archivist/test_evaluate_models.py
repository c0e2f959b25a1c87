"""What `archivist evaluate` measures is the model that the configuration names, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from archivist import evaluate
from corpus.errors import EmbedderMismatch
from tests.app.serving import settings_of
from tests.corpus.small import publish


def test_a_model_that_was_not_ingested_is_not_measured(tmp_path: Path) -> None:
    """A configuration that names another model than the snapshot is refused: its figures would be the other one's."""
    snapshot = publish(tmp_path, ["a text"]).id
    expected = rf"{snapshot}.*vectors of 'model', the configuration names 'all-MiniLM-L6-v2'.*archivist ingest"
    with pytest.raises(EmbedderMismatch, match=expected):
        evaluate._embedder(settings_of(tmp_path))
