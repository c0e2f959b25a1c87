"""What the service counts and measures, in Prometheus' words. The only importer of prometheus_client."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.answering.types import Answer

CONTENT_TYPE = CONTENT_TYPE_LATEST

# Seconds. Search takes milliseconds and a long answer of an LLM minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


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
        self._tokens = Counter(
            "archivist_tokens_total", "Tokens by provider and kind.", ["provider", "kind"], registry=self.registry
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
        """One answer was given: its stages and its tokens."""
        self._answers.labels(answer.provider, str(answer.abstained).lower()).inc()
        self._tokens.labels(answer.provider, "prompt").inc(answer.usage.prompt_tokens)
        self._tokens.labels(answer.provider, "completion").inc(answer.usage.completion_tokens)
        for stage, took_ms in answer.timings_ms.items():
            self._stage_seconds.labels(stage).observe(took_ms / 1000)

    def show_snapshot(self, documents: int, chunks: int, created_at: datetime) -> None:
        """What is being served now."""
        self._documents.set(documents)
        self._chunks.set(chunks)
        self._snapshot_age.set((datetime.now(UTC) - created_at).total_seconds())

    def show_no_snapshot(self) -> None:
        """Nothing can be served."""
        self._documents.set(0)
        self._chunks.set(0)
        self._snapshot_age.set(float("nan"))

    def text(self) -> bytes:
        """The exposition that Prometheus reads."""
        return generate_latest(self.registry)
