"""What the service counts and measures, in Prometheus' words. The only importer of prometheus_client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.answering.types import Answer
from app.llm.backend import Usage
from app.llm.settings import FIXED
from app.runs import AT_WORK, Overview

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Seconds. Search takes milliseconds and a long answer of an LLM minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# Shares and scores, 0..1: in twentieths where a median is read off, in tenths where there is one series for each signal.
_TWENTIETHS = tuple(step / 20 for step in range(21))
_TENTHS = tuple(step / 10 for step in range(11))


class Metrics:
    """The service's metrics in a registry of their own, so that two services in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "archivist_requests_total", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self._request_seconds = Histogram(
            "archivist_request_seconds",
            "Seconds until a response was sent to its end.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "archivist_stage_seconds",
            "Seconds that one stage of an answer took.",
            ["stage"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._answers = Counter(
            "archivist_answers_total",
            "Answers by provider, and whether the documents held one.",
            ["provider", "abstained"],
            registry=self.registry,
        )
        self._clarified = Counter(
            "archivist_clarified_total", "Questions that were answered by a question back.", registry=self.registry
        )
        self._answerability = Histogram(
            "archivist_answerability",
            "How likely the passages found answer the question, 0..1.",
            buckets=_TWENTIETHS,
            registry=self.registry,
        )
        self._supported_share = Histogram(
            "archivist_grounding_supported_share",
            "Share of an answer's sentences that its passages support, where it was no abstention.",
            buckets=_TWENTIETHS,
            registry=self.registry,
        )
        self._markers = Counter(
            "archivist_citation_markers_total",
            "Markers of citations that were mended in answers: removed where wrong, added where missing.",
            ["change"],
            registry=self.registry,
        )
        self._signals = Histogram(
            "archivist_retrieval_signal",
            "What the search says of whether the passages answer.",
            ["signal"],
            buckets=_TENTHS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "archivist_tokens_total", "Tokens by provider and kind.", ["provider", "kind"], registry=self.registry
        )
        self._cost = Counter(
            "archivist_cost_usd_total", "US dollars spent, as far as prices are known.", ["provider"], registry=self.registry
        )
        self._calls = Counter(
            "archivist_llm_calls_total",
            "Calls to LLM providers by outcome: answered, left_alone, or the kind of failure.",
            ["provider", "outcome"],
            registry=self.registry,
        )
        self._retries = Counter(
            "archivist_llm_retries_total", "Calls that were made again.", ["provider"], registry=self.registry
        )
        self._first_token_seconds = Histogram(
            "archivist_llm_first_token_seconds",
            "Seconds from the call to its first token, retries included.",
            ["provider"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._breaker = Gauge(
            "archivist_llm_breaker_open",
            "1 where a provider is left alone.",
            ["provider"],
            registry=self.registry,
        )
        self._clearance = Counter(
            "archivist_clearance_decisions_total",
            "Whether a provider might see a prompt of this label.",
            ["provider", "label", "decision"],
            registry=self.registry,
        )
        self._budget = Gauge(
            "archivist_budget_used_share", "Share used today of a budget that all share.", ["budget"], registry=self.registry
        )
        self._config_valid = Gauge(
            "archivist_config_valid",
            "1 where the configuration on disk is in force, 0 where it was refused.",
            registry=self.registry,
        )
        self._config_valid.set(1)
        self._reloads = Counter(
            "archivist_config_reloads_total", "Changes of the configuration by outcome.", ["outcome"], registry=self.registry
        )
        self._runs = Gauge(
            "archivist_ingest_runs", "Runs of the job whose reports are kept, by status.", ["status"], registry=self.registry
        )
        self._last_run = Gauge(
            "archivist_ingest_last_run_status",
            "1 at the status of the last run that has ended, 0 at the others.",
            ["status"],
            registry=self.registry,
        )
        self._last_run_ended = Gauge(
            "archivist_ingest_last_run_timestamp_seconds",
            "When the last run ended, in seconds since 1970; NaN before there was one.",
            registry=self.registry,
        )
        self._last_run_seconds = Gauge(
            "archivist_ingest_last_run_duration_seconds",
            "How long it took; NaN if that is not known.",
            registry=self.registry,
        )
        self._last_run_failures = Gauge(
            "archivist_ingest_last_run_failures", "Documents that it could not read.", registry=self.registry
        )
        self._last_good_run = Gauge(
            "archivist_ingest_last_success_timestamp_seconds",
            "When a run last ended with what is served as it should be: published, or nothing had changed.",
            registry=self.registry,
        )
        self._held = Gauge(
            "archivist_snapshot_held", "1 where a snapshot is held: runs publish nothing.", registry=self.registry
        )
        self._snapshot_created = Gauge(
            "archivist_snapshot_created_timestamp_seconds",
            "When the snapshot served was made, in seconds since 1970; NaN where there is none.",
            registry=self.registry,
        )
        self._documents = Gauge("archivist_documents", "Documents in the snapshot served.", registry=self.registry)
        self._chunks = Gauge("archivist_chunks", "Chunks in the snapshot served.", registry=self.registry)
        self._snapshot_age = Gauge(
            "archivist_snapshot_age_seconds",
            "Seconds since the snapshot served was made; NaN where there is none.",
            registry=self.registry,
        )

    def count_request(self, route: str, status: int, took_s: float) -> None:
        """One request was answered. `route` is the path's template, never the path itself."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(took_s)

    def count_answer(self, answer: Answer) -> None:
        """One answer was given: its stages, and how good it was as far as that is known."""
        self._answers.labels(answer.provider, str(answer.abstained).lower()).inc()
        for stage, took_ms in answer.timings_ms.items():
            self._stage_seconds.labels(stage).observe(took_ms / 1000)
        if answer.provider != FIXED:  # for the fixed answer of a rule nothing was searched
            self._count_quality(answer)

    def _count_quality(self, answer: Answer) -> None:
        self._answerability.observe(answer.answerability)
        for name, value in asdict(answer.signals).items():
            self._signals.labels(name).observe(value)
        if answer.clarifies:
            self._clarified.inc()
        self._markers.labels("removed").inc(answer.grounding.removed)
        self._markers.labels("added").inc(answer.grounding.added)
        if not answer.abstained:
            self._supported_share.observe(answer.grounding.supported_share)

    def count_usage(self, provider: str, usage: Usage) -> None:
        """One call to a provider ended, however it did."""
        self._tokens.labels(provider, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(provider, "cached").inc(usage.cached_tokens)
        self._tokens.labels(provider, "completion").inc(usage.completion_tokens)
        if usage.cost_usd is not None:
            self._cost.labels(provider).inc(usage.cost_usd)

    def count_call(self, provider: str, outcome: str) -> None:
        """One call to a provider was made, or was not made because it is left alone."""
        self._calls.labels(provider, outcome).inc()

    def count_retry(self, provider: str) -> None:
        """One call is made again."""
        self._retries.labels(provider).inc()

    def observe_first_token(self, provider: str, took_s: float) -> None:
        """A provider began to answer."""
        self._first_token_seconds.labels(provider).observe(took_s)

    def show_breaker(self, provider: str, *, is_open: bool) -> None:
        """Whether a provider is left alone."""
        self._breaker.labels(provider).set(is_open)

    def count_clearance(self, provider: str, label: str, cleared: bool) -> None:
        """It was decided whether a provider may see a prompt."""
        self._clearance.labels(provider, label, "cleared" if cleared else "not_cleared").inc()

    def forget_gauges(self) -> None:
        """Show nothing of providers and budgets until it is shown anew: some may be gone."""
        self._breaker.clear()
        self._budget.clear()

    def show_budgets(self, levels: Mapping[str, float]) -> None:
        """What is used of each budget."""
        for name, share in levels.items():
            self._budget.labels(name).set(share)

    def count_reload(self, outcome: str) -> None:
        """The configuration changed on disk: applied, unchanged or refused."""
        self._reloads.labels(outcome).inc()
        self._config_valid.set(outcome != "refused")

    def show_snapshot(self, documents: int, chunks: int, created_at: datetime) -> None:
        """What is being served now."""
        self._documents.set(documents)
        self._chunks.set(chunks)
        self._snapshot_created.set(created_at.timestamp())
        self._snapshot_age.set((datetime.now(UTC) - created_at).total_seconds())

    def show_no_snapshot(self) -> None:
        """Nothing can be served."""
        self._documents.set(0)
        self._chunks.set(0)
        self._snapshot_created.set(float("nan"))
        self._snapshot_age.set(float("nan"))

    def show_held(self, held: bool) -> None:
        """Whether a snapshot is held."""
        self._held.set(held)

    def show_runs(self, overview: Overview, statuses: Sequence[str]) -> None:
        """The history of the job."""
        last = overview.last or {}
        for status in statuses:
            self._runs.labels(status).set(overview.by_status.get(status, 0))
            if status not in AT_WORK:
                self._last_run.labels(status).set(last.get("status") == status)
        self._last_run_ended.set(_known(overview.ended_at))
        self._last_run_seconds.set(_known(last.get("took_s")))
        self._last_run_failures.set(last.get("failures", 0))
        self._last_good_run.set(_known(overview.well_at))

    def text(self) -> bytes:
        """The exposition that Prometheus reads."""
        return generate_latest(self.registry)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value
