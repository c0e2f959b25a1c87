"""The standalone question: by rules and, where it is configured, by a rewrite of the LLM beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from app.answering.history import Standalone, understand
from app.answering.recall import Recalled
from app.answering.types import Ask
from app.llm.backend import Prompt
from app.llm.plan import Asker
from corpus.errors import BackendError, BudgetSpent, EgressRefused, Overloaded
from corpus.types import Message

if TYPE_CHECKING:
    from app.services import Services

LONGEST_REWRITE = 500
REWRITE_TOKENS = 120
TURNS_SHOWN = 6
REWRITE_WEIGHT = 1.0
"""How much the ranking for the rewrite counts beside those by rules.

Source: alone, a small model's rewrites cost .09 and .07 nDCG@5; beside the rules they cost nothing, and a person's gain as much
as alone; docs/retrieval.md.
"""

_log = structlog.get_logger(__name__)


async def understand_question(services: Services, ask: Ask, recalled: Recalled, asker: Asker) -> Standalone:
    """What to search for. A rewrite that fails, or that the provider may not make, leaves it to the rules."""
    settings = services.settings.history
    if settings.strategy == "last_turn" or not recalled.messages:
        return understand(ask.question, (), 0)
    by_rules = understand(ask.question, recalled.messages, settings.turns)
    if settings.strategy == "llm":
        rewritten = await _rewrite(services, ask, recalled, asker)
        if rewritten is not None:
            return Standalone(rewritten, (*by_rules.searches, (rewritten, REWRITE_WEIGHT)))
    return by_rules


async def _rewrite(services: Services, ask: Ask, recalled: Recalled, asker: Asker) -> str | None:
    shown = recalled.messages[-TURNS_SHOWN:]
    conversation = "\n".join(f"{message.role}: {message.content}" for message in shown)
    text = services.prompts.rewrite.format(conversation=conversation, question=ask.question)
    rests_on = tuple(passage.chunk_id for passage in recalled.inherited)
    prompt = Prompt((Message("user", text),), recalled.label, REWRITE_TOKENS, rests_on=rests_on)
    try:
        answer = await services.gateway.complete(prompt, asker)
    except (BackendError, EgressRefused, Overloaded, BudgetSpent) as error:
        _log.warning("rewrite failed", action="rewrite_failed", kind=type(error).__name__)
        return None
    rewritten = " ".join(answer.split()).strip("\"'“”")
    if not rewritten or len(rewritten) > LONGEST_REWRITE:
        _log.warning("rewrite not used", action="rewrite_refused", length=len(rewritten))
        return None
    return rewritten
