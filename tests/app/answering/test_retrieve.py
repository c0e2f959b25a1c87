"""Finding the passages for a question: its weighted ways of asking, its conversation, its filters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.access import Caller
from app.answering.retrieve import SearchResult, rarity, search
from app.services import Services
from corpus.search import Scope
from corpus.types import Message
from tests.app.serving import composed, settings_of

pytestmark = pytest.mark.anyio

EVERYONE = Caller("local", ("everyone",))
HISTORY = (Message("user", "When are expense reports due after a trip?"), Message("assistant", "Within 30 days."))


@pytest.fixture
async def services(site: Path) -> AsyncIterator[Services]:
    """The service over the small corpus."""
    services = composed(settings_of(site / "data"))
    await services.start()
    yield services
    await services.close()


async def found(
    services: Services,
    query: str,
    messages: tuple[Message, ...] = (),
    *,
    caller: Caller = EVERYONE,
    top_k: int = 3,
    filters: dict[str, tuple[str, ...]] | None = None,
) -> SearchResult:
    """What a search finds."""
    return await search(services, caller, query, messages, top_k, filters or {})


async def test_a_follow_up_finds_what_it_means(services: Services) -> None:
    """Alone `which form is it?` says little; after a question about expenses it finds the travel policy first."""
    result = await found(services, "And which form is it?", HISTORY)
    assert result.hits[0].passage.source == "policies/travel.md"
    assert result.standalone_question == "When are expense reports due after a trip? And which form is it?"


async def test_a_question_that_stands_alone_ranks_the_same_in_any_conversation(services: Services) -> None:
    """Hits and scores are those of a first question."""
    question = "What does error E-4410 of the badge reader network mean?"
    assert await found(services, question, HISTORY) == await found(services, question)


async def test_top_k_is_at_most_so_many_and_a_prefix_of_more(services: Services) -> None:
    """Fewer hits are the first of more."""
    three = await found(services, "How are trips booked?", top_k=3)
    one = await found(services, "How are trips booked?", top_k=1)
    assert len(three.hits) == 3
    assert one.hits == three.hits[:1]


async def test_a_caller_finds_only_what_their_groups_may_see(services: Services) -> None:
    """The salaries are first for the board, absent for everyone, and nothing is there for nobody."""
    question = "canary salary band of directors"
    board = await found(services, question, caller=Caller("local", ("board",)))
    assert board.hits[0].passage.source == "board/salaries.md"
    assert all(hit.passage.source != "board/salaries.md" for hit in (await found(services, question)).hits)
    assert (await found(services, question, caller=Caller("local", ()))).hits == ()


async def test_filters_narrow_what_is_found(services: Services) -> None:
    """AND across fields, OR within one; a value that no document has finds nothing."""
    result = await found(services, "work", filters={"source": ("it/errors.txt", "policies/travel.md"), "format": ("text",)})
    assert {hit.passage.source for hit in result.hits} == {"it/errors.txt"}
    assert (await found(services, "work", filters={"source": ("nowhere",)})).hits == ()


async def test_rarity_is_of_content_words_among_what_is_visible(services: Services) -> None:
    """A word of one document is rarer than a word of several; function words have none; without passages there is none."""
    hits = (await found(services, "How do employees work from home with form TR-204?")).hits
    passages = tuple(hit.passage for hit in hits)
    with services.snapshots.lease() as leased:
        scope = Scope(EVERYONE.groups)
        rare = rarity(leased.snapshot, scope, "the form of work", passages)
        assert set(rare) == {"form", "work"}
        assert rare["form"] > 0
        assert rarity(leased.snapshot, scope, "the form of work", ()) == {}
