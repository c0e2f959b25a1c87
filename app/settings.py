"""What the service is told. Frozen sections of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from app.llm.settings import LlmSettings
from app.loopback import is_loopback_host
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
    max_upload_bytes: int = Field(default=100_000_000, ge=1_000, description="Largest document that is uploaded, in bytes.")
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
        description="gated = earlier user turns where a question needs them; last_turn = none; llm = gated and a rewrite.",
    )
    turns: int = Field(default=2, ge=0, le=20, description="Earlier user turns looked at to find passages.")


class PromptSettings(Settings):
    """How the prompt is built."""

    folder: Path | None = Field(
        default=None, description="Folder with system.txt, passages.txt and rewrite.txt; empty = the packaged ones."
    )
    budget_tokens: int = Field(default=3000, ge=256, description="Tokens of the whole prompt, at most (estimated).")
    answer_tokens: int = Field(default=512, ge=16, description="Tokens of the answer, at most.")
    expand_tokens: int = Field(
        default=0,
        ge=0,
        description="Tokens up to which a passage is filled up with what stands around it in its section, where the budget has "
        "room (estimated); 0 = not at all.",
    )


class AnswerabilityWeights(Settings):
    """How signals make answerability; `archivist evaluate fit-answerability` fits them to your own questions."""

    intercept: float = Field(default=-4.64, description="Log-odds without any signal.")
    lead: float = Field(default=5.35, description="Weight of how far the best passage stands out from the next ones.")
    nearness: float = Field(default=5.1, description="Weight of the cosine of the question by itself and the nearest passage.")


class AnswerSettings(Settings):
    """When there is an answer."""

    abstain_below: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Answerability (0..1) below which no answer is given and no LLM asked; 0 = never. At 0.3 "
        "it refuses 10 % of the sample handbook's questions falsely and 65 % rightly, 4 % and 74 % of those it was fitted to.",
    )
    clarify: bool = Field(
        default=True, description="Whether an underspecified question is answered by a question back, without an LLM."
    )
    weights: AnswerabilityWeights = Field(
        default=AnswerabilityWeights(), description="How signals make answerability, fitted to the default model."
    )


class ConversationSettings(Settings):
    """What stored conversations may be used for."""

    replay: bool = Field(
        default=False,
        description="Whether `archivist evaluate --from-conversations` may ask their questions again: it reads what people "
        "asked, and the LLM gets it once more.",
    )


LIVE = ("labels", "embedder", "search", "history", "prompt", "answer", "llm")
"""Sections that take effect without a restart."""


class ServiceSettings(Settings):
    """Everything the service is told. What LIVE names may change while it runs."""

    data_dir: Path
    server: ServerSettings
    labels: LabelSettings
    embedder: EmbedderSettings
    search: SearchSettings
    history: HistorySettings
    prompt: PromptSettings
    answer: AnswerSettings = AnswerSettings()
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

    @model_validator(mode="after")
    def _routes_name_labels(self) -> ServiceSettings:
        for route in self.llm.routes:
            for label in route.when.labels:
                if label not in self.labels.order:
                    known = ", ".join(self.labels.order)
                    raise ValueError(f"llm.routes {route.name!r}: label {label!r} is not in labels.order; known: {known}")
        return self

    @model_validator(mode="after")
    def _prompts_fit_the_models(self) -> ServiceSettings:
        needed = self.prompt.budget_tokens + self.prompt.answer_tokens
        for name, provider in self.llm.providers.items():
            if provider.context is not None and provider.context < needed:
                raise ValueError(
                    f"llm.providers.{name}.context_tokens {provider.context} is less than prompt.budget_tokens and "
                    f"prompt.answer_tokens together ({needed}); lower those, or give the model more context"
                )
        return self
