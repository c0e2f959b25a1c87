"""Reranking on the way to an answer: the order, what stays ahead, and what happens when the model fails."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.answering import rerank as reranking
from app.answering.history import Standalone, understand
from app.answering.rerank import BATCH, Named, Rerankers, named_in, reordered
from app.main import create_app
from app.settings import ServiceSettings
from corpus.errors import ConfigError, ModelDamaged, RerankerFailed
from corpus.lexical import IDENTIFYING
from corpus.rerankers.reranker import Reranker, Scores
from corpus.settings import SearchSettings
from corpus.types import Hit, Message
from tests.app.answering.passages import passage
from tests.app.serving import ServiceClient, composed, running, settings_of
from tests.tiny_reranker import make_cross_encoder

pytestmark = pytest.mark.anyio

QUESTION = "How many days a week may employees work from home?"
SOURCES = "policies/remote.md", "policies/travel.md", "it/errors.txt"

Start = Callable[..., AbstractAsyncContextManager[ServiceClient]]


def hits_of(*texts: str) -> list[Hit]:
    """Hits in the order of their fused scores."""
    return [Hit(passage(text, number=number), score=1 / number) for number, text in enumerate(texts, start=1)]


def order(hits: list[Hit], found: list[Hit]) -> list[int]:
    """Where each hit of `found` stood in `hits`."""
    return [hits.index(hit) for hit in found]


@given(st.lists(st.sampled_from([0.0, 0.5, -3.0, 7.25]), max_size=12))
def test_the_score_decides_and_equal_ones_stay_as_they_were(scores: list[float]) -> None:
    """It is a stable sort by the reranker's score alone; nothing is lost."""
    hits = hits_of(*(f"Text {number}." for number in range(len(scores))))
    found = order(hits, reordered(hits, scores, Named()))
    assert found == sorted(range(len(scores)), key=lambda number: -scores[number])


def test_what_the_question_names_stays_ahead_of_any_score() -> None:
    """Two of the names before one, one before none; within the same number the score decides."""
    hits = hits_of("Nothing.", "Form TR-204.", "Use TR-204 where the “blue form” is missing.", "The  BLUE\nform.", "Else.")
    named = named_in(understand('Where do I get TR-204, the "blue form"?', (), 2))
    assert named == Named(("tr-204",), ("blue form",))
    assert order(hits, reordered(hits, [9.0, 1.0, -5.0, 2.0, 10.0], named)) == [2, 3, 1, 4, 0]


def test_a_part_of_a_code_is_not_the_code() -> None:
    """TR-2041 does not hold TR-204."""
    hits = hits_of("Form TR-2041.", "Form TR-204.")
    assert order(hits, reordered(hits, [2.0, 1.0], Named(("tr-204",)))) == [1, 0]


def test_a_name_that_many_hold_singles_nothing_out() -> None:
    """Held by more than a few passages it is a word like others, and the score alone decides."""
    for holding, first in ((IDENTIFYING, 0), (IDENTIFYING + 1, IDENTIFYING + 1)):
        hits = hits_of(*["About COVID-19."] * holding, *["About leave."] * (12 - holding))
        scores = [0.0] * holding + [1.0] * (12 - holding)
        assert order(hits, reordered(hits, scores, Named(("covid-19",))))[0] == first


def test_an_earlier_turns_name_counts_where_the_question_has_none() -> None:
    """`until when is it valid?` means the form named before; a question with a form of its own means that one."""
    history = (Message("user", "Where do I get form TR-204?"),)
    assert named_in(understand("And until when is it valid?", history, 2)).identifiers == ("tr-204",)
    assert named_in(understand("And what about TR-9?", history, 2)).identifiers == ("tr-9",)
    assert named_in(Standalone("Leave", ())) == Named()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder that likes the word `badge`, which only the passage on errors holds."""
    return make_cross_encoder(tmp_path_factory.mktemp("model"), "badge")


@pytest.fixture
def start(site: Path) -> Start:
    """Starts the service over the small corpus with these `search` settings."""

    def start(**search: object) -> AbstractAsyncContextManager[ServiceClient]:
        settings = settings_of(site / "data").model_copy(update={"search": SearchSettings.model_validate(search)})
        return running(settings)

    return start


@pytest.fixture
async def reranked(start: Start, model: Path) -> AsyncIterator[ServiceClient]:
    """The service with that model."""
    async with start(reranker=str(model)) as client:
        yield client


async def ask(client: ServiceClient, question: str = QUESTION) -> dict[str, object]:
    """The answer to a question."""
    response = await client.post("/v1/ask", json={"question": question})
    assert response.status_code == 200, response.text
    answer: dict[str, object] = response.json()
    return answer


async def found(client: ServiceClient, query: str = QUESTION, **body: object) -> list[str]:
    """The sources that a search finds, best first."""
    response = await client.post("/v1/search", json={"query": query, **body})
    assert response.status_code == 200, response.text
    return [hit["source"] for hit in response.json()["hits"]]


async def test_a_search_and_an_answer_are_in_the_models_order(start: Start, model: Path) -> None:
    """The passage that the model likes is first; without a model it is not, and no time is spent on reranking."""
    async with start() as plain:
        assert (await found(plain))[0] == "policies/remote.md"
        assert "rerank" not in (await ask(plain))["timings_ms"]  # type: ignore[operator]
    async with start(reranker=str(model)) as client:
        sources = await found(client)
        assert sources[0] == "it/errors.txt"
        assert set(sources) == set(SOURCES)
        timings = (await ask(client))["timings_ms"]
        assert isinstance(timings, dict)
        assert timings["rerank"] > 0


async def test_the_candidates_of_an_answer_are_in_the_models_order(reranked: ServiceClient) -> None:
    """The first source that a stream tells of is the passage that the model likes."""
    async with reranked.stream("POST", "/v1/ask", json={"question": QUESTION, "stream": True}) as response:
        text = "".join([part async for part in response.aiter_text()])
    first = text.index('"source":')
    assert "it/errors.txt" in text[first : first + 40]


async def test_an_exact_identifier_is_first_whatever_the_model_likes(reranked: ServiceClient) -> None:
    """The travel policy alone holds TR-204."""
    assert (await found(reranked, "badge form TR-204"))[0] == "policies/travel.md"


async def test_fewer_hits_are_the_first_of_more(reranked: ServiceClient) -> None:
    """How many are asked for does not change their order."""
    assert await found(reranked, top_k=1) == (await found(reranked, top_k=20))[:1]


async def test_only_the_first_candidates_are_read(start: Start, model: Path) -> None:
    """With one candidate the fused order stays, and what was not read follows in it."""
    async with start() as plain, start(reranker=str(model), rerank_candidates=1) as client:
        assert await found(client) == await found(plain)


async def test_the_model_is_opened_once_however_many_ask(start: Start, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six questions at once wait for the same opening, and get the same answer."""
    opened: list[str] = []
    async with start(reranker=str(model)) as client:
        rerankers = client.services.process.rerankers
        open_one = rerankers._open_one

        async def counted(name: str, allow_hub: bool) -> Reranker:
            opened.append(name)
            return await open_one(name, allow_hub)

        monkeypatch.setattr(rerankers, "_open_one", counted)
        answers = await asyncio.gather(*(found(client) for _ in range(6)))
        assert opened == [str(model)]
        assert all(answer == answers[0] for answer in answers)


async def test_a_model_that_cannot_be_opened_fails_no_question(start: Start, model: Path, tmp_path: Path) -> None:
    """Damaged weights: the fused order, one log record with the model's name, and no second try at once."""
    damaged = Path(shutil.copytree(model, tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"garbage")
    async with start() as plain, start(reranker=str(damaged)) as client:
        with capture_logs() as records:
            expected = await found(plain)
            assert await found(client) == expected
            assert await found(client) == expected
            assert (await ask(client))["answer"] == (await ask(plain))["answer"]
    (refused,) = [record for record in records if record["action"] == "reranker_refused"]
    assert refused["error"] == ModelDamaged.__name__
    assert str(damaged) in refused["reason"]


async def test_a_model_that_could_not_be_opened_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while, so that a folder that was mended is used without a restart."""
    tries = []

    async def open_one(name: str, allow_hub: bool) -> Reranker:
        tries.append(name)
        if len(tries) == 1:
            raise ConfigError("not yet")
        return Liking("")

    rerankers = Rerankers(open_one)
    assert await rerankers.get("model", allow_hub=False) is None
    assert await rerankers.get("model", allow_hub=False) is None
    monkeypatch.setattr(reranking, "OPEN_AGAIN_S", -1.0)
    assert await rerankers.get("model", allow_hub=False) is not None
    assert tries == ["model", "model"]


class Liking:
    """A reranker that scores what contains a word 1, else 0; where `word` is empty, it fails."""

    name = "liking"

    def __init__(self, word: str) -> None:
        self.word = word
        self.batches: list[int] = []

    def score(self, question: str, texts: Sequence[str]) -> Scores:
        self.batches.append(len(texts))
        if not self.word:
            raise RerankerFailed(f"failed over {len(texts)} passages (OutOfMemoryError)")
        return np.array([float(self.word in text) for text in texts])


async def test_a_model_that_fails_while_scoring_fails_no_question(start: Start, model: Path) -> None:
    """Out of memory: the fused order, one record for each failure, without a word of question or passages."""
    async with start() as plain, start(reranker=str(model)) as client:
        key = str(model), False
        client.services.process.rerankers._opening[key] = asyncio.create_task(_as_it_is(Liking("")))
        with capture_logs() as records:
            assert await found(client) == await found(plain)
            assert await found(client) == await found(plain)
    failed = [record for record in records if record["action"] == "rerank_failed"]
    assert [record["error"] for record in failed] == [RerankerFailed.__name__] * 2
    assert "employees" not in str(failed)
    assert "badge" not in str(failed)


async def _as_it_is(reranker: Reranker) -> Reranker | None:
    return reranker


async def test_passages_are_scored_in_small_batches(start: Start, model: Path) -> None:
    """No batch is larger than its limit, and every passage is scored once."""
    liking = Liking("badge")
    async with start(reranker=str(model)) as client:
        client.services.process.rerankers._opening[str(model), False] = asyncio.create_task(_as_it_is(liking))
        hits = hits_of(*(f"{'word ' * (number % 7)} badge {number}" for number in range(2 * BATCH + 3)))
        scores = await reranking._score(client.services, liking, QUESTION, [hit.passage.text for hit in hits])
    assert scores == [1.0] * (2 * BATCH + 3)
    assert liking.batches == [BATCH, BATCH, 3]


async def test_a_folder_that_is_missing_is_refused_at_the_start(site: Path) -> None:
    """A mistyped path is told before anybody asks."""
    search = SearchSettings(reranker="/nowhere/model")
    with pytest.raises(ConfigError, match=r"search\.reranker '/nowhere/model' is not a folder"):
        composed(settings_of(site / "data").model_copy(update={"search": search}))


async def test_a_change_of_the_model_is_in_force_without_a_restart(site: Path, model: Path) -> None:
    """Switched on, the next search is in its order; a missing one is refused and changes nothing; off, it is as before."""
    settings = settings_of(site / "data")
    app = create_app(settings, composed(settings))
    async with app.router.lifespan_context(app):
        current = app.state.current
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", timeout=60) as client:

            async def first() -> str:
                response = await client.post("/v1/search", json={"query": QUESTION})
                return str(response.json()["hits"][0]["source"])

            def with_model(name: str) -> ServiceSettings:
                return settings.model_copy(update={"search": SearchSettings(reranker=name)})

            assert await first() == "policies/remote.md"
            await current.replace(with_model(str(model)))
            assert await first() == "it/errors.txt"
            with pytest.raises(ConfigError, match="is not a folder"):
                await current.replace(with_model("/nowhere"))
            assert await first() == "it/errors.txt"
            await current.replace(settings)
            assert await first() == "policies/remote.md"


async def test_a_model_that_failed_and_was_put_aside_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """More failing models than are kept, one after the other and again: none raises."""
    monkeypatch.setattr(reranking, "OPEN_AGAIN_S", -1.0)

    async def refuse(model: str, allow_hub: bool) -> Reranker | None:
        raise RerankerFailed(f"{model!r} is not there")

    rerankers = Rerankers(refuse)
    for model in ("a", "b", "c", "a", "b", "c"):
        assert await rerankers.get(model, allow_hub=False) is None
    await rerankers.close()
