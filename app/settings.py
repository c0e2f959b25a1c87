"""What the service is told. Frozen sections of the configuration."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from corpus.settings import EmbedderSettings, LabelSettings, SearchSettings, Settings


class ServerSettings(Settings):
    """The HTTP server."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; another than loopback needs api_key.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on.")
    api_key: SecretStr | None = Field(default=None, description="A bearer key that every call must carry; empty = none.")
    groups: tuple[str, ...] = Field(default=("everyone",), description="Groups of whoever calls.")
    allowed_hosts: tuple[str, ...] = Field(
        default=("127.0.0.1", "localhost", "[::1]"), description="Host headers that are answered; `*` = any."
    )
    max_body_bytes: int = Field(default=1_000_000, ge=1_000, description="Largest request body, in bytes.")
    max_question_chars: int = Field(default=8_000, ge=1, description="Longest question, in characters.")
    max_messages: int = Field(default=100, ge=1, description="Most earlier turns in one request.")

    @field_validator("groups")
    @classmethod
    def _somebody_calls(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if not groups or any(not group.strip() for group in groups):
            raise ValueError("groups must name at least one group; a caller without a group sees nothing")
        return groups

    @field_validator("api_key")
    @classmethod
    def _key_is_not_empty(cls, key: SecretStr | None) -> SecretStr | None:
        return key if key is not None and key.get_secret_value() else None

    @model_validator(mode="after")
    def _public_needs_a_key(self) -> ServerSettings:
        if self.api_key is None and not is_loopback_host(self.host):
            raise ValueError(
                f"server.host {self.host!r} is reachable from other machines, so server.api_key must be set "
                "(ARCHIVIST_SERVER__API_KEY); or listen on 127.0.0.1"
            )
        return self


class HistorySettings(Settings):
    """How a conversation is used to understand the last question."""

    strategy: Literal["gated", "last_turn", "llm"] = Field(
        default="gated",
        description="gated = earlier user turns where a question needs them; last_turn = none; llm = a rewrite by the LLM.",
    )
    turns: int = Field(default=2, ge=0, le=20, description="Earlier user turns looked at to find passages.")


class PromptSettings(Settings):
    """How the prompt is built."""

    folder: Path | None = Field(
        default=None, description="Folder with system.txt, passages.txt and rewrite.txt; empty = the packaged ones."
    )
    budget_tokens: int = Field(default=3000, ge=256, description="Tokens of the whole prompt, at most (estimated).")
    answer_tokens: int = Field(default=512, ge=16, description="Tokens of the answer, at most.")


class ProviderSettings(Settings):
    """One LLM provider."""

    kind: Literal["openai"] = Field(default="openai", description="The wire format; openai = Chat Completions.")
    base_url: str = Field(description="The address up to and without /chat/completions, such as http://127.0.0.1:11434/v1.")
    model: str = Field(description="The model's name, as the provider spells it.")
    api_key: SecretStr | None = Field(default=None, description="The key itself; better: api_key_env or api_key_file.")
    api_key_env: str | None = Field(default=None, description="Name of the environment variable that holds the key.")
    api_key_file: Path | None = Field(default=None, description="File that holds the key.")
    clearance: str | None = Field(
        default=None, description="The highest label it may see. Must be given unless base_url is on this machine."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="Sampling temperature; empty = the provider's own.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens",
        description="What the provider calls the limit of an answer; OpenAI's newer models want the second.",
    )
    connect_timeout_s: float = Field(default=5, gt=0, description="Seconds to wait for a connection.")
    first_token_timeout_s: float = Field(default=60, gt=0, description="Seconds to wait for the first token.")
    between_tokens_timeout_s: float = Field(default=30, gt=0, description="Seconds to wait for each further token.")
    total_timeout_s: float = Field(default=300, gt=0, description="Seconds a whole answer may take.")

    @field_validator("base_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url must begin with http:// or https:// and name a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("base_url must not carry a user, a password, a query or a fragment")
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError(f"base_url {url!r} must end before /chat/completions")
        return url.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the address is a literal loopback address or localhost."""
        return is_loopback_host(urlsplit(self.base_url).hostname or "")


class LlmSettings(Settings):
    """Who writes the answers."""

    default: str = Field(
        default="extractive", description="`extractive` (built in, quotes the documents) or a name under providers."
    )
    providers: dict[str, ProviderSettings] = Field(default_factory=dict, description="LLM providers by name.")
    extractive_fallback: bool = Field(
        default=True,
        description="Whether the extractive backend answers where the provider may not see the passages or fails.",
    )
    caller_may_choose: bool = Field(default=True, description="Whether a request's `provider` is obeyed.")

    @model_validator(mode="after")
    def _default_exists(self) -> LlmSettings:
        if "extractive" in self.providers:
            raise ValueError("llm.providers may not redefine 'extractive', which is built in")
        if self.default != "extractive" and self.default not in self.providers:
            known = ", ".join(["extractive", *self.providers])
            raise ValueError(f"llm.default {self.default!r} is not a provider; known: {known}")
        return self


class ServiceSettings(Settings):
    """Everything the service is told."""

    data_dir: Path
    server: ServerSettings
    labels: LabelSettings
    embedder: EmbedderSettings
    search: SearchSettings
    history: HistorySettings
    prompt: PromptSettings
    llm: LlmSettings

    @model_validator(mode="after")
    def _clearances_are_stated(self) -> ServiceSettings:
        for name, provider in self.llm.providers.items():
            if provider.clearance is None and not provider.is_local:
                raise ValueError(
                    f"llm.providers.{name}.clearance is missing: {provider.base_url!r} is not on this machine, so state the "
                    f"highest label it may see, one of {', '.join(self.labels.order)}"
                )
            if provider.clearance is not None and provider.clearance not in self.labels.order:
                raise ValueError(
                    f"llm.providers.{name}.clearance {provider.clearance!r} is not in labels.order {list(self.labels.order)}"
                )
        return self


def is_loopback_host(host: str) -> bool:
    """Whether a host is `localhost` or a literal loopback address. Nothing is resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
