"""Every error of ours, by what the caller can do about it. Imports nothing.

ArchivistError
├── ConfigError            mend the configuration (exit 2)
├── RequestError           mend the request
│   ├── Unauthorized         send the key
│   ├── Forbidden            ask somebody who may, or from a place that may
│   ├── NotFound             it is not there, or not yours to see
│   ├── Gone                 that version was replaced
│   ├── Conflict             wait for the other request
│   ├── Invalid              a value is out of bounds
│   ├── TooLarge             send less
│   ├── Overloaded           too many at once; ask again later
│   └── BudgetSpent          what may be spent today is; ask again tomorrow
├── DocumentError          mend or remove the document; the job goes on without it
├── NotYaml                a text is not YAML, or has a key twice; its reader names the file
├── LockHeld               another run is at work; wait for it (exit 5)
├── RunRefused             what must hold before publishing does not; read the reasons (exit 4)
├── SnapshotError          look at the data folder
│   ├── NoSnapshot           run the job first
│   ├── NotWritten           the disk is full or failing; mend it and run again
│   └── SnapshotDamaged      a file is not what was published; ingest again or activate an older one
├── EmbedderError          look at the embedding model
│   ├── ModelNotFound        install it, or name another
│   ├── ModelDamaged         its weights are not the ones expected; reinstall
│   ├── ModelNotExported     it runs with sentence-transformers only; use that engine
│   └── EmbedderMismatch     snapshot and configuration name different models; ingest again
├── RerankerFailed         look at the reranking model; the question is answered without it
├── StateError             look at the service's own database
├── OverlayError           look at the database of what was deleted and withdrawn; nothing is shown until then
├── EgressError            an outbound HTTP call did not work
│   ├── EgressRefused        an address that policy does not allow, or a redirect; mend the address
│   ├── EgressUnreachable    could not connect
│   ├── EgressTimeout        connected or not, a stage took too long
│   └── EgressBroken         what came back was cut off, too large or not HTTP
│       └── PageTooLarge       larger than the source allows
└── BackendError           the LLM did not answer
    ├── BackendNotConfigured  a key or an address is missing
    ├── NotCleared            the prompt holds a label the provider may not see
    ├── BackendUnreachable    could not connect
    │   └── BackendLeftAlone    it failed too often; it is tried again soon
    ├── BackendTimeout        connected, but a stage took too long
    ├── BackendRateLimited    429; try later
    ├── BackendRejected       4xx: wrong key, unknown model, context too long
    ├── BackendFailed         5xx
    └── BackendMalformed      what came back was cut off or is not the protocol
        └── BackendWordless     a whole answer without a word: withheld, a tool call, or empty
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WAITED_FOR = {
    "queue": "no free place",
    "pool": "no free connection",
    "connect": "no connection",
    "response": "no response",
    "first_token": "no first token",
    "between_tokens": "no further token",
    "total": "no complete answer",
}


class ArchivistError(Exception):
    """The root. The message names the thing, the value and the next step."""


class ConfigError(ArchivistError):
    """The configuration cannot be used."""


class RequestError(ArchivistError):
    """The caller can mend this by asking differently."""


class Unauthorized(RequestError):
    """The key is missing or not the right one."""


class Forbidden(RequestError):
    """The caller may not do this, or not from there."""


class NotFound(RequestError):
    """The thing does not exist, or the caller may not know that it does."""

    def __init__(self, kind: str, value: str) -> None:
        self.kind, self.value = kind, value
        super().__init__(f"no {kind} {value[:80]!r}; it does not exist or is not visible to you")


class Gone(RequestError):
    """The document exists, the version asked for does not any more."""

    def __init__(self, document_id: str, version: str, current: str) -> None:
        self.document_id, self.version, self.current = document_id, version, current
        super().__init__(
            f"document {document_id!r} has no version {version[:80]!r} any more; the current version is {current!r}"
        )


class Conflict(RequestError):
    """Another request is using the same thing right now."""


class Invalid(RequestError):
    """A value that the caller sent is out of bounds; `field` names it."""

    def __init__(self, message: str, field: str | None = None) -> None:
        self.field = field
        super().__init__(message)


class TooLarge(RequestError):
    """What the caller sent is larger than the limit."""


class Overloaded(RequestError):
    """Too many are being answered at once. `retry_after_s` is when to ask again."""

    def __init__(self, what: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{what}; ask again in {retry_after_s:.0f} s")


class BudgetSpent(RequestError):
    """A day's budget is spent. `retry_after_s` is when the next day begins (UTC)."""

    def __init__(self, budget: str, retry_after_s: float) -> None:
        self.budget, self.retry_after_s = budget, retry_after_s
        super().__init__(f"the budget {budget!r} is spent for today (UTC); ask again tomorrow, or raise llm.budgets")


class DocumentError(ArchivistError):
    """One document cannot be read. `path` names it, `reason` says why, `advice` what to do."""

    def __init__(self, path: str, reason: str, advice: str) -> None:
        self.path, self.reason, self.advice = path, reason, advice
        super().__init__(f"{path}: {reason}; {advice}")


class NotYaml(ArchivistError):
    """A text is not YAML as it is read here. `reason` says why, `place` where: line and column, from 1, if that is known."""

    def __init__(self, reason: str, place: tuple[int, int] | None = None, *, repeated: bool = False) -> None:
        self.reason, self.place, self.repeated = reason, place, repeated
        super().__init__(reason if place is None else f"{reason}, at line {place[0]}, column {place[1]}")


class LockHeld(ArchivistError):
    """Another run holds the data folder's lock."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"another run holds the lock {path!r}; wait for it to end, or stop it")


class RunRefused(ArchivistError):
    """A guard or the gate stopped the run before it published. `reasons` say why, `report` is what the run had to say."""

    def __init__(self, reasons: Sequence[str], after: str, report: Mapping[str, Any] | None = None) -> None:
        self.reasons = tuple(reasons)
        self.report: Mapping[str, Any] = report or {}
        super().__init__(f"{'; '.join(reasons)}; nothing was published, {after}")


class SnapshotError(ArchivistError):
    """Something is wrong with the published data."""


class NoSnapshot(SnapshotError):
    """Nothing has been published in this data folder."""

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        super().__init__(f"no snapshot in {data_dir!r}; run `archivist ingest` first")


class NotWritten(SnapshotError):
    """A file of the data folder could not be written; what is in service is as it was."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"{path!r} cannot be written ({reason}); free space on the disk or mend it and run again: "
            "the snapshot in service is untouched, and what was embedded is kept"
        )


class SnapshotDamaged(SnapshotError):
    """A snapshot is not what was published."""

    def __init__(self, snapshot: str, reason: str) -> None:
        self.snapshot, self.reason = snapshot, reason
        super().__init__(f"snapshot {snapshot!r} is damaged: {reason}; run `archivist ingest` to build a new one")


class EmbedderError(ArchivistError):
    """The embedding model cannot be used."""


class ModelNotFound(EmbedderError):
    """No model by that name is at hand."""


class ModelDamaged(EmbedderError):
    """The model's weights are not the ones that were expected."""


class ModelNotExported(EmbedderError):
    """The model cannot be made a graph that runs without torch. `reason` says why, `advice` what else to do, if anything."""

    def __init__(self, model: str, reason: str, advice: str | None = "set embedder.engine to sentence-transformers") -> None:
        self.model, self.reason = model, reason
        super().__init__(f"embedder.model {model!r} cannot be exported: {reason}{f'; {advice}' if advice else ''}")


class EmbedderMismatch(EmbedderError):
    """Vectors of two models must never mix."""


class RerankerFailed(ArchivistError):
    """The reranking model could not score."""


class StateError(ArchivistError):
    """The service's database cannot be used. `path` names the file."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"the service's database {path!r} cannot be used: {reason}")


class OverlayError(ArchivistError):
    """What was deleted, revoked and relabelled cannot be told, so nothing may be shown. `path` names the file."""

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"the database of deletions and overrides {path!r} cannot be used: {reason}")


class EgressError(ArchivistError):
    """An outbound HTTP call did not work. The message names the host, never a header or a body."""


class EgressRefused(EgressError):
    """An outbound address that the policy does not allow, or a redirect, which is never followed."""


class EgressUnreachable(EgressError):
    """No connection."""


class EgressTimeout(EgressError):
    """A stage took longer than its limit. `stage` is pool, connect, response or total."""

    def __init__(self, target: str, stage: str, waited_s: float) -> None:
        self.target, self.stage, self.waited_s = target, stage, waited_s
        super().__init__(f"{target}: {_WAITED_FOR.get(stage, stage)} within {waited_s:.3g} s")


class EgressBroken(EgressError):
    """What came back was cut off, larger than allowed or not HTTP."""


class PageTooLarge(EgressBroken):
    """A page that is larger than its source allows."""


class BackendError(ArchivistError):
    """An LLM provider did not give an answer. `provider` names it."""

    def __init__(self, provider: str, message: str) -> None:
        self.provider = provider
        super().__init__(f"LLM provider {provider!r}: {message}")


class BackendNotConfigured(BackendError):
    """The provider is named in the configuration, but something it needs is missing."""


class NotCleared(BackendError):
    """The prompt holds something the provider may not see, and no other backend may answer."""


class BackendUnreachable(BackendError):
    """No connection."""


class BackendLeftAlone(BackendUnreachable):
    """The provider failed too often in a row and is not called for a while; `again_in_s` is when it is."""

    def __init__(self, provider: str, again_in_s: float) -> None:
        self.again_in_s = again_in_s
        super().__init__(provider, f"failed too often and is left alone for another {again_in_s:.0f} s")


class BackendTimeout(BackendError):
    """A stage took longer than its limit. `stage` is queue, pool, connect, first_token, between_tokens or total."""

    def __init__(self, provider: str, stage: str, waited_s: float) -> None:
        self.stage, self.waited_s = stage, waited_s
        self.waited_for = _WAITED_FOR.get(stage, stage)
        super().__init__(provider, f"{self.waited_for} within {waited_s:.3g} s; is it overloaded or still loading?")


class BackendRateLimited(BackendError):
    """429. `retry_after_s` is what the provider asked for, if it did."""

    def __init__(self, provider: str, retry_after_s: float | None) -> None:
        self.retry_after_s = retry_after_s
        wait = "later" if retry_after_s is None else f"in {retry_after_s:g} s"
        super().__init__(provider, f"rate limited (429); try again {wait}")


class BackendRejected(BackendError):
    """4xx. `status` is the HTTP status."""

    def __init__(self, provider: str, status: int, message: str) -> None:
        self.status = status
        super().__init__(provider, message)


class BackendFailed(BackendError):
    """5xx. `status` is the HTTP status, `retry_after_s` what the provider asked for, if it did."""

    def __init__(self, provider: str, status: int, retry_after_s: float | None = None) -> None:
        self.status, self.retry_after_s = status, retry_after_s
        super().__init__(provider, f"failed with HTTP {status}; look at the provider's own log")


class BackendMalformed(BackendError):
    """The answer was cut off or does not follow the protocol."""


class BackendWordless(BackendMalformed):
    """The answer is whole and holds no word. It says something of this prompt, and nothing of the provider's health."""
