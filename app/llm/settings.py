"""What the gateway is told: providers, routes, prices, budgets. Frozen sections of the configuration under `llm`."""

from __future__ import annotations

import json
import re
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from app.llm.patterns import Pattern
from app.loopback import is_loopback_host
from corpus.settings import Settings

EXTRACTIVE = "extractive"
"""The built-in backend's name, in configuration and requests."""

FIXED = "fixed"
"""Who answers, in responses, where a rule has a fixed answer. It rests on no document, so no provider may have the name."""

Kind = Literal["openai", "anthropic", "google", "llamacpp"]

LLAMACPP_CONTEXT_TOKENS = 4096
"""What a llamacpp provider's context is made, where nothing is said of it."""

_LIKE_A_KEY = re.compile(r"(?<![A-Za-z])sk-|.{41}", re.IGNORECASE | re.DOTALL)
"""Many providers' keys begin with sk-, and names are shorter than keys."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Source: RFC 9110, section 5.6.2, token."""

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Source: POSIX.1-2024, XBD 3.216, Name."""

_NOT_OURS_TO_SET = frozenset(
    {"connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
"""Headers that say how a call is sent, which is not for the configuration to decide."""

_JSON_DEPTH = 20
"""So many steps into a body an error leads, at most: YAML can make one that holds itself."""

_ONLY_LLAMACPP = ("model_path", "chat_template", "threads")
_ONLY_OPENAI = ("max_tokens_field", "stream_usage", "system_role")
_ONLY_REMOTE = ("key_header", "query", "headers", "ca_file", "proxy")


def shown_name(name: str) -> str:
    """A name out of the configuration, for an error; not one that may be a key that was put in the wrong place."""
    return "(not shown: is it a key?)" if _LIKE_A_KEY.search(name) else name


class ProviderSettings(Settings):
    """One LLM provider and model."""

    kind: Kind = Field(
        default="openai",
        description="The wire format: openai = Chat Completions, anthropic = Messages, google = Gemini generateContent; "
        "llamacpp = a GGUF file run by the service itself (extra `local`).",
    )
    base_url: str = Field(
        default="",
        description="The address up to and without the format's own path, such as http://127.0.0.1:11434/v1; "
        "left out for llamacpp.",
    )
    model: str = Field(description="The model's name, as the provider spells it; for llamacpp a name of your own.")
    clearance: str | None = Field(
        default=None, description="The highest label it may see. Must be given unless base_url is on this machine."
    )
    api_key: SecretStr | None = Field(default=None, description="The key itself; better: api_key_env or api_key_file.")
    api_key_env: str | None = Field(default=None, description="Name of the environment variable that holds the key.")
    api_key_file: Path | None = Field(default=None, description="File that holds the key.")
    key_header: str = Field(
        default="",
        description="Header that carries the bare key, such as api-key for Azure; empty = the format's own "
        "(Authorization: Bearer, x-api-key, x-goog-api-key).",
    )
    query: dict[str, str] = Field(
        default_factory=dict, description="Query parameters of each call, such as api-version for Azure."
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Further headers of each call; shown as secrets.")
    body: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of each call's JSON body; they win over ours, and null takes one of ours out.",
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Sampling temperature; empty = not sent, which some models insist on."
    )
    system_role: Literal["system", "developer", "user"] = Field(
        default="system",
        description="Role of the instructions (openai); user = put before the first question, for models without one.",
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens",
        description="What the provider calls the limit of an answer (openai); OpenAI's newer models want the second.",
    )
    stream_usage: bool = Field(
        default=True, description="Whether token counts are asked for (openai's stream_options); off = they are estimated."
    )
    context_tokens: int | None = Field(
        default=None, ge=256, description="Tokens of the model's context; for llamacpp it is made so large (empty = 4096)."
    )
    model_path: Path | None = Field(default=None, description="The GGUF file (llamacpp).")
    chat_template: Path | None = Field(default=None, description="A Jinja chat template; empty = the file's own (llamacpp).")
    threads: int | None = Field(default=None, ge=1, description="Threads that compute; empty = one a core (llamacpp).")
    ca_file: Path | None = Field(
        default=None, description="Certificates (PEM) that vouch for a private address; empty = the usual authorities."
    )
    proxy: str | None = Field(default=None, description="http:// proxy for this provider; the environment's are never used.")
    connect_timeout_s: float = Field(default=5, gt=0, description="Seconds to wait for a connection.")
    first_token_timeout_s: float = Field(default=60, gt=0, description="Seconds to wait for the first token.")
    between_tokens_timeout_s: float = Field(default=30, gt=0, description="Seconds to wait for each further token.")
    total_timeout_s: float = Field(default=300, gt=0, description="Seconds a whole answer may take.")
    retries: int = Field(
        default=1,
        ge=0,
        le=5,
        description="Further tries after a refused connection, a 429 or a 5xx; never after a word.",
    )
    max_concurrent: int = Field(
        default=16, ge=1, description="Calls at a time; for llamacpp 1 unless given: each needs memory for a context."
    )
    max_queued: int = Field(default=64, ge=0, description="Calls that wait for a place; more are refused with 429.")
    queue_timeout_s: float = Field(default=30, gt=0, description="Seconds a call waits for a place.")
    breaker_failures: int = Field(
        default=5, ge=1, description="Failures in a row after which the provider is left alone for breaker_open_s."
    )
    breaker_open_s: float = Field(default=15, gt=0, description="Seconds until one call tries a provider that was left alone.")

    @field_validator("base_url", "proxy")
    @classmethod
    def _is_http(cls, url: str | None) -> str | None:
        if not url:
            return url
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise ValueError("is not a URL; check its host and its port") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must begin with http:// or https:// and name a host")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must not carry a user, a password, a query or a fragment (see api_key, query)")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_variables_name(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE_NAME.fullmatch(name):  # not repeated: it is most likely the key itself
            raise ValueError(
                "must be the name of an environment variable, such as ACME_API_KEY, and not the key; "
                "put the key into that variable"
            )
        return name

    @field_validator("body")
    @classmethod
    def _is_json(cls, body: dict[str, Any]) -> dict[str, Any]:
        path = _what_json_cannot_hold(body)
        if path is not None:
            raise ValueError(
                f"body{path} is nothing that JSON can hold; put a date in quotes, and give numbers that are finite"
            )
        return body

    @model_validator(mode="after")
    def _headers_have_names(self) -> ProviderSettings:
        for key, name in (("key_header", self.key_header), *(("headers", name) for name in self.headers)):
            if (name or key == "headers") and not _HEADER_NAME.fullmatch(name):  # not repeated: a key may stand there
                raise ValueError(f"{key} holds something that is not a header's name; give the name alone, such as api-key")
            closes = name.lower() == "connection" and key == "headers" and self._value_of(name) == "close"
            if name.lower() in _NOT_OURS_TO_SET and not closes:
                raise ValueError(f"{key} may not set {name!r}, which belongs to the connection; take it out")
        if self.key_header and self.api_key is None and self.api_key_env is None and self.api_key_file is None:
            raise ValueError("key_header has no key to carry; add api_key_env or api_key_file")
        return self

    def _value_of(self, header: str) -> str:
        return self.headers[header].get_secret_value().strip().lower()

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ProviderSettings:
        local_model = self.kind == "llamacpp"
        if local_model and (self.model_path is None or self.base_url):
            raise ValueError("kind llamacpp needs model_path, a GGUF file, and no base_url: the service runs it itself")
        if not local_model and not self.base_url:
            raise ValueError(f"base_url is missing; kind {self.kind} is called at an address")
        foreign = (_ONLY_REMOTE if local_model else _ONLY_LLAMACPP) + (
            () if self.kind in ("openai", "llamacpp") else _ONLY_OPENAI
        )
        set_keys = [key for key in foreign if key in self.model_fields_set]
        if set_keys:
            raise ValueError(f"{set_keys[0]} means nothing for kind {self.kind}; take it out")
        path = urlsplit(self.base_url).path
        for ending in ("/chat/completions", "/messages", "/models"):
            if path.endswith(ending):
                raise ValueError(f"base_url must end before {ending!r}, which is added to it")
        segments = [segment for segment in path.split("/") if segment]
        half = len(segments) // 2
        is_doubled = half > 0 and segments[:half] == segments[half:]
        if is_doubled or any(first == second for first, second in pairwise(segments)):
            raise ValueError(f"base_url has a part of its path twice: {path!r}; write it once")
        if self.proxy is not None and self.is_local:
            raise ValueError("proxy would carry calls to this machine away from it; take it out")
        return self

    @property
    def is_local(self) -> bool:
        """Whether what it is sent stays on this machine: a literal loopback address, localhost, or a file run here."""
        return self.kind == "llamacpp" or is_loopback_host(urlsplit(self.base_url).hostname or "")

    @property
    def context(self) -> int | None:
        """Tokens of the model's context, as far as is known."""
        return LLAMACPP_CONTEXT_TOKENS if self.kind == "llamacpp" and self.context_tokens is None else self.context_tokens

    @property
    def most_tokens_in_body(self) -> int:
        """The limit of an answer that `body` sets in place of ours; 0 where it sets none."""
        inner = self.body.get("generationConfig")
        given = [
            self.body.get("max_tokens"),
            self.body.get("max_completion_tokens"),
            inner.get("maxOutputTokens") if isinstance(inner, dict) else None,
        ]
        return max((value for value in given if isinstance(value, int)), default=0)

    @property
    def concurrency(self) -> int:
        """Calls at a time. Each takes memory for a whole context where the service runs the model: one, unless it is said."""
        return 1 if self.kind == "llamacpp" and "max_concurrent" not in self.model_fields_set else self.max_concurrent


def _what_json_cannot_hold(body: object) -> str | None:
    """Where in a body it stands, such as `.extra.until`; None where all of it is JSON."""
    if _can_be_json(body):
        return None
    path = ""
    for _ in range(_JSON_DEPTH):
        parts = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
        wrong = next(((key, part) for key, part in parts if not _can_be_json(part)), None)
        if wrong is None:
            break
        path, body = f"{path}.{shown_name(str(wrong[0]))}", wrong[1]
    return path


def _can_be_json(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


class ConditionSettings(Settings):
    """When a route is taken: all that is given must hold; nothing given = always."""

    exact: tuple[str, ...] = Field(
        default=(), description="The question is one of these; case, spaces and punctuation at the end do not count."
    )
    matches: str = Field(default="", description="An RE2 pattern found anywhere in the question, whatever its case.")
    languages: tuple[str, ...] = Field(default=(), description="Languages the question is in, such as de (ISO 639-1).")
    labels: tuple[str, ...] = Field(default=(), description="The highest label of the prompt is one of these.")
    min_words: int | None = Field(default=None, ge=0, description="Words of the question, at least.")
    max_words: int | None = Field(default=None, ge=0, description="Words of the question, at most.")
    min_turn: int | None = Field(default=None, ge=1, description="Turn of the conversation, at least; 1 = its first question.")
    max_turn: int | None = Field(default=None, ge=1, description="Turn of the conversation, at most.")
    min_nearness: float | None = Field(
        default=None, ge=-1, le=1, description="Cosine of the question and the nearest passage, at least."
    )
    max_nearness: float | None = Field(default=None, ge=-1, le=1, description="The same, at most: retrieval is weak.")
    min_coverage: float | None = Field(
        default=None, ge=0, le=1, description="Share of the question's words, by rarity, that the passages hold, at least."
    )
    max_coverage: float | None = Field(default=None, ge=0, le=1, description="The same, at most.")


class RouteSettings(Settings):
    """One rule: who answers which questions. The first that holds is taken; where none does, `default` and `fallbacks`."""

    name: str = Field(min_length=1, max_length=60, description="Named in every answer that takes it.")
    when: ConditionSettings = Field(default_factory=ConditionSettings, description="When it is taken.")
    providers: tuple[str, ...] = Field(default=(), description="Providers in the order they are tried.")
    answer: str = Field(default="", description="A fixed answer instead; nobody is asked.")

    @model_validator(mode="after")
    def _leads_somewhere(self) -> RouteSettings:
        if bool(self.providers) == bool(self.answer):
            raise ValueError(f"route {self.name!r} needs either providers or a fixed answer")
        return self

    @model_validator(mode="after")
    def _can_be_taken(self) -> RouteSettings:
        when = self.when
        bounds = {
            "words": (when.min_words, when.max_words),
            "turn": (when.min_turn, when.max_turn),
            "nearness": (when.min_nearness, when.max_nearness),
            "coverage": (when.min_coverage, when.max_coverage),
        }
        for what, (least, most) in bounds.items():
            if least is not None and most is not None and least > most:
                raise ValueError(f"route {self.name!r} is never taken: min_{what} {least} is more than max_{what} {most}")
        if when.matches:
            try:
                Pattern(when.matches)
            except ValueError as error:
                raise ValueError(f"route {self.name!r}: matches {error}") from error
        return self


class PriceSettings(Settings):
    """What a model costs, in US dollars per million tokens."""

    input_usd: float = Field(ge=0, description="Per million tokens of the prompt.")
    output_usd: float = Field(ge=0, description="Per million tokens of the answer.")
    cached_input_usd: float | None = Field(
        default=None, ge=0, description="Per million tokens of the prompt that the provider had cached; empty = input_usd."
    )
    as_of: date = Field(description="The day on which this was looked up.")

    @model_validator(mode="after")
    def _cache_is_no_dearer(self) -> PriceSettings:
        if self.cached_input_usd is not None and self.cached_input_usd > self.input_usd:
            raise ValueError("cached_input_usd is more than input_usd; were they swapped?")
        return self


class BudgetSettings(Settings):
    """How much may be spent in a day (UTC)."""

    name: str = Field(min_length=1, max_length=60, description="Named in logs, metrics and answers.")
    per: Literal["service", "caller"] = Field(default="service", description="Whether all callers share it, or each has one.")
    max_usd: float | None = Field(default=None, gt=0, description="US dollars a day; give this or max_tokens.")
    max_tokens: int | None = Field(default=None, gt=0, description="Tokens a day, prompts and answers together.")
    warn_at: float = Field(default=0.8, gt=0, le=1, description="Share of it from which a warning is given.")
    then: tuple[str, ...] = Field(
        default=(), description="Providers used once it is spent, in order; may be extractive; empty = refused with 429."
    )

    @model_validator(mode="after")
    def _counts_one_thing(self) -> BudgetSettings:
        if (self.max_usd is None) == (self.max_tokens is None):
            raise ValueError(f"budget {self.name!r} needs either max_usd or max_tokens")
        return self


class LlmSettings(Settings):
    """Who writes the answers."""

    default: str = Field(
        default=EXTRACTIVE, description="`extractive` (built in, quotes the documents) or a name under providers."
    )
    fallbacks: tuple[str, ...] = Field(
        default=(), description="Providers tried in this order where the default one fails, is full or is not cleared."
    )
    providers: dict[str, ProviderSettings] = Field(default_factory=dict, description="LLM providers by name.")
    extractive_fallback: bool = Field(
        default=True,
        description="Whether the extractive backend answers where no provider may see the passages or all of them fail.",
    )
    caller_may_choose: bool = Field(default=True, description="Whether a request's `provider` is obeyed.")
    answer_within_s: float = Field(
        default=300, gt=0, description="Seconds for one answer with all its waiting, retries and fallbacks."
    )
    routes: tuple[RouteSettings, ...] = Field(default=(), description="Who answers which questions; the first that holds.")
    prices: dict[str, PriceSettings] = Field(
        default_factory=dict, description="Prices by provider's name, or by model's name for all that have it."
    )
    budgets: tuple[BudgetSettings, ...] = Field(default=(), description="What may be spent in a day.")

    @model_validator(mode="after")
    def _names_exist(self) -> LlmSettings:
        for name in (EXTRACTIVE, FIXED):
            if name in self.providers:
                raise ValueError(f"llm.providers may not redefine {name!r}, which is built in; choose another name")
        self._require("llm.default", (self.default,))
        self._require("llm.fallbacks", self.fallbacks)
        for what, sections in (("routes", self.routes), ("budgets", self.budgets)):
            names = [section.name for section in sections]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"llm.{what}: two are called {twice[0]!r}; give each its own name")
        for route in self.routes:
            self._require(f"llm.routes {route.name!r}: providers", route.providers)
        for budget in self.budgets:
            self._require(f"llm.budgets {budget.name!r}: then", budget.then)
        return self

    @model_validator(mode="after")
    def _money_needs_prices(self) -> LlmSettings:
        counted = next((budget.name for budget in self.budgets if budget.max_usd is not None), None)
        for name, provider in self.providers.items():
            known = provider.is_local or name in self.prices or provider.model in self.prices
            if counted is not None and not known:
                raise ValueError(
                    f"llm.budgets {counted!r} counts money, and provider {name!r} has no price; add it to llm.prices "
                    f"as {provider.model!r}, or count tokens"
                )
        for name in self.prices:
            if name not in self.providers and all(name != provider.model for provider in self.providers.values()):
                raise ValueError(f"llm.prices {name!r} is neither a provider nor the model of one; check its spelling")
        return self

    def _require(self, where: str, chain: tuple[str, ...]) -> None:
        for name in chain:
            if name != EXTRACTIVE and name not in self.providers:
                known = ", ".join([EXTRACTIVE, *self.providers])
                raise ValueError(f"{where} {name!r} is not a provider; known: {known}")
        if EXTRACTIVE in chain[:-1]:
            raise ValueError(f"{where}: nothing comes after 'extractive', which never fails; put it last")
        if len(set(chain)) != len(chain):
            raise ValueError(f"{where} names a provider twice: {', '.join(chain)}")

    @property
    def chain(self) -> tuple[str, ...]:
        """Who is tried where no route says otherwise."""
        return (self.default, *(name for name in self.fallbacks if name != self.default))
