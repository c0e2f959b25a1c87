"""The whole configuration: one YAML file over built-in defaults, then environment, then flags. Read once; frozen.

The only place that reads the environment.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from app.llm.remote import shown_variable
from app.llm.settings import LlmSettings, ProviderSettings, shown_name
from app.settings import (
    AnswerSettings,
    ConversationSettings,
    HistorySettings,
    PromptSettings,
    ServerSettings,
    ServiceSettings,
)
from app.uploads import UPLOADS
from corpus.errors import ConfigError, NotYaml
from corpus.settings import EmbedderSettings, LabelSettings, RetentionSettings, SearchSettings
from corpus.strict_yaml import parse_yaml
from ingest.isolation.settings import IsolationSettings
from ingest.labels import EVERYONE
from ingest.settings import ChunkingSettings, GateSettings, IngestSettings, JobSettings, SourceSettings

PREFIX = "ARCHIVIST_"
CONFIG_VARIABLE = "ARCHIVIST_CONFIG"

PATH_CHARS = 80
"""A longer api_key_file that is not there is not repeated: keys can hold slashes too."""


class Settings(BaseSettings):
    """Every key there is."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", hide_input_in_errors=True
    )

    data_dir: Path = Field(default=Path("data"), description="Folder of snapshots, conversations and the job's work.")
    sources: tuple[SourceSettings, ...] = Field(default=(), description="What the job reads.")
    labels: LabelSettings = Field(default_factory=LabelSettings, description="How confidential a document can be.")
    chunking: ChunkingSettings = Field(default_factory=ChunkingSettings, description="How documents are cut.")
    isolation: IsolationSettings = Field(default_factory=IsolationSettings, description="What reading a file may use.")
    embedder: EmbedderSettings = Field(default_factory=EmbedderSettings, description="The embedding model.")
    ingest: IngestSettings = Field(default_factory=IngestSettings, description="How a run of the job behaves.")
    gate: GateSettings = Field(default_factory=GateSettings, description="What must hold before a snapshot is published.")
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="How long snapshots are kept.")
    search: SearchSettings = Field(default_factory=SearchSettings, description="How passages are found.")
    history: HistorySettings = Field(default_factory=HistorySettings, description="How a conversation is used.")
    prompt: PromptSettings = Field(default_factory=PromptSettings, description="How the prompt is built.")
    answer: AnswerSettings = Field(default_factory=AnswerSettings, description="When there is an answer.")
    llm: LlmSettings = Field(default_factory=LlmSettings, description="Who writes the answers.")
    conversations: ConversationSettings = Field(
        default_factory=ConversationSettings, description="What stored conversations may be used for."
    )
    server: ServerSettings = Field(default_factory=ServerSettings, description="The HTTP server.")

    def service(self) -> ServiceSettings:
        """What the service is told. Raises: ConfigError."""
        folder = self.prompt.folder or packaged_config() / "prompts"
        prompt = self.prompt.model_copy(update={"folder": folder})
        llm = self.llm.model_copy(
            update={"providers": {name: _with_key(name, provider) for name, provider in self.llm.providers.items()}}
        )
        _require_key_of_default(llm)
        try:
            return ServiceSettings(
                data_dir=self.data_dir, server=self.server, labels=self.labels, embedder=self.embedder,
                search=self.search, history=self.history, prompt=prompt, answer=self.answer, llm=llm,
            )  # fmt: skip
        except ValidationError as error:
            raise ConfigError("; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors())) from error

    def job(self) -> JobSettings:
        """What the job is told. Raises: ConfigError."""
        sources = (*self.sources, *self._uploads())
        names = [source.collection for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"two sources are called {twice[0]!r}{_own_name(twice[0])}: it is part of documents' ids")
        for source in self.sources:
            for label in (source.label, *(rule.label for rule in source.rules)):
                if label is not None and label not in self.labels.order:
                    known = ", ".join(self.labels.order)
                    raise ConfigError(f"source {source.collection!r}: label {label!r} is not in labels.order; known: {known}")
        return JobSettings(
            data_dir=self.data_dir, sources=sources, labels=self.labels, embedder=self.embedder,
            chunking=self.chunking, retention=self.retention, search=self.search, gate=self.gate, ingest=self.ingest,
            isolation=self.isolation,
        )  # fmt: skip

    def _uploads(self) -> tuple[SourceSettings, ...]:
        """The source of what was uploaded, where something was. The sidecar beside each file says who may see it."""
        folder = self.data_dir / UPLOADS
        if not folder.is_dir():
            return ()
        return (
            SourceSettings(
                path=folder, name=UPLOADS, exclude=(".*",), groups=(EVERYONE,), label=self.labels.order[0],
                max_file_bytes=self.server.max_upload_bytes,
            ),
        )  # fmt: skip


def _own_name(name: str) -> str:
    if name == UPLOADS:
        return ", which is the name of what was uploaded to the service; give yours another `name`"
    return "; give each its own `name`"


def packaged_config() -> Path:
    """The folder of the default configuration and the prompts: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "config"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "config"


def find_config(config: Path | None) -> Path:
    """The configuration file: the one given, $ARCHIVIST_CONFIG, ./config/archivist.yaml, or the packaged default.

    Raises: ConfigError where a file that was named is not there.
    """
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"no configuration file {str(named)!r}; check --config and ${CONFIG_VARIABLE}")
        return named
    here = Path("config/archivist.yaml")
    return here if here.is_file() else packaged_config() / "archivist.yaml"


def load_settings(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the configuration. `flags` are nested keys that win over everything else.

    Raises: ConfigError that names the file, the key and the nearest known key.
    """
    path = find_config(config)
    values = _read(path)
    _refuse_unknown_variables()

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, values)

    try:
        return FromFile(**(flags or {}))
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    except SettingsError as error:
        raise ConfigError(
            f"{path} or an {PREFIX}… variable: {error}; "
            'in a variable a list or a mapping is written as JSON, such as ["a", "b"]'
        ) from error


def _read(path: Path) -> dict[str, Any]:
    """The keys of a configuration file. Its errors name places and never values: any of them may be a secret."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text in UTF-8 ({type(error).__name__})") from error
    except NotYaml as error:
        where = f" at line {error.place[0]}, column {error.place[1]}" if error.place is not None else ""
        if error.repeated:
            raise ConfigError(f"{path} has a key for the second time{where}; remove one of the two") from error
        advice = (
            "look for a quote, a bracket or an indent there" if where else "look for a date that there is not, or deep nesting"
        )
        raise ConfigError(f"{path} is not valid YAML{where}; {advice}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} must be a mapping of keys, such as `data_dir: data`; see docs/configuration.md")
    return values


def _refuse_unknown_variables() -> None:
    for variable in sorted(os.environ):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        key = variable.removeprefix(PREFIX).split("__")[0].lower()
        if key not in Settings.model_fields:
            raise ConfigError(f"unknown environment variable {variable!r}{_nearest(key, list(Settings.model_fields))}")


def _nearest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _explain(error: ValidationError, path: Path) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        location = ".".join(shown_name(str(part)) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _fields_at(problem["loc"][:-1])
            lines.append(f"unknown key {location!r}{_nearest(str(problem['loc'][-1]), known)}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{location}: {message}" if location else message)
    return f"{path} (with environment and flags): " + "; ".join(lines)


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at a place in the configuration."""
    model: Any = Settings
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[str(part)].annotation
        # A list or a mapping of sections: the section is the last type argument that is a model.
        models = [found for found in get_args(model) if isinstance(found, type) and issubclass(found, BaseModel)]
        model = models[-1] if models else model
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _with_key(name: str, provider: ProviderSettings) -> ProviderSettings:
    """The provider with its key, from the variable or the file that it names; without one where the variable is not set."""
    if provider.api_key is not None:
        return provider
    if provider.api_key_env and os.environ.get(provider.api_key_env):
        return provider.model_copy(update={"api_key": SecretStr(os.environ[provider.api_key_env])})
    if provider.api_key_file:
        try:
            key = provider.api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise ConfigError(
                f"llm.providers.{name}.api_key_file{_shown_file(provider.api_key_file)} cannot be read ({why}); "
                "it must be the path of a file that holds the key"
            ) from error
        return provider.model_copy(update={"api_key": SecretStr(key)})
    return provider


def _shown_file(path: Path) -> str:
    """A path in quotes, for an error; nothing where it may be the key itself."""
    text = str(path)
    is_path = len(text) <= PATH_CHARS and all(shown_name(part) == part for part in path.parts) and len(path.parts) > 1
    return f" {text!r}" if is_path else ""


def _require_key_of_default(llm: LlmSettings) -> None:
    provider = llm.providers.get(llm.default)
    if provider is not None and provider.api_key_env and provider.api_key is None:
        raise ConfigError(
            f"llm.default is {llm.default!r}, and the environment variable {shown_variable(provider.api_key_env)}, which "
            "holds its key, is not set; export it, or choose another llm.default"
        )
