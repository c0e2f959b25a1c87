"""Which room may import which, and which library each module alone may import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("corpus", "ingest", "app", "evaluation", "archivist")
ALLOWED = {
    "corpus": {"corpus"},
    "ingest": {"ingest", "corpus"},
    "app": {"app", "corpus"},
    "evaluation": {"evaluation", "app", "ingest", "corpus"},
    "archivist": set(ROOMS),
}
ONLY = {
    "faiss": {"corpus/dense.py", "corpus/fastscan.py"},
    "tantivy": {"corpus/lexical.py"},
    "torch": {"corpus/embedders/sentence_transformer.py", "corpus/embedders/export.py", "corpus/rerankers/cross_encoder.py"},
    "sentence_transformers": {
        "corpus/embedders/sentence_transformer.py",
        "corpus/embedders/export.py",
        "corpus/rerankers/cross_encoder.py",
    },
    "onnx": {"corpus/embedders/export.py"},
    "onnxruntime": {"corpus/embedders/onnx.py", "corpus/embedders/export.py"},
    "transformers": {"corpus/embedders/sentence_transformer.py"},
    "httpcore": {"corpus/tunnel.py"},
    "certifi": {"corpus/tls.py"},
    "httpx": {"corpus/egress.py", "evaluation/bench/bare.py"},
    "xllamacpp": {"app/llm/llamacpp_child.py"},
    "stamina": {"app/llm/provider.py"},
    "watchfiles": {"app/reload.py"},
    "py3langid": {"corpus/language.py"},
    "re2": {"app/llm/patterns.py"},
    "sqlalchemy": {f"app/state/{name}.py" for name in ("tables", "database", "conversations", "spending", "erasure")},
    "prometheus_client": {"app/metrics.py"},
    "pypdfium2": {"ingest/readers/pdf.py"},
    "docx": {"ingest/readers/docx.py"},
    "pptx": {"ingest/readers/pptx.py"},
    "openpyxl": {"ingest/readers/xlsx.py"},
    "filelock": {"corpus/lock.py"},
    "typer": {
        f"archivist/{name}.py"
        for name in ("cli", "config_check", "documents", "evaluate", "fake_llm", "fit", "runs", "snapshots")
    },
}


def modules() -> list[Path]:
    """Every module of the product."""
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    """A module's path in the repository."""
    return path.relative_to(ROOT).as_posix()


@cache
def imported(path: Path) -> frozenset[str]:
    """The dotted names that a module imports, anywhere in it."""
    return frozenset(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, level=level):
                assert level == 0, f"{name_of(path)} imports relatively; name the module in full"
                assert module is not None
                yield module
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="__import__")):
                raise AssertionError(f"{name_of(path)} imports by a name made at run time")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    """Data flows one way: the job and the service meet in corpus alone."""
    found = {
        (name_of(path), name)
        for path in modules()
        if name_of(path).startswith(f"{room}/")
        for name in imported(path)
        if name.split(".")[0] in ROOMS and name.split(".")[0] not in ALLOWED[room]
    }
    assert found == set()
    assert any(name_of(path).startswith(f"{room}/") for path in modules())


@pytest.mark.parametrize("library", ONLY)
def test_a_library_is_imported_in_its_module_alone(library: str) -> None:
    """What a library raises and needs is known in one place."""
    assert {name_of(path) for path in modules() for name in imported(path) if name.split(".")[0] == library} == ONLY[library]


def test_only_the_settings_read_the_environment() -> None:
    """Everything else is told what it needs."""
    found = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(attr="environ" | "environb" | "getenv" | "putenv"):
                    found.add(name_of(path))
                case ast.ImportFrom(module="os", names=names) if {alias.name for alias in names} & {"environ", "getenv"}:
                    found.add(name_of(path))
    assert found == {"archivist/settings.py"}
