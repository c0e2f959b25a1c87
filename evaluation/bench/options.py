"""What the parts are told, and the service over the generated corpus, which most of them measure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.settings import ServiceSettings
from corpus.embedders.embedder import Embedder, Exporting, open_embedder
from corpus.embedders.weights import find_model, fingerprint_of
from corpus.published import MODELS
from corpus.settings import EmbedderSettings
from evaluation.bench.children import RunningService, running_service
from evaluation.bench.figures import BenchError
from evaluation.bench.generated import publish
from ingest.settings import JobSettings

CHUNKS = 10_000
HELD_S = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured and where.

    `scratch` is an empty folder for what is made on the way. `config`, `golden` are the sample corpus'; `data` is the folder of
    a data set, `data_dir` where what was embedded stays for the next time; `real` embeds the generated corpus honestly.
    `held_s` is for how many seconds many streams are held at a time; 0 leaves that out.
    """

    settings: ServiceSettings
    job: JobSettings
    config: Path
    golden: Path
    scratch: Path
    data: Path | None = None
    data_dir: Path | None = None
    real: bool = False
    chunks: int = CHUNKS
    held_s: float = HELD_S
    say: Callable[[str], None] = lambda line: None

    @property
    def key(self) -> str | None:
        """The service's bearer key."""
        key = self.settings.server.api_key
        return None if key is None else key.get_secret_value()

    @property
    def generated(self) -> str:
        """The generated corpus in words."""
        vectors = "embedded" if self.real else "random vectors"
        return f"{self.chunks:,} generated chunks of 120 words, {vectors}"


@contextmanager
def generated_service(options: Options, llm: Mapping[str, Any] | None = None) -> Iterator[RunningService]:
    """The service over the generated corpus, configured as it would be but for `llm`."""
    data_dir = generated_data(options)
    config = options.scratch / "generated.yaml"
    config.write_text(json.dumps(configuration(options.settings, llm)), encoding="utf-8")
    with running_service(config, data_dir, options.key) as service:
        if service.chunks != options.chunks:
            raise BenchError(
                f"the service serves {service.chunks} chunks, not the {options.chunks} generated; unset ARCHIVIST_…"
            )
        yield service


def generated_data(options: Options) -> Path:
    """The data folder of the generated corpus, made when first asked for."""
    kept = options.data_dir is not None and options.real
    data_dir = (options.data_dir if kept and options.data_dir is not None else options.scratch) / f"generated-{options.chunks}"
    if not (data_dir / "CURRENT").exists():
        options.say(f"generating {options.chunks} chunks")
        data_dir.mkdir(parents=True, exist_ok=True)
        publish(data_dir, exported(options.settings.embedder, data_dir), options.chunks, real=options.real)
    return data_dir


def exported(settings: EmbedderSettings, data_dir: Path) -> Embedder:
    """The model as the job opens it: exported into the data folder, where it can be."""
    fingerprint = fingerprint_of(find_model(settings.model, allow_hub=settings.allow_hub), settings)
    return open_embedder(settings, models=data_dir / MODELS, exporting=Exporting(fingerprint))


def configuration(settings: ServiceSettings, llm: Mapping[str, Any] | None) -> dict[str, Any]:
    """The service's settings as a configuration file has them, without sources and with this LLM, if any."""
    sections = {name: getattr(settings, name).model_dump(mode="json") for name in ("embedder", "search", "history", "labels")}
    # The generated texts answer nothing, and what is measured is the way of an answer.
    return {**sections, "answer": {"abstain_below": 0}, "llm": dict(llm or {})}
