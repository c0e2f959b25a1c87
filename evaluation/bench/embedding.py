"""How fast chunks become vectors, engine by engine on the same chunks, what each loses, and what the job adds to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median

from corpus.embedders.embedder import Embedder, open_embedder
from corpus.embedders.loss import loss_of
from corpus.settings import SearchSettings
from corpus.snapshot import open_current
from corpus.types import Vectors
from evaluation.bench.children import ingest
from evaluation.bench.figures import Aim, BenchError, Figure, Part
from evaluation.bench.options import Options, exported
from ingest.chunking import embedder_input
from ingest.job import run
from ingest.settings import GateSettings, IngestSettings, SourceSettings

PART = "embedding"
ROUNDS = 3
ENCODE, FP32, INT8 = "SentenceTransformer.encode", "onnx fp32", "onnx int8"
ENOUGH_TOKENS = 150
"""Joined until so many, texts have about 176 tokens, the mean of the chunks of long documents. Source: measured."""

DEFAULT_BATCH = 32
"""What `SentenceTransformer.encode` embeds at once unless told otherwise."""


def measure_embedding(options: Options) -> Part:
    """Ingest the sample, and embed its chunks with each engine in turn."""
    data_dir = options.scratch / "embedding"
    options.say("ingesting the documents")
    ingest(options.config, data_dir)
    return Part(tuple(_engines(options, data_dir)))


def _engines(options: Options, data_dir: Path) -> list[Figure]:
    plain = {"device": "cpu", "precision": "fp32"}
    settings = options.settings.embedder.model_copy(update=plain)
    default = settings.model_copy(update={"engine": "sentence-transformers", "batch_size": DEFAULT_BATCH})
    engines: dict[str, Embedder] = {
        ENCODE: open_embedder(default),
        FP32: exported(settings.model_copy(update={"engine": "onnx"}), data_dir),
        INT8: exported(settings.model_copy(update={"engine": "onnx", "precision": "int8"}), data_dir),
    }
    reference = engines[ENCODE]
    texts = _chunks(data_dir, reference)
    vectors: dict[str, Vectors] = {name: engine.embed_documents(texts[:8]) for name, engine in engines.items()}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(ROUNDS):
        for name, engine in engines.items():
            options.say(f"embedding {len(texts)} chunks with {name}, {turn + 1} of {ROUNDS}")
            began = time.perf_counter()
            vectors[name] = engine.embed_documents(texts)
            seconds[name].append(time.perf_counter() - began)
    longest = reference.max_tokens
    tokens = mean(min(longest, reference.count_tokens(text) + reference.special_tokens) for text in texts)
    data = f"{len(texts)} chunks of {options.config.stem}, {tokens:.0f} tokens on the average; median of {ROUNDS} turns"
    figures = [Figure(PART, f"chunks, {name}", len(texts) / median(took), "/s", data) for name, took in seconds.items()]
    aims = {FP32: Aim(1.55, at_least=True), INT8: Aim(2.3, at_least=True)}
    for name, aim in aims.items():
        ratio = median(base / took for base, took in zip(seconds[ENCODE], seconds[name], strict=True))
        figures.append(Figure(PART, f"{name} / {ENCODE}", ratio, "x", data, aim))
    exact = vectors[ENCODE]
    least = float((exact * vectors[FP32]).sum(axis=1).min())
    figures.append(Figure(PART, f"{FP32}, least cosine to the same", least, "cosine", data, Aim(0.99999, at_least=True)))
    return [*figures, *_loss(exact, vectors[INT8], data), _end_to_end(options, engines[FP32], texts)]


def _loss(exact: Vectors, other: Vectors, data: str) -> list[Figure]:
    loss = loss_of(exact, other)
    return [
        Figure(PART, f"{INT8}, mean cosine to the same", loss["mean_cosine"], "", data),
        Figure(PART, f"{INT8}, least cosine to the same", loss["least_cosine"], "", data),
        Figure(PART, f"{INT8}, of each chunk's ten nearest the same", 100 * loss["top_10_overlap"], "%", data),
    ]


def _end_to_end(options: Options, engine: Embedder, texts: Sequence[str]) -> Figure:
    """The whole job over Markdown files, each time beside the embedding of its chunks alone, in this process."""
    folder = options.scratch / "markdown"
    folder.mkdir()
    for number, text in enumerate(texts):
        heading, _, rest = text.partition("\n")
        (folder / f"{number}.md").write_text(f"# {heading}\n\n{rest}\n", encoding="utf-8")
    # The configuration's gate and webhook are about the organisation's own documents.
    own = {"sources": (SourceSettings(path=folder),), "gate": GateSettings(), "ingest": IngestSettings()}
    ratios = []
    for turn in range(ROUNDS):
        options.say(f"ingesting them as Markdown, and embedding them alone, {turn + 1} of {ROUNDS}")
        data_dir = options.scratch / f"end-to-end-{turn}"
        report = run(options.job.model_copy(update={**own, "data_dir": data_dir}), embedder=engine)
        inputs = [text for document in _inputs(data_dir) for text in document]
        began = time.perf_counter()
        engine.embed_documents(inputs)
        ratios.append(report.took_s / (time.perf_counter() - began))
    data = f"{len(texts)} Markdown files, {len(inputs)} chunks; median of {ROUNDS} turns"
    return Figure(PART, f"ingest / its embedding alone, {FP32}", median(ratios), "x", data, Aim(1.15))


def _inputs(data_dir: Path) -> Iterator[list[str]]:
    """What was embedded of each document."""
    snapshot, _ = open_current(data_dir, SearchSettings())
    try:
        for document, passages in snapshot.store.stored.documents_with_passages():
            yield [embedder_input(document.title, passage.heading, passage.text) for passage in passages]
    finally:
        snapshot.close()


def _chunks(data_dir: Path, reference: Embedder) -> list[str]:
    """Texts as long as the chunks of long documents: from each chunk of the sample on, its neighbours in the document.

    Raises: BenchError where the sample holds none.
    """
    texts = []
    for inputs in _inputs(data_dir):
        tokens = [reference.count_tokens(text) for text in inputs]
        for begin in range(len(inputs)):
            end = begin + 1
            while end < len(inputs) and sum(tokens[begin:end]) < ENOUGH_TOKENS:
                end += 1
            texts.append("\n".join(inputs[begin:end]))
    if not texts:
        raise BenchError("the sample holds no chunk, so there is nothing to embed; name another with --config")
    return texts
