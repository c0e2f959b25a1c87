"""How building, running again, opening and searching grow with the corpus: invented texts and vectors, the real job and search.

Vectors come from `InventedEmbedder`, since a model would embed for hours: what is measured is everything but embedding.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from evaluation.bench.figures import Aim, BenchError, Figure, Part, percentile
from evaluation.bench.invented import Language
from evaluation.bench.invented_embedder import InventedEmbedder
from evaluation.bench.invented_files import SECTIONS, SHARES, SMALL_CORPUS, Share
from evaluation.bench.memory import PeakMemory
from evaluation.bench.options import Options
from evaluation.bench.scaling_search import CLIENTS, Asked, Scoped
from ingest.settings import GateSettings, IngestSettings, JobSettings, SourceSettings

PART = "scaling"
QUESTIONS, FILTERED = 300, 100
PEAK_MB = {100_000: 1500.0, 1_000_000: 3000.0}
HYBRID_MS = {100_000: 8.0, 1_000_000: 20.0}
UNCHANGED_S, CHANGED_S = 5.0, 30.0
RECALL, RECALL_NARROW, NARROW = 0.98, 1.0, 0.02
"""Groups that see a smaller share than `NARROW` are searched exactly."""

CAPTION = (
    f"Chunks: up to {SMALL_CORPUS:,} each is a Markdown file, beyond a file has {SECTIONS}. Texts are invented, and their "
    "vectors made without a model, which would take hours. Times of runs are from the start of a process to its end; "
    "searches have the question's vector. Memory is the highest sum of each process's own peak. "
    "--json says on what each was measured."
)


@dataclass(frozen=True, slots=True)
class Ran:
    """A run of the job. Units: seconds from the start of its process to its end; MB as `PeakMemory` has them."""

    report: dict[str, Any]
    took_s: float
    embedding_s: float
    resident_mb: float | None
    anonymous_mb: float | None


def measure_scaling(options: Options) -> Part:
    """Each size by itself; what it leaves on disk is removed before the next one."""
    language = Language()
    figures: list[Figure] = []
    for chunks in options.sizes:
        folder = options.scratch / f"scaling-{chunks}"
        try:
            figures += _measure_size(options, Share(folder / "documents", chunks, language), folder)
        finally:
            rmtree(folder, ignore_errors=True)
    return Part(tuple(figures), caption=CAPTION)


def _measure_size(options: Options, share: Share, folder: Path) -> list[Figure]:
    say = options.say
    say(f"writing {share.files:,} files with {share.chunks:,} chunks")
    share.write()
    settings = _settings(options, folder)
    data_dir = settings.data_dir
    say("building")
    built = run_job(options, settings, folder)
    disk = disk_mb(data_dir)
    say("running again with nothing changed")
    again = run_job(options, settings, folder)
    say("searching")
    searched = run_searches(share, data_dir, folder)
    say("running again with every hundredth file changed")
    new_chunks = share.change()
    changed = run_job(options, settings, folder)
    disk_after = disk_mb(data_dir)
    part, chunks = f"{PART} {share.chunks:,}", built.report["chunks"]
    data = f"{chunks:,} chunks in {share.files:,} Markdown files, invented texts and vectors"
    if changed.report["chunks"] != chunks or built.report["failures"]:
        raise BenchError(f"the job made {chunks} chunks, then {changed.report['chunks']}; failures: {built.report['failures']}")
    return [
        *_build_figures(part, share, built, data),
        *_again_figures(part, share, again, data),
        *_changed_figures(part, share, changed, new_chunks, data),
        Figure(part, "disk, one snapshot", disk, "MB", data),
        Figure(
            part, "disk, with the snapshot before", disk_after, "MB", "after the run with 1 % changed; linked files count once"
        ),
        *_search_figures(part, share, searched),
    ]


def _settings(options: Options, folder: Path) -> JobSettings:
    source = SourceSettings(path=folder / "documents", name="invented")
    # The configuration's gate and webhook are about the organisation's own documents.
    own = {"data_dir": folder / "data", "sources": (source,), "gate": GateSettings(), "ingest": IngestSettings()}
    return options.job.model_copy(update=own)


def run_job(options: Options, settings: JobSettings, folder: Path) -> Ran:
    """The job in a process of its own. Raises: BenchError where it fails."""
    command = [sys.executable, "-m", "evaluation.bench.scaling_job"]
    ended: dict[str, Any] | None = None
    log = folder / "job.log"
    began = time.perf_counter()
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,  # noqa: S603 - our own program
        PeakMemory(process.pid) as memory,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(settings.model_dump_json())
        process.stdin.close()
        for line in process.stdout:
            told = json.loads(line)
            if "said" in told:
                options.say(f"  {told['said']}")
            else:
                ended = told
    took_s = time.perf_counter() - began
    if ended is None:
        raise BenchError(f"the job ended with {process.returncode}: {_last_line(log.read_text(errors='replace'))}")
    return Ran(ended["report"], took_s, ended["embedding_s"], memory.resident_mb, memory.anonymous_mb)


def run_searches(share: Share, data_dir: Path, folder: Path) -> dict[str, Any]:
    """The searches in a process of their own; what `scaling_search.Searched` holds. Raises: BenchError where it fails."""
    questions = share.questions(QUESTIONS)
    asked = Asked(str(data_dir), tuple(questions), tuple(SHARES), FILTERED)
    (folder / "asked.json").write_text(json.dumps(asdict(asked)), encoding="utf-8")
    np.save(folder / "vectors.npy", InventedEmbedder().embed_queries(questions))
    command = [sys.executable, "-m", "evaluation.bench.scaling_search", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if done.returncode != 0:
        raise BenchError(f"the process that searches ended with {done.returncode}: {_last_line(done.stderr)}")
    searched: dict[str, Any] = json.loads(done.stdout)
    return searched


def _last_line(errors: str) -> str:
    """What a traceback ends with."""
    return (errors.strip().splitlines() or ["it said nothing"])[-1]


def disk_mb(folder: Path) -> float:
    """What files under a folder take on disk, in MB of 10^6 bytes; one with several names counts once."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            about = os.lstat(os.path.join(root, name))
            found[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(found.values()) / 1e6


def _build_figures(part: str, share: Share, ran: Ran, data: str) -> list[Figure]:
    aim = PEAK_MB.get(share.chunks)
    return [
        Figure(part, "build, without a model", ran.took_s, "s", data),
        Figure(part, "build, chunks", ran.report["chunks"] / ran.took_s, "/s", data),
        Figure(part, "build, of which the invented vectors", ran.embedding_s, "s", "in a thread beside the reading"),
        *_memory(part, "build, peak memory", ran.resident_mb, "the job and its readers", Aim(aim) if aim else None),
        *_memory(part, "build, peak memory without mapped files", ran.anonymous_mb, "the same"),
    ]


def _again_figures(part: str, share: Share, ran: Ran, data: str) -> list[Figure]:
    aim = Aim(UNCHANGED_S) if share.files <= SMALL_CORPUS else None
    return [
        Figure(part, "unchanged, again", ran.took_s, "s", f"{share.files:,} files, from the process's start to its end", aim),
        Figure(part, "unchanged, embedded", ran.report["embedded"], "chunks", data, Aim(0)),
        Figure(part, "unchanged, new snapshots", int(ran.report["published"]), "snapshots", data, Aim(0)),
        *_memory(part, "unchanged, peak memory", ran.resident_mb, "the job"),
    ]


def _changed_figures(part: str, share: Share, ran: Ran, new_chunks: int, data: str) -> list[Figure]:
    aim = Aim(CHANGED_S) if share.files <= SMALL_CORPUS else None
    limit = PEAK_MB.get(share.chunks)
    told = f"{ran.report['changed']:,} of {share.files:,} files"
    return [
        Figure(part, "1 % changed, all but embedding", ran.took_s - ran.embedding_s, "s", told, aim),
        Figure(part, "1 % changed, embedded", ran.report["embedded"], "chunks", told, Aim(new_chunks)),
        *_memory(part, "1 % changed, peak memory", ran.resident_mb, "the job and its readers", Aim(limit) if limit else None),
        *_memory(part, "1 % changed, peak memory without mapped files", ran.anonymous_mb, "the same"),
    ]


def _search_figures(part: str, share: Share, found: dict[str, Any]) -> list[Figure]:
    everyone, opened, searched = Scoped(**found["everyone"]), found["opened_mb"] or {}, found["searched_mb"] or {}
    limit = HYBRID_MS.get(share.chunks)
    alone = f"{len(everyone.hybrid_ms)} questions, their vectors ready"
    together = found["together_ms"]
    figures = [
        Figure(part, "opening the snapshot", found["load_s"], "s", "hashes checked, files in the file cache"),
        *_memory(part, "memory with the snapshot open", opened.get("VmRSS"), "a process that only searches"),
        *_memory(part, "the same without mapped files", opened.get("RssAnon"), "a process that only searches"),
        *_memory(part, "memory after the searches", searched.get("VmRSS"), "the same"),
        *_memory(part, "memory after them, without mapped files", searched.get("RssAnon"), "the same"),
        Figure(
            part, "hybrid search p50, 1 client", percentile(everyone.hybrid_ms, 50), "ms", alone, Aim(limit) if limit else None
        ),
        Figure(part, "hybrid search p99, 1 client", percentile(everyone.hybrid_ms, 99), "ms", alone),
        Figure(part, f"hybrid search p50, {CLIENTS} clients", percentile(together, 50), "ms", alone),
        Figure(part, f"hybrid search p99, {CLIENTS} clients", percentile(together, 99), "ms", alone),
        Figure(part, f"hybrid searches, {CLIENTS} clients", len(together) / found["together_s"], "/s", alone),
        *_scope_figures(part, "all", 1.0, everyone, share.chunks),
    ]
    for group, size in SHARES.items():
        scoped = Scoped(**found["scopes"][group])
        if scoped.chunks:
            figures += _scope_figures(part, f"{100 * size:g} % visible", size, scoped, share.chunks)
    return figures


def _scope_figures(part: str, name: str, size: float, scoped: Scoped, chunks: int) -> list[Figure]:
    data = f"{scoped.chunks:,} of {chunks:,} chunks visible, {len(scoped.dense_ms)} questions"
    aim = Aim(RECALL_NARROW if size < NARROW else RECALL, at_least=True)
    figures = [
        Figure(part, f"{name}: dense recall@10 against exact", scoped.recall, "", data, aim),
        Figure(part, f"{name}: dense search p50", percentile(scoped.dense_ms, 50), "ms", data),
        Figure(part, f"{name}: dense search p99", percentile(scoped.dense_ms, 99), "ms", data),
    ]
    if size < 1:
        figures += [
            Figure(part, f"{name}: hybrid search p50", percentile(scoped.hybrid_ms, 50), "ms", data),
            Figure(part, f"{name}: hybrid search p99", percentile(scoped.hybrid_ms, 99), "ms", data),
        ]
    return figures


def _memory(part: str, name: str, value: float | None, data: str, aim: Aim | None = None) -> list[Figure]:
    return [] if value is None else [Figure(part, name, value, "MB", data, aim)]
