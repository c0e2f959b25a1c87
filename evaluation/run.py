"""Asks the questions of a golden set: searches, answers, and looks up in the documents what was cited."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.access import Caller
from app.answering.answer import answer
from app.answering.recall import Recalled, recall_before
from app.answering.retrieve import search
from app.answering.types import Answer, Ask, Citation
from app.process import Process
from app.services import Services
from app.settings import ServiceSettings
from app.state.state import State
from corpus.embedders.embedder import Embedder
from corpus.errors import ArchivistError, BackendError, EgressRefused, Overloaded
from corpus.language import language_of_question
from corpus.published import current_id, point_to
from corpus.snapshot import OpenSnapshot
from corpus.types import Hit
from evaluation.golden import Question

OWNER = "evaluation"

SEARCHED, SEARCHED_FOR_EACH = 50, 5
"""Chunks fetched for a ranking of documents, at least, and for each document of it: several may be of one document."""

PAGE = 1000

TOTAL = "total"
"""The stage that is all of them."""


@dataclass(frozen=True, slots=True)
class Found:
    """A document that was found; `name` is the one by which the gold knows it, its id where the gold does not."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation: the document's name (see Found), and whether its quote is what stands in the document at its place."""

    name: str
    quote: str
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question. Documents are in the order of their best chunks; `nearness` is the best chunk's cosine.

    `answer` is None where none was asked for, and where it failed: `failure` then says how. Units: milliseconds.
    """

    question: Question
    found: tuple[Found, ...]
    nearness: float
    timings_ms: Mapping[str, float]
    language: str = ""
    collection: str = ""
    answer: Answer | None = None
    cited: tuple[Cited, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """All that was asked of one snapshot under one configuration. `missing` are gold documents that nobody can find there."""

    outcomes: tuple[Outcome, ...]
    snapshot: str
    documents: int
    model: str
    has_answers: bool
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@asynccontextmanager
async def opened(settings: ServiceSettings, embedder: Embedder, snapshot: str | None = None) -> AsyncIterator[Services]:
    """The service's parts over one snapshot, the current one if none is named, whatever is published meanwhile.

    What is spent counts against the budgets of the data folder. Raises: NoSnapshot, SnapshotDamaged, StateError.
    """
    data_dir = settings.data_dir.resolve()
    wanted = snapshot or current_id(data_dir)
    with tempfile.TemporaryDirectory(prefix="archivist-evaluate-") as folder:
        # A data folder that holds this one snapshot alone.
        view = Path(folder)
        (view / "snapshots").mkdir()
        (view / "snapshots" / wanted).symlink_to(data_dir / "snapshots" / wanted)
        point_to(view, wanted)
        settings = settings.model_copy(update={"data_dir": view})
        services = Services(settings, Process(settings, embedder, State(data_dir / "service.db")))
        try:
            await services.start()
            yield services
        finally:
            await services.close()


async def ask_all(
    services: Services,
    questions: Sequence[Question],
    *,
    answers: bool,
    depth: int = 10,
    provider: str | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> Run:
    """Search for each question and, with `answers`, answer it, as its caller; nothing is stored.

    `depth` is how many documents a ranking needs; `tell` hears how many questions are done.

    An answer that its provider failed to give is noted and passed over. Raises: BudgetSpent, Invalid, BackendNotConfigured,
    NoSnapshot and its kin.
    """
    if answers:
        services.gateway.check(provider)
    with services.snapshots.lease() as snapshot:
        documents = _Documents(snapshot, {group for question in questions for group in _caller(services, question).groups})
        searched = max(SEARCHED, SEARCHED_FOR_EACH * depth)
        outcomes = []
        for question in questions:
            recalled = await _recalled(services, question, snapshot)
            outcomes.append(await _ask(services, documents, question, recalled, searched, provider, answers=answers))
            tell(len(outcomes))
        return Run(
            outcomes=tuple(outcomes),
            snapshot=snapshot.id,
            documents=snapshot.manifest.documents,
            model=snapshot.manifest.embedder.model,
            has_answers=answers,
            missing=documents.missing(questions),
        )


async def _ask(
    services: Services,
    documents: _Documents,
    question: Question,
    recalled: Recalled | None,
    searched: int,
    provider: str | None,
    *,
    answers: bool,
) -> Outcome:
    if recalled is not None:
        question = replace(question, history=recalled.messages)
    caller = _caller(services, question)
    answered: Answer | None = None
    failure = ""
    if answers:
        ask = Ask(question.question, messages=question.history, store=False, provider=provider)
        try:
            answered = await _answer(services, caller, ask, recalled)
        except (BackendError, EgressRefused, Overloaded) as error:
            failure = str(error)
    asked, history = question.question, question.history
    if services.settings.history.strategy == "llm" and answered is not None:
        # The rewrite was made for the answer; it is not paid for twice.
        asked, history = answered.standalone_question, ()
    began = time.perf_counter()
    result = await search(services, caller, asked, history, searched, {})
    took_ms = round((time.perf_counter() - began) * 1000, 2)
    found = documents.found(result.hits, question)
    return Outcome(
        question=question,
        found=found,
        nearness=max((hit.cosine for hit in result.hits if hit.cosine is not None), default=0.0),
        timings_ms={**result.timings_ms, TOTAL: took_ms} if answered is None else answered.timings_ms,
        language=question.language or language_of_question(question.question) or "",
        collection=question.collection or documents.collection_of(question),
        answer=answered,
        cited=() if answered is None else documents.cited(answered.citations, question, caller),
        failure=failure,
    )


async def _recalled(services: Services, question: Question, snapshot: OpenSnapshot) -> Recalled | None:
    """The conversation before a stored question, with its labels, as far as its owner may see today what it rests on.

    It is asked as everything is here, by OWNER, so that it counts against nobody's own budget.
    """
    then = question.then
    if then is None:
        return None
    owner = Caller(then.owner, _caller(services, question).groups)
    return await recall_before(services, owner, then.conversation_id, then.position, snapshot)


async def _answer(services: Services, caller: Caller, ask: Ask, recalled: Recalled | None) -> Answer:
    async with aclosing(answer(services, caller, ask, recalled)) as events:
        async for event in events:
            if isinstance(event, Answer):
                return event
    raise AssertionError("the answer path ended without an answer")


def _caller(services: Services, question: Question) -> Caller:
    return Caller(OWNER, question.groups or services.settings.server.groups)


class _Documents:
    """The documents of a snapshot by every name that a gold may have for them."""

    def __init__(self, snapshot: OpenSnapshot, groups: Iterable[str]) -> None:
        self._store = snapshot.store
        self._collections: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        after = None
        everybody = sorted(set(groups))
        while page := self._store.document_summaries(everybody, after=after, limit=PAGE):
            for document in page:
                for name in (document.document_id, document.source):
                    self._collections.setdefault(name, document.collection)
            after = page[-1].document_id

    def missing(self, questions: Sequence[Question]) -> dict[str, tuple[str, ...]]:
        """For each question the documents of its gold that are not there, or that none of the askers may see."""
        lost = {q.id: tuple(name for name in q.gold if name not in self._collections) for q in questions}
        return {question_id: names for question_id, names in lost.items() if names}

    def collection_of(self, question: Question) -> str:
        """The collection of the first document of the gold that is there."""
        return next((self._collections[name] for name in question.gold if name in self._collections), "")

    def found(self, hits: Iterable[Hit], question: Question) -> tuple[Found, ...]:
        """The documents of the hits, each where its best chunk stands."""
        named: dict[str, str] = {}
        for hit in hits:
            named.setdefault(_name(hit.passage.document_id, hit.passage.source, question), hit.passage.source)
        return tuple(Found(name, source) for name, source in named.items())

    def cited(self, citations: Iterable[Citation], question: Question, caller: Caller) -> tuple[Cited, ...]:
        """The citations, each held against the document's text."""
        return tuple(
            Cited(
                _name(citation.document_id, citation.source, question),
                citation.quote,
                self._text(citation, caller)[citation.start : citation.end] == citation.quote != "",
            )
            for citation in citations
        )

    def _text(self, citation: Citation, caller: Caller) -> str:
        if citation.document_id not in self._texts:
            document = self._store.document(citation.document_id, caller.groups)
            is_that = document is not None and document.version == citation.version
            self._texts[citation.document_id] = document.text if document is not None and is_that else ""
        return self._texts[citation.document_id]


def _name(document_id: str, source: str, question: Question) -> str:
    return next((name for name in (document_id, source) if name in question.gold), document_id)


def first_failure(run: Run) -> ArchivistError | None:
    """An error where every single answer failed: there is nothing to report then."""
    failures = [outcome.failure for outcome in run.outcomes if outcome.failure]
    if not failures or len(failures) < len(run.outcomes):
        return None
    return ArchivistError(f"no question got an answer; the first one failed with: {failures[0]}")
