"""What the backends of all wire formats share: key, headers, address, body, the turns of a prompt, the list of models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from app.llm.rejections import Call
from app.llm.settings import ProviderSettings, shown_name
from app.llm.wire import fetch_json
from corpus.egress import Egress
from corpus.errors import BackendMalformed, BackendNotConfigured, BackendRejected
from corpus.types import Message

SECRET_CHARS = 4
"""A header's value that is shorter is no secret, and taking it out of a message would only garble that."""


class HttpBackend:
    """One provider and model at an address; keeps no text. A wire format adds `stream` and sets what differs."""

    key_header = "authorization"
    key_prefix = "Bearer "
    format_headers: tuple[tuple[str, str], ...] = ()
    list_query: tuple[tuple[str, str], ...] = ()

    def __init__(self, provider: str, settings: ProviderSettings, egress: Egress, clearance: str) -> None:
        self.provider, self.model, self.clearance = provider, settings.model, clearance
        self._settings, self._egress = settings, egress

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.provider!r}, model={self.model!r}, base_url={self._settings.base_url!r})"

    @property
    def problem(self) -> str | None:
        """What is missing before it can be called; None if nothing is."""
        return key_problem(self._settings)

    async def close(self) -> None:
        """Nothing to close: the connections belong to the egress."""

    async def models(self) -> frozenset[str] | None:
        """The models that the provider lists; None where it keeps no list. One short call, which costs nothing.

        A name that is not in the list, but that the provider knows when asked for it (an alias, `llama3` for
        `llama3:latest`), is added.
        Raises: a BackendError, EgressRefused.
        """
        listed = await self._get("/models", dict(self.list_query))
        if listed is None:
            return None
        names = _model_names(listed)
        if names is None:
            raise BackendMalformed(self.provider, "sent something that is not a list of models; is base_url right?")
        if self.model not in names:
            try:
                known = await self._get(f"/models/{quote(self.model.removeprefix('models/'), safe='/:@')}", {})
            except (BackendRejected, BackendMalformed):
                known = None
            if _model_names([known]):
                names |= {self.model}
        return frozenset(names)

    async def _get(self, path: str, query: Mapping[str, str]) -> object:
        return await fetch_json(self._egress, self._call(path, query, None))

    def _call(self, path: str, query: Mapping[str, str], payload: Mapping[str, object] | None) -> Call:
        """A request to a path below base_url, with everything that the settings add to it.

        Raises: BackendNotConfigured if the key is missing or cannot be one.
        """
        settings = self._settings
        headers = dict(self.format_headers)
        secrets: list[str] = []
        key = secret_of(self.provider, settings)
        if key is not None:
            secrets.append(key)
            if settings.key_header:
                headers[settings.key_header.lower()] = key
            else:
                headers[self.key_header] = f"{self.key_prefix}{key}"
        for name, hidden in settings.headers.items():
            value = hidden.get_secret_value()
            headers[name.lower()] = value
            # Of "Bearer abc" a provider may repeat "abc" alone.
            secrets += [part for part in {value, value.rpartition(" ")[2]} if len(part) >= SECRET_CHARS]
        asked = {**settings.query, **query}
        return Call(
            provider=self.provider,
            settings=settings,
            url=f"{settings.base_url}{path}{'?' if asked else ''}{urlencode(asked)}",
            headers=headers,
            payload=None if payload is None else patched(payload, settings.body),
            secrets=tuple(secrets),
        )


def key_problem(settings: ProviderSettings) -> str | None:
    """What is wrong with a provider's key, in words that name where it should come from; None if nothing is."""
    if settings.api_key is None:
        if settings.api_key_env is not None:
            return f"its key is missing: the environment variable {shown_variable(settings.api_key_env)} is not set"
        if settings.api_key_file is not None:
            return f"its key is missing: there is none in the file {str(settings.api_key_file)!r}"
        return None
    key = settings.api_key.get_secret_value().strip()
    if not key:
        return "its key is empty; set it, or leave api_key out for a server that wants none"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "its key holds a space, a line end or a letter that no key has; was it copied whole?"
    return None


def shown_variable(name: str) -> str:
    """What `api_key_env` says, in quotes; not where it may be the key itself, which has small letters or is long."""
    return repr(name) if name.isupper() and shown_name(name) == name else "that api_key_env names"


def secret_of(provider: str, settings: ProviderSettings) -> str | None:
    """A provider's key, None where it needs none. Raises: BackendNotConfigured if it is missing or cannot be one."""
    problem = key_problem(settings)
    if problem is not None:
        raise BackendNotConfigured(provider, problem)
    return None if settings.api_key is None else settings.api_key.get_secret_value().strip()


def patched(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, object]:
    """Our body with the configuration's fields on top: objects are merged, null takes a field out.

    Source: RFC 7396, JSON Merge Patch.
    """
    result = dict(ours)
    for name, value in theirs.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            mine = result.get(name)
            result[name] = patched(mine if isinstance(mine, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def turns(messages: Iterable[Message], role_of: Callable[[str], str] = str) -> list[tuple[str, str]]:
    """Role and text of each turn, with neighbours of one role made one, a blank line between them.

    Two questions follow each other where the answer between them was withdrawn; strict chat templates refuse that.
    """
    merged: list[tuple[str, str]] = []
    for message in messages:
        role = role_of(message.role)
        if merged and merged[-1][0] == role:
            merged[-1] = role, f"{merged[-1][1]}\n\n{message.content}"
        else:
            merged.append((role, message.content))
    return merged


def instructions(messages: Iterable[Message]) -> str:
    """All that the system says, for formats in which that is no turn."""
    return "\n\n".join(message.content for message in messages if message.role == "system")


def _model_names(listed: object) -> set[str] | None:
    """The names in a list of models as OpenAI (`data`, `id`) or Google (`models`, `name`) sends it; None if it is none."""
    entries: Any = listed
    if isinstance(listed, dict):
        entries = listed.get("data", listed.get("models"))
    if not isinstance(entries, list):
        return None
    models = [entry for entry in entries if isinstance(entry, dict)]
    names = (model.get("id", model.get("name")) for model in models)
    return {name.removeprefix("models/") for name in names if isinstance(name, str)}
