"""What goes into the answer path and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.llm.backend import FinishReason, Usage
from corpus.types import Message, Passage


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. `conversation_id` continues a stored conversation; `messages` are earlier turns of a stateless caller.

    With `store` false nothing is written. `instructions` are a caller's own system messages, put after ours.
    """

    question: str
    conversation_id: str | None = None
    messages: tuple[Message, ...] = ()
    store: bool = True
    top_k: int = 8
    provider: str | None = None
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instructions: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a part of the answer comes from. `marker` is the number in the text, `start`/`end` the exact span of `quote`."""

    marker: int
    document_id: str
    chunk_id: str
    version: str
    title: str
    source: str
    page: int | None
    heading: tuple[str, ...]
    quote: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Grounding:
    """How much of the answer the passages support: the share of its sentences, and the sentences that none supports.

    Code and sentences without a content word, such as "Yes.", do not count; of a very long answer the first 500 do.

    `removed` markers were the model's and wrong, `added` ones it left out.
    """

    supported_share: float
    unsupported: tuple[str, ...] = ()
    removed: int = 0
    added: int = 0


@dataclass(frozen=True, slots=True)
class Signals:
    """What the search says of whether the passages answer, all of it from what the caller may see; 0 where nothing was found.

    `nearness` is the cosine of the question, without earlier turns, and the nearest passage, `coverage` the share of its words,
    by their rarity, that the passages of the prompt hold. `lead` is how far the best passage stands out from the next nineteen,
    in meaning and in words together: 0 to about 1. `identified` is the share of the codes and forms that the question names
    which anything holds that the caller may see, 1 where it names none.
    """

    nearness: float = 0.0
    coverage: float = 0.0
    lead: float = 0.0
    identified: float = 1.0


@dataclass(frozen=True, slots=True)
class Sources:
    """The first event of an answer: the passages it may cite, numbered in order, and the question they were found by."""

    candidates: tuple[Citation, ...]
    standalone_question: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The last event of an answer: all of it. `passages` are the prompt's, with their labels, for provenance.

    `usage` is that of all calls that were made for it, a rewrite of the question too. `answerability` is how likely the
    passages answer, 0..1, by `signals`. With `clarifies` the text is a question back to the asker; it is an abstention too.
    """

    answer: str
    abstained: bool
    citations: tuple[Citation, ...]
    conversation_id: str | None
    message_id: str | None
    standalone_question: str
    provider: str
    model: str
    route: str
    snapshot: str
    usage: Usage
    grounding: Grounding
    timings_ms: Mapping[str, float]
    passages: tuple[Passage, ...] = ()
    finish_reason: FinishReason = "stop"
    signals: Signals = Signals()
    answerability: float = 0.0
    clarifies: bool = False
