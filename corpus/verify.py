"""The consistency check of a published snapshot: every file against the manifest, the stores against each other, the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from corpus.dense import DenseIndex
from corpus.embedders.graph import read_graph
from corpus.embedders.weights import file_sha256
from corpus.errors import ModelDamaged, ModelNotFound, SnapshotDamaged
from corpus.lexical import LexicalFilter, LexicalIndex
from corpus.manifest import Manifest, read_manifest
from corpus.published import MODELS
from corpus.store import Store
from corpus.store_check import contradictions

BATCH = 10_000
UNIT_TOLERANCE = 0.01
"""How far from 1 the length of a vector may be that was rounded to fp16 value by value."""


def problems_of(folder: Path) -> list[str]:
    """What is wrong with the snapshot in a folder, each by name; empty where it is whole.

    Order: the manifest first; files; then, where all of them are what was published, what they say.
    """
    try:
        manifest = read_manifest(folder)
    except SnapshotDamaged as error:
        return [error.reason]
    problems = _files(folder, manifest)
    if problems:
        return problems
    try:
        store = Store(folder / "chunks.db")
    except SnapshotDamaged as error:
        return [error.reason]
    try:
        problems = contradictions(store.stored)
        return (problems or _across(folder, manifest, store)) + _graph(folder.parent.parent / MODELS, manifest)
    except SnapshotDamaged as error:
        return [error.reason]
    finally:
        store.close()


def _files(folder: Path, manifest: Manifest) -> list[str]:
    problems = []
    for name, expected in manifest.files.items():
        try:
            if file_sha256(folder / name) != expected:
                problems.append(f"{name} is not the file that was published")
        except OSError as error:
            problems.append(f"{name} cannot be read ({error.strerror})")
    known = {"manifest.json", *manifest.files}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() and path.suffix != ".lock"}
    return problems + [f"{name} is in the folder and not in the manifest" for name in sorted(there - known)]


def _graph(models: Path, manifest: Manifest) -> list[str]:
    """The exported model that questions are embedded with."""
    if manifest.embedder.graph is None:
        return []
    try:
        read_graph(models, manifest.embedder.graph).check()
    except (ModelNotFound, ModelDamaged) as error:
        return [str(error)]
    return []


def _across(folder: Path, manifest: Manifest, store: Store) -> list[str]:
    """Counts, ids and groups of chunks.db against the dense index, the lexical one and the manifest."""
    dense, lexical = DenseIndex(folder / "dense.faiss"), LexicalIndex(folder / "lexical")
    counts = {
        "chunks.db": store.chunks,
        "the dense index": dense.size,
        "the lexical index": lexical.size,
        "the manifest": manifest.chunks,
    }
    problems = [
        f"{name} has {count} chunks, chunks.db {store.chunks}" for name, count in counts.items() if count != store.chunks
    ]
    if store.documents != manifest.documents:
        problems.append(f"the manifest has {manifest.documents} documents, chunks.db {store.documents}")
    if len(store.stored.failures()) != manifest.failures:
        problems.append(f"the manifest has {manifest.failures} failures, chunks.db {len(store.stored.failures())}")
    if dense.dimension != manifest.embedder.dimension:
        problems.append(f"the dense index has {dense.dimension} dimensions, the manifest {manifest.embedder.dimension}")
    ordinals = np.sort(lexical.ordinals())
    if not np.array_equal(ordinals, np.arange(store.chunks)):
        expected = set(range(store.chunks))
        missing, phantom = sorted(expected - set(ordinals.tolist())), sorted(set(ordinals.tolist()) - expected)
        problems.append(f"the lexical index lacks chunks {missing[:5]} and has phantom or double ones {phantom[:5]}")
    for group in store.stored.groups():
        wanted = int(store.mask([group], {}).sum())
        found = lexical.count(LexicalFilter([group], {}, sees_everything=False))
        if found != wanted:
            problems.append(f"group {group!r} may see {found} chunks in the lexical index, {wanted} in chunks.db")
    for begin in range(0, dense.size, BATCH):
        here = np.arange(begin, min(begin + BATCH, dense.size))
        vectors = dense.vectors(here)
        lengths = np.linalg.norm(vectors, axis=1)
        bad = np.flatnonzero(~np.isfinite(lengths) | (np.abs(lengths - 1) > UNIT_TOLERANCE)) + begin
        problems += [f"the vector of chunk {ordinal} is not of unit length" for ordinal in bad[:5].tolist()]
        problems += [f"what chunk {ordinal} has is not the code of its vector" for ordinal in dense.strange(here)[:5].tolist()]
    return problems
