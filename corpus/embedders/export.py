"""Makes a model a graph that runs without torch: traced, fused, compared with the reference, and only then accepted."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.optimizer import optimize_model
from sentence_transformers import SentenceTransformer

from corpus.embedders.graph import FORMAT, GRAPH, TOKENIZER, About, Graph, building, write_graph
from corpus.embedders.loss import cosines, loss_of
from corpus.embedders.onnx import OnnxEmbedder
from corpus.embedders.sentence_transformer import SentenceTransformerEmbedder, load_model
from corpus.embedders.weights import file_sha256, find_model
from corpus.errors import ModelNotExported
from corpus.settings import EmbedderSettings

OPSET = 17
LEAST_COSINE = 0.99999
"""A graph whose vector of any sample is farther from the reference's is not accepted."""

LARGEST_BYTES = 1_900_000_000
"""A graph with its weights is one protobuf, which holds 2 GB at most."""

SAMPLES = (
    "",
    "a",
    "Where do visitors park?",
    "  Spaces before, behind  and\tbetween, and\nlines\r\n",
    "Form TR-204 (see E-4410): 1,240.50 EUR, due 2026-03-31; ask it@example.com or https://example.com/a?b=c#d.",
    "Passwörter haben mindestens vierzehn Zeichen und werden nur geändert, wenn der Verdacht besteht, dass sie bekannt sind.",
    "La oficina de Valencia abre a las ocho de la mañana 😀 y cierra a las siete.",
    "見積書の有効期限は三十日です。 Срок действия договора — один год. סיסמה",
    "UPPER CASE, MiXeD case and lower case are one to some models and three to others.",
    "| Destination | Limit |\n|---|---|\n| North America | 215 USD |\n| Europe | 160 EUR |",
    "Employees may work from home up to three days a week. They agree the days with their team lead. " * 4,
    "Expense reports are due within thirty days of the last day of travel, with every receipt attached. " * 40,
)
"""Short and long, several scripts, what tokenisers differ in, and one that is longer than any maximum here."""


def export_model(settings: EmbedderSettings, models: Path, fingerprint: str, samples: Callable[[], Sequence[str]]) -> Graph:
    """Export the configured model into the folder of models.

    `samples` gives texts of the kind that will be embedded; it is asked where a loss has to be measured.
    Raises: ModelNotExported; ModelNotFound, ModelDamaged, ConfigError as for loading the model.
    """
    exact = settings.model_copy(update={"device": "cpu", "precision": "fp32"})
    reference = SentenceTransformerEmbedder(exact)
    files = building(models)
    try:
        with _quiet():
            about = _export(exact, files, fingerprint, reference)
            if settings.precision == "int8":
                about = _quantise(settings, files, about, [*SAMPLES, *samples()])
    except ModelNotExported:
        raise
    except Exception as error:
        raise ModelNotExported(settings.model, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    else:
        names = {path.name: file_sha256(path) for path in sorted(files.iterdir())}
        return write_graph(models, files, replace(about, files=names))
    finally:
        shutil.rmtree(files, ignore_errors=True)


def _export(settings: EmbedderSettings, files: Path, fingerprint: str, reference: SentenceTransformerEmbedder) -> About:
    """Write graph and tokenizer. Raises: ModelNotExported where the vectors are not the reference's."""
    # The optimiser knows attention by its matrix products, which other implementations hide.
    folder = find_model(settings.model, allow_hub=settings.allow_hub)
    model = load_model(folder, settings, device="cpu", attn_implementation="eager")
    tokenizer = getattr(model.tokenizer, "backend_tokenizer", None)
    if tokenizer is None:
        raise ModelNotExported(settings.model, "its tokenizer is not one of the library `tokenizers`")
    (files / TOKENIZER).write_text(tokenizer.to_str(), encoding="utf-8")
    _trace(model, files / "traced.onnx")
    about = About(
        format=FORMAT,
        model=settings.model,
        fingerprint=fingerprint,
        precision="fp32",
        dimension=reference.dimension,
        max_tokens=reference.max_tokens,
        max_tokens_set=settings.max_tokens,
        special_tokens=reference.special_tokens,
        padding_id=int(model.tokenizer.pad_token_id or 0),
        modules=tuple(type(module).__name__ for module in model),
        query_prompt=settings.query_prompt,
        document_prompt=settings.document_prompt,
        made_with={name: version(name) for name in ("torch", "sentence-transformers", "onnx", "onnxruntime")},
        checked={},
    )
    # A model whose layers the optimiser takes for what they are not is exported as it was traced.
    least = -1.0
    for fused in (True, False):
        _fuse(model, files / "traced.onnx", files / GRAPH) if fused else shutil.copy(files / "traced.onnx", files / GRAPH)
        embedder = OnnxEmbedder(Graph("", files, about), settings, threads=1)
        if any(embedder.count_tokens(text) != reference.count_tokens(text) for text in SAMPLES):
            raise ModelNotExported(settings.model, "its tokenizer counts other tokens once it is written to a file")
        least = min(
            float(cosines(embedder.embed_documents(SAMPLES), reference.embed_documents(SAMPLES)).min()),
            float(cosines(embedder.embed_queries(SAMPLES), reference.embed_queries(SAMPLES)).min()),
        )
        if least >= LEAST_COSINE:
            (files / "traced.onnx").unlink()
            return replace(about, checked={"texts": len(SAMPLES), "least_cosine": least})
    raise ModelNotExported(settings.model, f"the graph's vectors are not the model's (least cosine {least:.6f})")


class _Unit(torch.nn.Module):
    """All of the model's own modules, and unit length, which `encode` sees to outside of them."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        found = self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]
        return torch.nn.functional.normalize(found, p=2, dim=1)


def _trace(model: SentenceTransformer, target: Path) -> None:
    size = sum(weights.numel() for weights in model.parameters()) * 4
    if size > LARGEST_BYTES:
        raise ModelNotExported(model.model_card_data.model_name or "", f"its weights are {size / 1e9:.1f} GB, a graph holds 2")
    # Two texts of several tokens: a trace with one of anything takes the one for a constant.
    tokens = model.tokenizer(["Where do visitors park?", "In the yard."], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask"]
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"embedding": {0: "texts"}}
    with torch.no_grad():
        torch.onnx.export(
            _Unit(model).eval(),
            tuple(tokens[name] for name in names),
            str(target),
            dynamo=False,  # what the newer exporter writes, the optimiser cannot fuse
            opset_version=OPSET,
            input_names=names,
            output_names=["embedding"],
            dynamic_axes=axes,
        )


def _fuse(model: SentenceTransformer, source: Path, target: Path) -> None:
    """Write the graph with attention, GELU and layer norms as one node each."""
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    fused = optimize_model(
        str(source),
        model_type="bert",
        num_heads=int(getattr(config, "num_attention_heads", 0)),
        hidden_size=int(getattr(config, "hidden_size", 0)),
        optimization_options=FusionOptions("bert"),
        opt_level=0,
    )
    fused.save_model_to_file(str(target))


def _quantise(settings: EmbedderSettings, files: Path, about: About, texts: Sequence[str]) -> About:
    """Replace the graph by one of int8 weights, and say what that loses."""
    before = OnnxEmbedder(Graph("", files, about), settings).embed_documents(texts)
    (files / GRAPH).rename(files / "fp32.onnx")
    quantize_dynamic(
        files / "fp32.onnx",
        files / GRAPH,
        per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    (files / "fp32.onnx").unlink()
    about = replace(about, precision="int8")
    after = OnnxEmbedder(Graph("", files, about), settings).embed_documents(texts)
    return replace(about, loss=loss_of(before, after))


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries warn of how they trace and quantise; the comparison with the reference is what decides."""
    handlers = logging.root.handlers[:]
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # `logging.warning` gives a root without handlers one, for good.
    logging.root.addHandler(logging.NullHandler())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers
