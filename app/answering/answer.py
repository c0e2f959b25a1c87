"""The whole answer path on one screen: who asks is known; history, passages, prompt, answer, citations, storing."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from app.access import Caller
from app.answering.answerability import answerability
from app.answering.citations import MarkerFilter, whole
from app.answering.clarify import clarification
from app.answering.extractive import NO_ANSWER
from app.answering.grounding import ground
from app.answering.history import Standalone
from app.answering.prompt import build
from app.answering.recall import Recalled, recall, stored
from app.answering.retrieve import find, held_codes, rarity
from app.answering.rewrite import understand_question
from app.answering.sections import Surroundings
from app.answering.signals import DEPTH, nearest, signals
from app.answering.support import Checker
from app.answering.types import Answer, Ask, Citation, Grounding, Signals, Sources
from app.llm.backend import Delta, Finished, FinishReason, Prompt, Usage
from app.llm.plan import Asker, Route
from app.llm.settings import EXTRACTIVE, FIXED
from app.state.conversations import new_id
from app.state.messages import PartialAnswer, Status
from corpus.search import Scope
from corpus.types import Passage

if TYPE_CHECKING:
    from app.services import Services
    from app.snapshots import Leased

NO_PASSAGES = "I found nothing in the documents you may see."

TOKENS_OF_OTHERS = 1.3
"""Tokens of an LLM for one of the embedder's, on the safe side. Source: measured, docs/decisions/006-token-budget.md."""


@dataclass(slots=True)
class _Progress:
    """What is known of an answer so far: enough to store it when the caller leaves or the provider fails."""

    asker: Asker
    started: float = field(default_factory=time.perf_counter)
    timings: dict[str, float] = field(default_factory=dict)
    text: str = ""
    standalone: Standalone | None = None
    route: Route | None = None
    snapshot: str = ""
    passages: tuple[Passage, ...] = ()
    signals: Signals | None = None
    answerability: float | None = None
    status: Status = "cancelled"
    is_paid: bool = False

    async def note_spending(self, services: Services) -> None:
        """Write what the calls cost, once."""
        if self.asker.spent and not self.is_paid:
            self.is_paid = True
            await services.compute(services.state.add_spending, self.asker.spent)

    def note(self, stage: str, since: float) -> None:
        self.timings[stage] = round((time.perf_counter() - since) * 1000, 2)

    def whole_answer(
        self,
        ask: Ask,
        recalled: Recalled,
        *,
        abstained: bool,
        citations: Sequence[Citation] = (),
        finish_reason: FinishReason = "stop",
        grounding: Grounding = Grounding(1.0),
        clarifies: bool = False,
    ) -> Answer:
        """The answer, now that all of it is known. Of what was not searched there are no signals, and no other question."""
        assert self.route is not None, "who answers is known before the answer ends"
        for stage in ("first_token", "generate"):
            self.timings.setdefault(stage, 0.0)
        self.note("total", self.started)
        return Answer(
            answer=self.text,
            abstained=abstained,
            citations=tuple(citations),
            conversation_id=recalled.conversation_id,
            message_id=None,
            standalone_question=self.standalone.question if self.standalone else ask.question,
            provider=self.route.provider,
            model=self.route.model,
            route=self.route.reason,
            snapshot=self.snapshot,
            finish_reason=finish_reason,
            usage=self.asker.usage,
            grounding=grounding,
            timings_ms=self.timings,
            passages=self.passages,
            signals=self.signals or Signals(),
            answerability=self.answerability or 0.0,
            clarifies=clarifies,
        )


async def answer(
    services: Services, caller: Caller, ask: Ask, recalled: Recalled | None = None
) -> AsyncGenerator[Sources | Delta | Answer, None]:
    """Answer one question: first `Sources`, then the text piece by piece, then the whole `Answer`.

    `recalled` is the conversation so far, where it has been recalled already.

    The conversation is stored whatever comes of it: complete, cancelled where the caller left, failed where the provider did.
    Raises: NotFound for a conversation that is not the caller's, NoSnapshot and its kin, Invalid, Overloaded, BudgetSpent,
    BackendError.
    """
    progress = _Progress(Asker(caller.owner, ask.provider))
    with services.gateway.entered(ask.provider), services.snapshots.lease() as leased:
        progress.snapshot = leased.snapshot.id
        if recalled is None:
            recalled = await recall(services, caller, ask, leased.snapshot)
        progress.asker.turn = 1 + sum(message.role == "user" for message in recalled.messages)
        try:
            async with aclosing(_events(services, caller, ask, leased, recalled, progress)) as events:
                async for event in events:
                    if isinstance(event, Answer):
                        progress.status = "complete"
                        await progress.note_spending(services)
                        event = await _stored(services, caller, ask, recalled, event)
                    yield event
        except Exception:
            progress.status = "failed"
            raise
        finally:
            await progress.note_spending(services)
            if progress.status != "complete":
                await _store_partial(services, caller, ask, recalled, progress)


async def _events(
    services: Services, caller: Caller, ask: Ask, leased: Leased, recalled: Recalled, progress: _Progress
) -> AsyncGenerator[Sources | Delta | Answer, None]:
    settings, scope = services.settings, Scope(caller.groups, ask.filters)
    snapshot, embedder = leased.snapshot, leased.embedder

    fixed = services.gateway.fixed_answer(ask.question, progress.asker)
    if fixed is not None:
        # The answer of a rule: nothing is searched, nobody is asked.
        progress.route, progress.text = fixed
        yield Sources((), ask.question)
        yield Delta(progress.text)
        yield progress.whole_answer(ask, recalled, abstained=False)
        return

    begun = time.perf_counter()
    standalone = progress.standalone = await understand_question(services, ask, recalled, progress.asker)
    progress.note("history", begun)

    looked_at = await find(services, leased, scope, standalone, max(ask.top_k, DEPTH), progress.timings)
    hits = looked_at[: ask.top_k]

    begun = time.perf_counter()
    built = await services.compute(
        lambda: build(
            services.prompts,
            ask.question,
            recalled.messages,
            found := [hit.passage for hit in hits],
            budget_tokens=settings.prompt.budget_tokens,
            count_tokens=lambda text: int(embedder.count_tokens(text) * TOKENS_OF_OTHERS) + 1,
            instructions=ask.instructions,
            surroundings=Surroundings.look(snapshot, scope.groups, found, settings.prompt.expand_tokens),
        )
    )
    passages = progress.passages = built.passages
    weights = await services.compute(rarity, snapshot, scope, standalone.question, passages)
    held = await services.compute(held_codes, snapshot, scope, ask.question)
    measured = progress.signals = await services.compute(
        signals, ask.question, standalone.question, looked_at, passages, weights, held
    )
    likely = progress.answerability = answerability(measured, settings.answer.weights)
    labels = [*(passage.label for passage in passages), *([recalled.label] if built.history else [])]
    prompt = Prompt(
        messages=built.messages,
        label=settings.labels.highest(labels),
        max_tokens=settings.prompt.answer_tokens,
        question=ask.question,
        standalone=standalone.question,
        passages=passages,
        nearness=nearest(looked_at),
        coverage=measured.coverage,
        answerability=likely,
        rarity=weights,
        embedder=embedder,
        rests_on=tuple(
            dict.fromkeys(
                [
                    *(p.chunk_id for p in passages),
                    *(p.chunk_id for p in recalled.inherited if built.history and p.chunk_id),
                ],
            )
        ),
    )
    progress.note("prompt", begun)
    yield Sources(tuple(whole(number, passage) for number, passage in enumerate(passages, start=1)), standalone.question)

    if settings.answer.clarify and (
        asked_back := clarification(ask.question, has_history=bool(recalled.messages), hits=hits, passages=passages)
    ):
        # A question back, which names found documents: nobody is asked.
        progress.route = Route(EXTRACTIVE, EXTRACTIVE, "the question could mean several things, so no LLM was asked")
        progress.text = asked_back.text
        yield Delta(asked_back.text)
        named = [whole(number, passages[number - 1]) for number in asked_back.numbers]
        yield progress.whole_answer(ask, recalled, abstained=True, citations=named, clarifies=True)
        return

    checker = Checker(passages, partial(services.embed, embedder))
    await services.compute(checker.prepare)
    markers = MarkerFilter(checker)
    finished = Finished(Usage())
    begun = time.perf_counter()
    async with aclosing(_generate(services, prompt, progress.asker)) as events:
        async for event in events:
            match event:
                case Route():
                    progress.route = event
                    # What it quotes is cited already.
                    markers.adds = event.provider != EXTRACTIVE
                case Delta():
                    if "first_token" not in progress.timings:
                        progress.note("first_token", begun)
                    if shown := await markers.feed(event.text):
                        progress.text += shown
                        yield Delta(shown)
                case Finished():
                    finished = event
    if rest := await markers.finish():
        progress.text += rest
        yield Delta(rest)
    progress.timings.setdefault("first_token", 0.0)
    progress.note("generate", begun)

    grounding = await ground(progress.text, checker, services.compute)
    yield progress.whole_answer(
        ask,
        recalled,
        abstained=finished.abstained or markers.abstained,
        citations=markers.citations,
        finish_reason=finished.reason,
        grounding=replace(grounding, removed=markers.dropped, added=markers.added),
    )


async def _generate(services: Services, prompt: Prompt, asker: Asker) -> AsyncGenerator[Route | Delta | Finished, None]:
    """The gateway's answer; where the passages do not answer, or there is none, nobody is asked."""
    least = services.settings.answer.abstain_below
    reason = text = ""
    if not prompt.passages:
        reason, text = "no passage was found, so no LLM was asked", NO_PASSAGES
    elif prompt.answerability < least:
        reason = f"answerability {prompt.answerability:.2f} is below answer.abstain_below {least:g}, so no LLM was asked"
        text = NO_ANSWER
    if text:
        yield Route(EXTRACTIVE, EXTRACTIVE, reason)
        yield Delta(text)
        yield Finished(Usage(), abstained=True)
        return
    async with aclosing(services.gateway.stream(prompt, asker)) as events:
        async for event in events:
            yield event


async def _stored(services: Services, caller: Caller, ask: Ask, recalled: Recalled, event: Answer) -> Answer:
    """The answer with its ids, once it is on disk; for a stateless caller only what it rested on is remembered."""
    if not ask.store:
        # That there is no answer is said in fixed words, which rest on nothing.
        fixed = event.provider == FIXED or (event.abstained and event.provider == EXTRACTIVE and not event.clarifies)
        services.given.remember(event.answer, () if fixed else (*stored(event.passages), *recalled.inherited))
        return event

    def write() -> Answer:
        conversation_id = services.state.begin_turn(caller.owner, recalled.conversation_id, ask.question)
        named = replace(event, conversation_id=conversation_id, message_id=new_id())
        services.state.add_turn(
            caller.owner, conversation_id, ask.question, named, "complete",
            prompt_version=services.prompts.version, inherited=recalled.inherited,
        )  # fmt: skip
        return named

    return await services.compute(write)


async def _store_partial(services: Services, caller: Caller, ask: Ask, recalled: Recalled, progress: _Progress) -> None:
    """Keep what there is of an answer that was cancelled or failed. A first question that got no word is not a conversation."""
    if not ask.store or (recalled.conversation_id is None and not progress.text):
        return

    def write() -> None:
        partial = PartialAnswer(
            answer=progress.text,
            standalone_question=progress.standalone.question if progress.standalone else "",
            provider=progress.route.provider if progress.route else "",
            model=progress.route.model if progress.route else "",
            route=progress.route.reason if progress.route else "",
            snapshot=progress.snapshot,
            passages=progress.passages,
            usage=progress.asker.usage,
            signals=progress.signals,
            answerability=progress.answerability,
        )
        conversation_id = services.state.begin_turn(caller.owner, recalled.conversation_id, ask.question)
        services.state.add_turn(
            caller.owner, conversation_id, ask.question, partial, progress.status,
            prompt_version=services.prompts.version, inherited=recalled.inherited,
        )  # fmt: skip

    await services.compute(write)
