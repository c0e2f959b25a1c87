"""The configuration as documents: the reference page and the default file, both made from the settings' own descriptions."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.settings import LIVE, ServiceSettings
from archivist.settings import PREFIX, Settings
from ingest.settings import JobSettings

TYPE_NAMES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "Path": "path",
    "date": "date",
    "SecretStr": "secret",
    "Any": "anything",
}
PLAIN_SCALAR = re.compile(r"[A-Za-z0-9._-]+")

PROVIDERS = """\
  providers:                      # LLM providers by name; choose one with `default` or ARCHIVIST_LLM__DEFAULT
    ollama:                       # on this machine: may see every label
      kind: openai
      base_url: http://127.0.0.1:11434/v1
      model: llama3.2
    openai:                       # elsewhere: must state the highest label it may see
      kind: openai
      base_url: https://api.openai.com/v1
      model: gpt-6-luna
      max_tokens_field: max_completion_tokens
      body: {reasoning_effort: none} # further fields of each call; without this one the model thinks before it answers
      api_key_env: OPENAI_API_KEY
      clearance: internal
"""

ROUTES = """\
  routes: []                      # who answers which questions; the first rule that holds is taken; a rule looks like this:
#    - name: greeting
#      when: {exact: [hello, good morning]} # all conditions given must hold
#      answer: Good morning. What would you like to know? # a fixed answer, or providers
#    - name: weak retrieval
#      when: {max_nearness: 0.45}
#      providers: [openai, ollama] # tried in this order
"""

PRICES = """\
  prices: {}                      # US dollars per million tokens, by provider's name or by model's; a price looks like this:
#    gpt-6-luna: {input_usd: 0.10, cached_input_usd: 0.01, output_usd: 0.50, as_of: 2026-11-23}
"""

BUDGETS = """\
  budgets: []                     # what may be spent in a day (UTC); a budget looks like this:
#    - name: all
#      max_usd: 5                 # or max_tokens
#      then: [ollama]             # who answers once it is spent; left out: calls are refused with 429
#    - name: each
#      per: caller
#      max_tokens: 200000
"""

SAMPLES = {"providers": PROVIDERS, "routes": ROUTES, "prices": PRICES, "budgets": BUDGETS}
"""Keys whose line in the default file is followed by samples."""

SOURCES = """\
sources: []                       # what the job reads; a source looks like this:
#  - path: /srv/documents         # a folder or one file
#    name: documents              # short and stable: part of every document's id
#    groups: [everyone]           # who may see the documents
#    label: internal              # how confidential they are
#    rules:                       # what differs for some of the files (groups, label, title, language, valid_from,
#      - match: "management/**"   # valid_until); the last match wins, key by key
#        groups: [management]
#  - name: intranet               # pages, fetched by every run
#    urls: [https://intranet.example/handbook.html]
#    urls_file: /srv/urls.txt     # and, or instead, one address a line
#    allow_networks: [10.20.0.0/16] # addresses that are not public and may be fetched from
"""


def _sections(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, type[BaseModel] | None]]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
        yield name, field, section


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The section that a key holds: itself, in a list or by name."""
    for argument in (annotation, *get_args(annotation)):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument
    return None


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in get_args(annotation) if part is not type(None))
    if origin is tuple:
        return f"list of {_type_name(get_args(annotation)[0])}"
    if origin is dict:
        return f"mapping of names to {_type_name(get_args(annotation)[1])}"
    if str(annotation).startswith("typing.Literal"):
        return ", ".join(str(value) for value in get_args(annotation))
    name = getattr(annotation, "__name__", str(annotation))
    return TYPE_NAMES.get(name, name.removesuffix("Settings").lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "empty"
    if isinstance(value, BaseModel):
        return "{}"
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def as_yaml(settings: Settings) -> str:
    """The settings in force as YAML, secrets as asterisks."""
    return yaml.safe_dump(_plain(settings), sort_keys=False, allow_unicode=True, width=120)


def default_yaml() -> str:
    """The default configuration file: every key with its default and one comment line."""
    lines = [
        "# Archivist's configuration: every key with its default. Paths are taken from the folder the command runs in.",
        f"# Every key can be set by the environment: {PREFIX}LLM__DEFAULT=ollama, {PREFIX}SERVER__PORT=9000.",
        "",
    ]
    for name, field, section in _sections(Settings):
        if name == "sources":
            lines += ["", *SOURCES.rstrip().split("\n")]
            continue
        if section is None:
            lines.append(_yaml_line(name, field, 0))
            continue
        lines += ["", f"{name}:" + f"  # {field.description}".rjust(0)]
        for inner, inner_field, _ in _sections(section):
            sample = SAMPLES.get(inner) if name == "llm" else None
            lines += [_yaml_line(inner, inner_field, 2)] if sample is None else sample.rstrip().split("\n")
    return "\n".join(lines) + "\n"


def _yaml_line(name: str, field: FieldInfo, indent: int) -> str:
    value = "" if _default(field) == "empty" else _default(field)
    # Text that YAML reads as text without quotes stands without them.
    if value.startswith('"') and PLAIN_SCALAR.fullmatch(value[1:-1]):
        value = value[1:-1]
    start = f"{' ' * indent}{name}: {value}".rstrip()
    return f"{start.ljust(33)} # {field.description}"


def as_markdown() -> str:
    """The reference page."""
    lines = [
        "# Configuration",
        "",
        "Made from the settings by `archivist config reference`; do not edit by hand.",
        "",
        "One YAML file (`--config`, `$ARCHIVIST_CONFIG`, `./config/archivist.yaml`, or the packaged default), overridden by "
        f"the environment (`{PREFIX}` and the keys, joined by two underscores: `{PREFIX}LLM__DEFAULT=ollama`), then by flags. "
        "An unknown key is an error. Paths are taken from the folder the command runs in.",
        "",
        "A running service watches the file. "
        f"{_listed([f'`{name}`' for name in LIVE if name != 'embedder'])} take effect with the next request, `embedder` with "
        "the next snapshot; the environment and the flags stay those of the start. A changed file that cannot be used changes "
        "nothing. `archivist config check` says whether it "
        "can, and with `--call` whether each provider answers.",
    ]
    for name, field, section in _sections(Settings):
        inner = section or _inner_model(field.annotation)
        lines += ["", f"## `{name}`", "", str(field.description), "", _when_in_force(name)]
        if inner is None:
            lines += ["", f"Type: {_type_name(field.annotation)}. Default: `{_default(field)}`."]
            continue
        lines += _table(f"{name}[]" if section is None else name, inner)
    return "\n".join(lines) + "\n"


def _when_in_force(name: str) -> str:
    """When a change of a section takes effect, in a sentence."""
    moments = []
    if name in LIVE:
        moments.append("without a restart of the service")
    elif name in ServiceSettings.model_fields:
        moments.append("at the next start of the service")
    if name in JobSettings.model_fields:
        moments.append("at the next run of the job")
    if not moments:
        moments.append("at the next `archivist evaluate`")
    return f"A change takes effect {_listed(moments)}."


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _table(prefix: str, model: type[BaseModel]) -> list[str]:
    lines = ["", "| key | type | default | meaning |", "|---|---|---|---|"]
    nested: list[str] = []
    for name, field, section in _sections(model):
        inner = _inner_model(field.annotation)
        lines.append(f"| `{prefix}.{name}` | {_type_name(field.annotation)} | `{_default(field)}` | {field.description} |")
        if inner is not None:
            mark = "" if section is not None else ".{name}" if get_origin(field.annotation) is dict else "[]"
            nested += _table(f"{prefix}.{name}{mark}", inner)
    return lines + nested
