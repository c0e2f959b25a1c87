"""A sentence that is put into every place of a data folder where it can come to lie, and the search for it there."""

from __future__ import annotations

import base64
import gzip
import json
import re
import urllib.parse
import zlib
from pathlib import Path

import numpy as np
import yaml

from app.answering.types import Answer, Citation, Grounding
from app.llm.backend import Usage
from app.state.state import State
from corpus.embedders.embedder import Embedder
from corpus.lexical import LexicalFilter
from corpus.settings import SearchSettings
from corpus.snapshot import open_current
from corpus.types import Passage
from ingest.vectors import VectorSource, input_hash
from tests.conftest import Run
from tests.making import job_settings, write_files

CANARY = "Zebrafish-Quartz-Überlauf 4711 \u2014 the canary sings"
SECRET = f"# Canary heading zirkon\n\nIt says: {CANARY}, and nobody else says so.\n"


def spellings(text: str) -> dict[str, bytes]:
    """The ways in which a text may stand in a file."""
    return {
        "raw": text.encode(),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "json": json.dumps(text)[1:-1].encode(),
        "lower": text.lower().encode(),
        "percent": urllib.parse.quote(text).encode(),
        "base64": base64.b64encode(text.encode())[4:-4],
    }


def expanded(data: bytes) -> bytes:
    """A file's bytes, and behind them whatever in it can be unpacked."""
    found = [data]
    for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08", data):
        try:
            unpack = gzip.decompress if data[match.start()] == 0x1F else zlib.decompressobj().decompress
            found.append(unpack(data[match.start() :])[:1_000_000])
        except (OSError, EOFError, zlib.error):
            continue
    return b"\x00".join(found)


def places(folder: Path, needles: dict[str, bytes]) -> set[str]:
    """Where any of them stands: `file: spelling`."""
    found = set()
    for path in folder.rglob("*"):
        # Exported models hold a model's weights, and take minutes to look through.
        if path.is_file() and "models" not in path.relative_to(folder).parts:
            data = expanded(path.read_bytes())
            found |= {f"{path.relative_to(folder)}: {name}" for name, needle in needles.items() if needle in data}
    return found


def found_by_word(data: Path) -> int:
    """How many chunks the lexical index has for a word of the canary: its terms are packed too well to be seen in the file."""
    snapshot, _ = open_current(data, SearchSettings())
    try:
        return len(snapshot.lexical.search("zirkon", 9, LexicalFilter(["everyone"], {}, sees_everything=True))[0])
    finally:
        snapshot.close()


def passage(document_id: str, version: str, text: str) -> Passage:
    """A passage that an answer rests on."""
    chunk_id = f"{document_id}.{version}.0-9"
    return Passage(0, chunk_id, document_id, version, "t", "s", "c", text, (), None, 0, 9, "internal", (), None)


def given(document_id: str, version: str, text: str) -> Answer:
    """An answer that quotes a document."""
    return Answer(
        answer=f"It says: {text}. [1]", abstained=False,
        citations=(Citation(1, f"{document_id}.{version}.0-9", document_id, version, "t", "s", None, (), text, 0, 9),),
        conversation_id=None, message_id=None, standalone_question=f"What of {text}?", provider="p", model="m", route="r",
        snapshot="000001-abc", usage=Usage(1, 1), grounding=Grounding(0.5, (text,)), timings_ms={},
        passages=(passage(document_id, version, text),),
    )  # fmt: skip


def tell(folder: Path, run: Run, embedder: Embedder) -> tuple[Path, Path, dict[str, bytes]]:
    """A data folder that holds the canary in every place it can, its configuration, and the canary's spellings."""
    source = write_files(folder / "documents", {"other.md": "# Other\n\nSomething else.\n", "secret.md": SECRET})
    data = folder / "data"
    settings = job_settings(data, source)
    run(settings)
    snapshot, _ = open_current(data, SearchSettings())
    documents = {d.source: d for d, _ in snapshot.store.stored.documents_with_passages()}
    secret, other = documents["secret.md"], documents["other.md"]
    (stored,) = snapshot.dense.vectors(np.array([p.ordinal for p in snapshot.store.passages_of(secret.document_id)]))
    snapshot.close()
    # A run that died has left vectors for the next one, of the canary among others.
    work = VectorSource(data / "work" / "embeddings.db", None, lambda: embedder, len(stored))
    work.vectors([CANARY], [input_hash("f", CANARY)])
    work.vectors([SECRET], [input_hash("f", SECRET)])
    work._keep([(b"k", stored.astype(np.float16).tobytes())])
    work.close(finished=False)
    state = State(data / "service.db")
    conversation = state.create_conversation("anna", "What does it say?")
    state.add_turn("anna", conversation, "What does it say?", given(secret.document_id, secret.version, CANARY), "complete")
    state.add_turn("anna", conversation, "And else?", given(other.document_id, other.version, "Something else"), "complete")
    state.close()
    config = folder / "archivist.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "data_dir": str(data),
                "sources": [{"path": str(source), "name": "documents"}],
                "embedder": {"engine": "sentence-transformers"},
            }
        )
    )
    needles = {**spellings(CANARY), "vector": stored.astype(np.float16).tobytes()}
    return data, config, needles
