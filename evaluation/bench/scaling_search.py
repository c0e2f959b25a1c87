"""Searches of a snapshot, in a process of its own that holds nothing else: `python -m evaluation.bench.scaling_search FOLDER`.

FOLDER holds `asked.json` (what `Asked` holds, but for the vectors) and `vectors.npy`; on stdout stands one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from corpus.search import Query, Scope
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_current
from corpus.types import Mask, Ordinals, Vectors
from evaluation.bench.memory import memory_of

DEPTH, TOP_K, CLIENTS = 10, 8, 8
WARM_UP = 10
EVERYONE = "everyone"
BLOCK = 50_000
SAME_SCORE = 1e-5
"""Chunks whose cosines differ by less are as good as each other."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of which snapshot: questions of everyone, and the groups that ask the first `filtered` of them too."""

    data_dir: str
    questions: tuple[str, ...]
    groups: tuple[str, ...]
    filtered: int


@dataclass(frozen=True, slots=True)
class Scoped:
    """The searches of one group. Units: milliseconds. `recall` is the dense side's among the ten best."""

    chunks: int
    hybrid_ms: Sequence[float]
    dense_ms: Sequence[float]
    recall: float


@dataclass(frozen=True, slots=True)
class Searched:
    """What was measured. Units: seconds, MB of 10^6 bytes, milliseconds. Memory is None where the system has no /proc."""

    load_s: float
    opened_mb: dict[str, float] | None
    searched_mb: dict[str, float] | None
    together_ms: Sequence[float]
    together_s: float
    everyone: Scoped
    scopes: dict[str, Scoped]


def main(folder: Path) -> None:
    """Measure, and write what was measured."""
    given = json.loads((folder / "asked.json").read_text(encoding="utf-8"))
    asked = Asked(given["data_dir"], tuple(given["questions"]), tuple(given["groups"]), given["filtered"])
    searched = measure_searches(asked, np.load(folder / "vectors.npy"))
    sys.stdout.write(json.dumps(asdict(searched)) + "\n")


def measure_searches(asked: Asked, vectors: Vectors) -> Searched:
    """Open the current snapshot and search it. Shapes: vectors (len(asked.questions), dimension), rows unit length."""
    settings = SearchSettings()
    began = time.perf_counter()
    snapshot, _ = open_current(Path(asked.data_dir), settings)
    load_s = time.perf_counter() - began
    try:
        opened = memory_of()
        queries = [Query(text, vector) for text, vector in zip(asked.questions, vectors, strict=True)]
        alone = _alone(snapshot, queries, EVERYONE)
        together, took_s = _together(snapshot, queries)
        narrow = {group: _alone(snapshot, queries[: asked.filtered], group) for group in asked.groups}
        searched = memory_of()
        limit = settings.candidates
        masks = {group: snapshot.store.mask([group], {}) for group in (EVERYONE, *asked.groups)}
        found = {group: _dense(snapshot, vectors[: asked.filtered], limit, mask) for group, mask in masks.items()}
        ordinals = {group: ids for group, (ids, _) in found.items()}
        recalls = recall(snapshot.dense.vectors, snapshot.dense.size, vectors[: asked.filtered], masks, ordinals)
    finally:
        snapshot.close()
    scoped = {
        group: Scoped(int(masks[group].sum()), took_ms, found[group][1], recalls[group])
        for group, took_ms in {EVERYONE: alone, **narrow}.items()
    }
    return Searched(load_s, opened, searched, together, took_s, scoped.pop(EVERYONE), scoped)


def _alone(snapshot: OpenSnapshot, queries: Sequence[Query], group: str) -> list[float]:
    """How long each search of one client takes, after some that are not counted."""
    return [_timed(snapshot, query, group) for query in (*queries[:WARM_UP], *queries)][WARM_UP:]


def _together(snapshot: OpenSnapshot, queries: Sequence[Query]) -> tuple[list[float], float]:
    """The same with clients that each search one after the other, and how long they take together."""
    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        shares = [queries[number::CLIENTS] for number in range(CLIENTS)]
        took = list(pool.map(lambda share: [_timed(snapshot, query, EVERYONE) for query in share], shares))
    return [each for share in took for each in share], time.perf_counter() - began


def _timed(snapshot: OpenSnapshot, query: Query, group: str) -> float:
    began = time.perf_counter()
    snapshot.search.search([query], Scope((group,)), TOP_K)
    return (time.perf_counter() - began) * 1000


def _dense(snapshot: OpenSnapshot, vectors: Vectors, limit: int, mask: Mask) -> tuple[list[Ordinals], list[float]]:
    """What the dense side finds for each question, as deep as the search looks, and how long it takes."""
    found, took_ms = [], []
    for vector in vectors:
        began = time.perf_counter()
        ordinals, _ = snapshot.dense.search(vector, limit, None if mask.all() else mask)
        took_ms.append((time.perf_counter() - began) * 1000)
        found.append(ordinals)
    return found, took_ms


def recall(
    vectors_of: Callable[[Ordinals], Vectors],
    size: int,
    queries: Vectors,
    masks: Mapping[str, Mask],
    found: Mapping[str, Sequence[Ordinals]],
) -> dict[str, float]:
    """For each mask, which share of the best visible chunks stands among the first found; one of no chunks is 1.

    What the best are is computed by numpy from the stored vectors. Equal ones may stand for each other.
    """
    best = {name: np.full((len(queries), DEPTH), -np.inf, dtype=np.float32) for name in masks}
    for begin in range(0, size, BLOCK):
        ordinals = np.arange(begin, min(begin + BLOCK, size))
        cosines = queries @ vectors_of(ordinals).T
        for name, mask in masks.items():
            both = np.concatenate([best[name], cosines[:, mask[ordinals]]], axis=1)
            best[name] = np.partition(both, -DEPTH, axis=1)[:, -DEPTH:]
    recalls = {}
    for name, mask in masks.items():
        possible = min(DEPTH, int(mask.sum()))
        least = best[name].max(axis=1) if possible == 0 else np.sort(best[name], axis=1)[:, DEPTH - possible]
        hits = 0
        for query, threshold, ordinals in zip(queries, least, found[name], strict=True):
            first = ordinals[:DEPTH]
            good = vectors_of(first) @ query >= threshold - SAME_SCORE
            hits += int((good & mask[first]).sum())
        recalls[name] = hits / (possible * len(queries)) if possible else 1.0
    return recalls


if __name__ == "__main__":
    main(Path(sys.argv[1]))
