"""What requests and answers look like, for the OpenAPI document."""

from __future__ import annotations

from pydantic.config import JsonDict

CITATION: JsonDict = {
    "marker": 1,
    "document_id": "kq3v5y2m7c4xw6t1b0n9r8pzae",
    "chunk_id": "kq3v5y2m7c4xw6t1b0n9r8pzae.f2a7c91be04d5836.0-412",
    "version": "f2a7c91be04d5836",
    "title": "Travel policy",
    "source": "policies/travel.md",
    "page": None,
    "heading": ["Expenses", "Deadlines"],
    "quote": "Expense reports are due within 30 days of the last day of travel.",
    "start": 128,
    "end": 193,
}
ANSWER: JsonDict = {
    "answer": "Expense reports are due within 30 days of the last day of travel. [1]",
    "abstained": False,
    "clarifies": False,
    "citations": [CITATION],
    "conversation_id": "Jv0mP2cQb3k8xY1tZr5wNA",
    "message_id": "5sJ8yq0bWm3uKf1xVdT7Lg",
    "standalone_question": "When are expense reports due?",
    "answerability": 0.91,
    "provider": "extractive",
    "model": "extractive",
    "route": "extractive",
    "snapshot": "000003-1f0c88aa",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "cost_usd": 0.0, "estimated": False},
    "grounding": {"supported_share": 1.0, "unsupported": [], "removed": 0, "added": 0},
    "timings_ms": {
        "history": 0.4,
        "embed": 9.8,
        "search": 6.1,
        "prompt": 0.3,
        "first_token": 2.2,
        "generate": 2.4,
        "total": 21.0,
    },
}
HIT: JsonDict = {
    "rank": 1,
    **{name: CITATION[name] for name in ("document_id", "chunk_id", "version", "title", "source", "heading", "page")},
    "text": "Expense reports are due within 30 days of the last day of travel.",
    "start": 128,
    "end": 193,
}
DOCUMENT: JsonDict = {
    **{name: CITATION[name] for name in ("document_id", "version", "title", "source")},
    "collection": "handbook",
    "format": "markdown",
    "language": "en",
    "label": "internal",
    "metadata": {"owner": "Finance"},
}
CONVERSATION: JsonDict = {
    "conversation_id": "Jv0mP2cQb3k8xY1tZr5wNA",
    "title": "When are expense reports due?",
    "created_at": "2026-11-23T09:30:00Z",
    "updated_at": "2026-11-23T09:30:02Z",
}

UPLOADED: JsonDict = {
    "document_id": "ouxr6gxclz6uxobhi5lozb2qxf",
    "source": "travel-policy.pdf",
    "collection": "uploads",
    "size_bytes": 48211,
    "groups": ["everyone"],
    "label": "internal",
    "replaced": False,
    "run_id": "000007-9f86d081",
    "detail": "found once a run of the job that begins from now on has published",
}
