"""Runs an exported model on the processor, without torch. The only importer of onnxruntime but for the export."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states
from tokenizers import Tokenizer

from corpus.embedders.graph import GRAPH, TOKENIZER, Graph
from corpus.heap import give_back
from corpus.settings import EmbedderSettings
from corpus.types import Vectors

LOAD_ERRORS = (
    states.Fail, states.InvalidArgument, states.InvalidGraph, states.InvalidProtobuf, states.NoSuchFile, states.NoModel,
    states.NotImplemented, states.RuntimeException, states.EPFail, states.EngineError, states.ModelLoaded,
    states.ModelLoadCanceled, states.ModelRequiresCompilation, states.NotFound, states.DeviceReset,
)  # fmt: skip

INT8_BATCH = 1
"""Dynamic int8 takes one scale for all of a batch, so a text's vector would depend on its neighbours: it is embedded alone."""


class OnnxEmbedder:
    """Batches of texts of similar length, each on one thread of `threads`; None = one for each core of this process.

    More threads for one batch gain less than more batches at once. One session serves them all: what it holds is only read.
    """

    engine = "onnx"

    def __init__(self, graph: Graph, settings: EmbedderSettings, *, threads: int | None = None) -> None:
        """Raises: ModelDamaged."""
        graph.check()
        about = graph.about
        self.model, self.fingerprint, self.dimension = about.model, about.fingerprint, about.dimension
        self.max_tokens, self.special_tokens = about.max_tokens, about.special_tokens
        self.graph: str | None = graph.graph_id
        self._about, self._settings = about, settings
        self._batch_size = INT8_BATCH if about.precision == "int8" else settings.batch_size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # An arena would keep what the longest batch so far took, for good; taking it anew for each costs nothing measurable.
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(str(graph.folder / GRAPH), options, providers=["CPUExecutionProvider"])
        except LOAD_ERRORS as error:
            raise graph.damaged(f"{GRAPH} cannot be loaded: {error}") from error
        self._tokenizer = Tokenizer.from_file(str(graph.folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(about.max_tokens)
        # The model's file was held beside the session while that was made.
        give_back()
        workers = threads if threads is not None else _cores()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="embed") if workers > 1 else None

    def count_tokens(self, text: str) -> int:
        """Tokens of a text without special tokens."""
        counted = self._tokenizer.encode(text, add_special_tokens=False)
        # What truncation cut off. A second tokenizer without it would be as large as the first.
        return len(counted.ids) + sum(len(rest.ids) for rest in counted.overflowing)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length."""
        return self._embed([self._about.document_prompt + text for text in texts])

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Shapes: (len(texts), dimension) float32, rows unit length."""
        return self._embed([self._about.query_prompt + text for text in texts])

    def _embed(self, texts: list[str]) -> Vectors:
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        # The longest first: what the threads end with is then short, and none waits long for another.
        order = sorted(range(len(texts)), key=lambda position: -len(tokens[position]))
        batches = [order[begin : begin + self._batch_size] for begin in range(0, len(order), self._batch_size)]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        run = map if self._threads is None or len(batches) == 1 else self._threads.map
        for batch, found in zip(
            batches, run(self._forward, ([tokens[each] for each in batch] for batch in batches)), strict=True
        ):
            vectors[batch] = found
        return vectors

    def _forward(self, batch: list[list[int]]) -> Vectors:
        """Shapes: (len(batch), dimension); the first text is the longest."""
        shape = (len(batch), len(batch[0]))
        ids: NDArray[np.int64] = np.full(shape, self._about.padding_id, dtype=np.int64)
        mask: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        found: Vectors = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return found


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
