"""Documents that carry dates: what is in force comes first; documents without dates rank as ever."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from corpus.search import Query, Scope, Searcher, today_utc
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot
from tests.corpus.corpora import Text, asked, published

EVERYONE = Scope(("everyone",))
RULE = "Hotels in Germany cost at most {} EUR a night, and breakfast is paid for by whoever travels there for the company."
TEXTS = [
    Text(RULE.format(120), near=0.80, metadata={"valid_from": "2025-01-01", "valid_until": "2025-12-31"}),
    Text(RULE.format(135), near=0.79, metadata={"valid_from": "2026-01-01", "valid_until": "2026-12-31"}),
    Text(RULE.format(150), near=0.78, metadata={"effective": "2027-01-01"}),
    Text("Hotels are booked through the travel desk.", near=0.70),
    Text("Hotels in Spain are cheap.", near=0.55, metadata={"valid_until": "someday", "expires": "2020-01-01"}),
    Text("Hotels in France are not.", near=0.55, metadata={"expires": "2020"}),
]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSnapshot]:
    """The texts above."""
    opened = published(tmp_path_factory.mktemp("validity") / "data", TEXTS)
    yield opened
    opened.close()


def searcher(snapshot: OpenSnapshot, today: date = date(2026, 11, 23), **values: object) -> Searcher:
    """A search on some day."""
    return Searcher(snapshot.store, snapshot.dense, snapshot.lexical, SearchSettings.model_validate(values), lambda: today)


def found(search: Searcher, *texts: str) -> dict[int, float]:
    """The scores of what is found by some ways of asking, best first."""
    hits = search.search([Query(text, asked()) for text in texts], EVERYONE, 10)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return {hit.passage.ordinal: hit.score for hit in hits}


@pytest.mark.parametrize(
    ("today", "question", "first"),
    [
        (date(2025, 7, 1), "hotel in Germany?", 0),
        (date(2025, 12, 31), "hotel in Germany?", 0),
        (date(2026, 1, 1), "hotel in Germany?", 1),
        (date(2026, 12, 31), "hotel in Germany?", 1),
        (date(2027, 1, 1), "hotel in Germany?", 2),
        (date(2026, 7, 1), "hotel in Germany in 2025?", 0),
        (date(2026, 7, 1), "hotel in Germany last year?", 0),
        (date(2026, 7, 1), "hotel in Germany next year?", 2),
        (date(2025, 7, 1), "hotel in Germany on 2026-03-01?", 1),
    ],
)
def test_the_version_in_force_comes_first(snapshot: OpenSnapshot, today: date, question: str, first: int) -> None:
    """By the day of the question, or by the time that it names."""
    assert next(iter(found(searcher(snapshot, today), question))) == first


def test_what_is_not_in_force_loses_the_penalty_for_each_way_of_asking(snapshot: OpenSnapshot) -> None:
    """Exactly as much as is configured; what is in force, or has no date that can be read, loses nothing."""
    question = ("hotel in Germany", "hotel")
    without = found(searcher(snapshot, expired_penalty=0), *question)
    assert list(without)[:4] == [1, 2, 0, 3], "no penalty: only versions trade places, the one in force first"
    with_it = found(searcher(snapshot, expired_penalty=0.05), *question)
    lost = {ordinal: round(without[ordinal] - with_it[ordinal], 5) for ordinal in (3, 4, 5)}
    assert lost == {3: 0.0, 4: 0.1, 5: 0.1}
    assert set(list(found(searcher(snapshot, expired_penalty=0.5), *question))[:2]) == {1, 3}


def test_the_fields_are_those_that_are_configured(snapshot: OpenSnapshot) -> None:
    """With none configured no date counts; another name is taken up."""
    none = searcher(snapshot, valid_from_fields=(), valid_until_fields=())
    assert list(found(none, "hotel in Germany"))[:3] == [0, 1, 2]
    only_expires = searcher(snapshot, valid_from_fields=(), valid_until_fields=("expires",), expired_penalty=1)
    assert set(list(found(only_expires, "hotel in Germany"))[-2:]) == {4, 5}


def test_without_dates_the_day_changes_nothing(tmp_path: Path) -> None:
    """Rankings and scores are the same on any day and under any penalty, also for a question that names a year."""
    texts = [Text(RULE.format(number), metadata={"author": "2020-01-01"}) for number in range(40)]
    snapshot = published(tmp_path / "data", texts)
    try:
        for question in ("hotel in Germany", "hotel in Germany in 2019", "hotel 17 last year"):
            expected = found(searcher(snapshot, expired_penalty=0), question)
            assert found(searcher(snapshot, date(1999, 1, 1), expired_penalty=5), question) == expected
            assert list(found(searcher(snapshot, date(1999, 1, 1), expired_penalty=5), question)) == list(expected)
    finally:
        snapshot.close()


def test_the_day_is_todays_unless_it_is_given() -> None:
    """In UTC, asked for anew with each question."""
    assert today_utc() in {datetime.now(UTC).date(), datetime.now(UTC).date()}
