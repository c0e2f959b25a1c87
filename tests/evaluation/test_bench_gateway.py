"""The gateway's figures: what is counted, by hand on made-up streams and for real with few of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings
from app.settings import HistorySettings, PromptSettings, ServerSettings, ServiceSettings
from corpus.embedders.embedder import Embedder
from corpus.settings import EmbedderSettings, LabelSettings, SearchSettings
from evaluation.bench import options as bench_options
from evaluation.bench.bare import FORMATS, BareClient, Streamed
from evaluation.bench.failing import (
    SPARE,
    WORDS,
    Outcome,
    killed_figures,
    measure_killed,
    measure_refused,
    refused_figures,
)
from evaluation.bench.figures import Aim, BenchError, Figure
from evaluation.bench.held import Held, Stream, held_figures, measure_held
from evaluation.bench.options import Options
from evaluation.bench.overhead import (
    Pair,
    measure_overhead,
    open_gateway,
    overhead_figures,
    provider,
    rounds,
    sentences,
    service_figures,
    stream_gateway,
)
from tests.making import job_settings
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
SPARE_TEXT = " ".join([SPARE] * WORDS)


@pytest.fixture
def options(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Twenty chunks, the default settings, and the model that is loaded already."""
    monkeypatch.setattr(bench_options, "open_embedder", lambda settings, **_: embedder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    settings = ServiceSettings(
        data_dir=tmp_path / "data", server=ServerSettings(), labels=LabelSettings(), embedder=EmbedderSettings(),
        search=SearchSettings(), history=HistorySettings(), prompt=PromptSettings(folder=ROOT / "config" / "prompts"),
        llm=LlmSettings(),
    )  # fmt: skip
    job, nowhere = job_settings(tmp_path / "data"), Path("none")
    return Options(settings=settings, job=job, config=nowhere, golden=nowhere, scratch=tmp_path, chunks=20, held_s=1.0)


def streamed(took_s: float, cpu_s: float = 0.0, first_s: float = 0.0, tokens: int = 101) -> Streamed:
    """An answer whose last token is its end."""
    return Streamed(tokens, first_s, took_s, took_s, cpu_s)


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    """The figures by their names."""
    return {figure.name: figure for figure in figures}


def address_of(fake: RunningFake) -> str:
    """Where a fake listens, without a path."""
    return fake.base_url.removesuffix("/v1")


def test_the_time_of_a_token_is_the_median_of_the_pairs_ratios() -> None:
    """1.2, 1.5 and 3 times as long are 1.5 times, which misses; one slow pair does not decide."""
    long = [Pair(streamed(1.2, 0.11), streamed(1.0, 0.1)), Pair(streamed(3.0, 0.3), streamed(2.0, 0.2)),
            Pair(streamed(3.0, 0.12), streamed(1.0, 0.1))]  # fmt: skip
    short = [Pair(streamed(1, first_s=0.007), streamed(1, first_s=0.005))] * 3
    found = by_name(overhead_figures("openai", 100, long, short))
    assert found["openai: time a token, gateway / bare client"].value == pytest.approx(1.5)
    assert found["openai: time a token, gateway / bare client"].passed is False
    assert found["openai: processor time a token, gateway / bare client"].value == pytest.approx(1.2)
    assert found["openai: processor time a token, gateway / bare client"].passed is True
    assert found["openai: processor time a token, gateway"].shown == "1200.0 µs"
    assert found["openai: added to the first token"].value == pytest.approx(2.0)
    assert found["openai: added to the first token"].shown_aim == "≤ 5.0 ms"
    assert found["openai: first token, bare client"].value == pytest.approx(5.0)


def test_the_service_is_timed_from_its_first_token_to_its_last() -> None:
    """The search before is not a token's; without a processor's clock there is no such figure."""
    pairs = [Pair(streamed(1.5, 0.05, first_s=0.5), streamed(0.3, first_s=0.1))]
    found = by_name(service_figures(pairs))
    assert found["service: time a token, service / bare client"].value == pytest.approx(5.0)
    assert found["service: time a token, service"].value == pytest.approx(10_000)
    assert found["service: processor time a token, its event loop"].value == pytest.approx(50_000 / 101)
    assert len(service_figures([Pair(streamed(1.5), streamed(0.3))])) == 3


def test_words_come_in_sentences() -> None:
    """As many as asked, most sentences of them whole."""
    assert len(sentences(500).split()) == 500
    assert sentences(9) == "How many days of leave do I have? How"


def test_a_held_stream_is_well_only_with_all_its_tokens_from_the_right_one() -> None:
    """Of six streams one is whole: the others ended in an error, were cut, refused, too short, or another's."""
    streams = [
        Stream(8, "done", "fake"), Stream(8, "error"), Stream(8, "cut"), Stream(0, "refused"),
        Stream(7, "done", "fake"), Stream(8, "done", "extractive"),
    ]  # fmt: skip
    found = by_name(held_figures(Held(streams, 8, 300.0, 311.0), 60))
    assert (found["held streams that failed"].value, found["held streams that failed"].passed) == (5, False)
    assert found["held streams that failed"].shown_aim == "≤ 0 requests"
    assert found["resident memory, 10 s to 60 s, grew by"].value == 11.0
    assert found["resident memory, 10 s to 60 s, grew by"].passed is False
    assert len(held_figures(Held(streams, 8, None, None), 60)) == 1


def test_what_a_killed_llm_leaves_behind_is_told_apart() -> None:
    """Wordless and failed: two. With words and no error event: cut off, ended as if whole, or spliced with another's."""
    good = [Outcome("primary primary", "error"), Outcome(SPARE_TEXT, "done")]
    lost = [Outcome("", "error"), Outcome("", "refused")]
    spliced = Outcome(f"primary {SPARE_TEXT}", "done")
    found = killed_figures([*good, *lost, Outcome("primary", ""), spliced])
    assert [figure.value for figure in found] == [2, 2]
    assert [figure.passed for figure in found] == [False, False]
    assert [figure.passed for figure in killed_figures(good)] == [True, True]
    assert found[0].data == "6 requests as their LLM is killed: 1 end in an error event, 1 by the fallback"


@pytest.mark.parametrize("outcome", [Outcome("primary", "error"), Outcome(SPARE_TEXT, "done")])
def test_a_kill_that_meets_one_kind_of_request_proves_nothing(outcome: Outcome) -> None:
    """It is an error rather than two figures that pass."""
    with pytest.raises(BenchError, match="none of one kind proves nothing"):
        killed_figures([outcome])


def test_the_slowest_fallback_is_held_against_the_aim() -> None:
    """Two of 10 ms and one of 60 ms miss 50 ms."""
    pairs = [Pair(streamed(1, first_s=0.001 * (took + 2)), streamed(1, first_s=0.002)) for took in (10, 60, 10)]
    slowest, median = refused_figures("name", pairs, Aim(50))
    assert (slowest.name, slowest.passed) == ("name, slowest", False)
    assert median.passed is None
    assert [slowest.value, median.value] == pytest.approx([60, 10])


async def test_pairs_alternate_and_the_first_do_not_count() -> None:
    """Whoever goes first takes turns, so that neither always finds the other's warm cache."""
    order: list[str] = []

    async def one(name: str, took_s: float) -> Streamed:
        order.append(name)
        return streamed(took_s)

    pairs = await rounds(lambda: one("ours", len(order)), lambda: one("bare", len(order)), 2, warm_up=1)
    assert order == ["bare", "ours", "ours", "bare", "bare", "ours"]
    assert [(pair.ours.took_s, pair.bare.took_s) for pair in pairs] == [(2, 3), (5, 4)]


@pytest.mark.parametrize("kind", list(FORMATS))
async def test_both_ways_see_the_same_tokens(kind: str) -> None:
    """Seven tokens of each wire format: counted, timed, and the first not the last."""
    with running_fake_llm(FakeBehaviour(tokens=30, first_token_delay_s=0.05, tokens_per_second=50)) as fake:
        gateway = open_gateway({"default": "fake", "providers": {"fake": provider(address_of(fake), kind)}})
        async with BareClient(address_of(fake)) as client:
            bare = await client.stream(FORMATS[kind], 7)
        ours = await stream_gateway(gateway, 7)
        await gateway.close()
    for found in (bare, ours):
        assert found.tokens == 7
        assert 0.05 <= found.first_s < found.last_s <= found.took_s
        assert found.between_s == pytest.approx(0.02, abs=0.01)
        assert 0 < found.cpu_s < found.took_s


async def test_another_answer_than_expected_is_not_compared() -> None:
    """A fake that says less than asked would make every ratio meaningless."""
    with running_fake_llm(FakeBehaviour(tokens=3)) as fake:
        async with BareClient(address_of(fake)) as client:
            with pytest.raises(BenchError, match="the bare client received 3 tokens of the fake LLM's 7"):
                await client.stream(FORMATS["openai"], 7)
            with pytest.raises(BenchError, match="POST /v1/ask was answered with 404, not 200"):
                await anext(client.events("hello"))


async def test_each_format_is_measured_with_aims() -> None:
    """Six figures a format, three of them with an aim."""
    with running_fake_llm(FakeBehaviour(tokens=50)) as fake:
        figures = await measure_overhead(address_of(fake), tokens=50, count=2, short_count=2)
    assert [figure.name.split(":")[0] for figure in figures] == [kind for kind in FORMATS for _ in range(6)]
    assert sum(figure.aim is not None for figure in figures) == 9
    assert all(figure.value > 0 for figure in figures if "added" not in figure.name)


async def test_a_refused_connection_is_tried_again_and_an_open_breaker_is_not() -> None:
    """The retry waits 200 ms, which the fallback's first token then comes later; with the breaker open it does not."""
    with running_fake_llm(FakeBehaviour(tokens=50)) as fake:
        found = by_name(await measure_refused(address_of(fake), count=2))
    refused = found["fallback after a refused connection, added to its first token, median"]
    left_alone = found["fallback while the breaker is open, added to its first token, median"]
    assert 190 < refused.value < 1000
    assert left_alone.value < 100


@pytest.mark.nightly
def test_streams_are_held_through_a_real_service(options: Options) -> None:
    """Five of them for a second, by processes of their own: all end well."""
    failed, *memory = measure_held(options, streams=5, begin_within_s=2)
    assert (failed.value, failed.passed) == (0, True)
    assert failed.data == "5 streams at a time for 1 s, 2 tokens/s each"
    assert [figure.unit for figure in memory] in ([], ["MB", "MB"])


def test_a_real_llm_is_killed_under_load(options: Options) -> None:
    """Nobody who had not seen a word gets none, and nobody who had is left without an error event."""
    assert [(figure.value, figure.passed) for figure in measure_killed(options, streams=12)] == [(0, True), (0, True)]
