"""An exported model: `data/models/<id>/` holds its graph, its tokenizer and model.json. Imports no model library.

The id is the hash of model.json, which has the hashes of the other files: whoever names a graph names every bit of it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from corpus.disk import sync, writing
from corpus.embedders.weights import file_sha256
from corpus.errors import ModelDamaged, ModelNotFound
from corpus.settings import EmbedderSettings

FORMAT = 1
ABOUT, GRAPH, TOKENIZER = "model.json", "model.onnx", "tokenizer.json"
BUILDING = ".building-"
ID_CHARS = 32


@dataclass(frozen=True, slots=True)
class About:
    """What model.json says of a graph.

    `max_tokens` counts special tokens; `max_tokens_set` is the setting, None where it was left to the model. `checked` is how
    near its vectors came to the reference when it was made, `loss` what they lost against fp32; `files` maps names to SHA-256.
    """

    format: int
    model: str
    fingerprint: str
    precision: str
    dimension: int
    max_tokens: int
    max_tokens_set: int | None
    special_tokens: int
    padding_id: int
    modules: tuple[str, ...]
    query_prompt: str
    document_prompt: str
    made_with: Mapping[str, str]
    checked: Mapping[str, float]
    loss: Mapping[str, float] | None = None
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """An exported model on disk."""

    graph_id: str
    folder: Path
    about: About

    def check(self) -> None:
        """Raises: ModelDamaged where a file is not the one that was exported."""
        for name, expected in self.about.files.items():
            try:
                found = file_sha256(self.folder / name)
            except OSError as error:
                raise self.damaged(f"{name} cannot be read ({type(error).__name__})") from error
            if found != expected:
                raise self.damaged(f"{name} is not the file that was exported")

    @property
    def is_whole(self) -> bool:
        """Whether every file is the one that was exported."""
        try:
            self.check()
        except ModelDamaged:
            return False
        return True

    def damaged(self, reason: str) -> ModelDamaged:
        """The error for a graph that cannot be used."""
        return ModelDamaged(
            f"the exported model {str(self.folder)!r} is damaged: {reason}; run `archivist ingest`, which exports it again"
        )

    def fits(self, settings: EmbedderSettings) -> bool:
        """Whether it was exported under these settings. The weights are not looked at: they need not be here."""
        about = self.about
        return (about.model, about.precision, about.max_tokens_set, about.query_prompt, about.document_prompt) == (
            settings.model, settings.precision, settings.max_tokens, settings.query_prompt, settings.document_prompt,
        )  # fmt: skip


def read_graph(models: Path, graph_id: str) -> Graph:
    """A graph by its id; its files are checked when it is opened.

    Raises: ModelNotFound; ModelDamaged where model.json is not the one that the id was made from.
    """
    folder = models / graph_id
    try:
        content = (folder / ABOUT).read_bytes()
    except OSError as error:
        raise ModelNotFound(
            f"no exported model {str(folder)!r} ({type(error).__name__}); run `archivist ingest`, which exports it"
        ) from error
    if _id_of(content) != graph_id:
        raise ModelDamaged(f"the exported model {str(folder)!r} is damaged: {ABOUT} was changed; run `archivist ingest`")
    data: dict[str, Any] = json.loads(content)
    known = {each.name for each in fields(About)}
    if data.get("format") != FORMAT or not data.keys() <= known:
        raise ModelDamaged(
            f"the exported model {str(folder)!r} has format {data.get('format')!r}, this version reads {FORMAT}; "
            "run `archivist ingest` with this version"
        )
    return Graph(graph_id, folder, About(**{**data, "modules": tuple(data["modules"])}))


def graphs(models: Path) -> Iterator[Graph]:
    """The graphs that there are, the newest first; damaged ones are passed over."""
    folders = [path for path in models.iterdir() if len(path.name) == ID_CHARS] if models.is_dir() else []
    for folder in sorted(folders, key=lambda path: (-path.stat().st_mtime, path.name)):
        try:
            yield read_graph(models, folder.name)
        except (ModelNotFound, ModelDamaged):
            continue


def write_graph(models: Path, files: Path, about: About) -> Graph:
    """Make a folder of files, complete but for model.json, a graph that can be found: at once, or not at all.

    `files` is a folder that `building` made. One that is there under the same id is replaced. Raises: NotWritten.
    """
    content = json.dumps(asdict(about), indent=1, ensure_ascii=False).encode() + b"\n"
    graph = Graph(_id_of(content), models / _id_of(content), about)
    with writing(graph.folder):
        (files / ABOUT).write_bytes(content)
        for path in files.iterdir():
            sync(path)
        sync(files)
        if graph.folder.exists():
            graph.folder.rename(models / f"{BUILDING}{secrets.token_hex(4)}")
        files.rename(graph.folder)
        sync(models)
        remove_unfinished(models)
    return graph


def building(models: Path) -> Path:
    """A new folder beside the graphs, for the files of one that is being made."""
    folder = models / f"{BUILDING}{secrets.token_hex(4)}"
    with writing(folder):
        folder.mkdir(parents=True)
    return folder


def remove_unfinished(models: Path) -> None:
    """Remove what an export that was cut short left. The caller holds the job's lock."""
    for left in models.glob(f"{BUILDING}*"):
        shutil.rmtree(left)


def remove_graphs(models: Path, named: Collection[str | None]) -> list[str]:
    """Remove the graphs that nobody names; their ids. The caller holds the job's lock."""
    folders = [path for path in models.iterdir() if len(path.name) == ID_CHARS] if models.is_dir() else []
    unnamed = sorted(path for path in folders if path.name not in named)
    for folder in unnamed:
        shutil.rmtree(folder)
    return [folder.name for folder in unnamed]


def _id_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:ID_CHARS]
