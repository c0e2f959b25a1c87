"""A passage that holds what a question puts in quotation marks comes before all that do not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from corpus.lexical import LexicalFilter
from corpus.search import Query, Scope, Searcher
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot
from tests.corpus.corpora import Text, asked, published

EVERYONE = Scope(("everyone",))
WORDINGS = (
    'Where does it say "{}"?',
    "“{}”",
    "„{}“ wo steht das?",
    "{others} «{}»",
    "{others} {others} {others} ‘{}’ or else?",
)
Publish = Callable[[Sequence[Text]], OpenSnapshot]


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Publish]:
    """Publishes texts and opens them."""
    opened: list[OpenSnapshot] = []

    def make(texts: Sequence[Text]) -> OpenSnapshot:
        opened.append(published(tmp_path / f"data-{len(opened)}", texts))
        return opened[-1]

    yield make
    for snapshot in opened:
        snapshot.close()


def ranked(search: Searcher, text: str, scope: Scope = EVERYONE, top_k: int = 50) -> list[int]:
    """The ordinals found for a question, best first."""
    return [hit.passage.ordinal for hit in search.search([Query(text, asked())], scope, top_k)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_one_passage_that_holds_a_quotation_is_always_first(publish: Publish, seed: int) -> None:
    """Over generated texts of few words, so that all of them share words with the quotation: rank 1 for each, however asked."""
    chance = random.Random(seed)
    words = [f"{a}{b}" for a in ("ba", "ke", "lo", "mi", "nu", "ra") for b in ("dor", "fen", "gul", "hap", "jit", "the", "of")]
    words += ["the", "of", "and", "is"]
    texts = [" ".join(chance.choices(words, k=60)) for _ in range(400)]
    snapshot = publish([Text(text) for text in texts])
    tried = 0
    for ordinal in chance.sample(range(400), 40):
        tokens = texts[ordinal].split()
        length = chance.randint(3, 6)
        start = chance.randrange(60 - length)
        quotation = " ".join(tokens[start : start + length])
        if sum(f" {quotation} " in f" {text} " for text in texts) > 1:
            continue
        for wording in WORDINGS:
            others = " ".join(chance.choices(words, k=6))
            assert ranked(snapshot.search, wording.format(quotation.title(), others=others), top_k=1) == [ordinal]
            tried += 1
    assert tried > 150


def test_every_passage_that_holds_it_comes_before_every_one_that_does_not(publish: Publish) -> None:
    """Also those that neither meaning nor the other words find; more quotations held come first."""
    held = [Text("The blue heron stands still.", near=-0.9), Text("A Blue\nHeron and a red fox.", near=-0.9)]
    others = [Text(f"Where herons of blue fly, number {number}. Heron heron blue.", near=0.95) for number in range(30)]
    snapshot = publish([*others, *held])
    settings = SearchSettings(candidates=5)
    search = Searcher(snapshot.store, snapshot.dense, snapshot.lexical, settings)
    assert set(ranked(search, 'Where does the "blue heron" fly?')[:2]) == {30, 31}
    assert ranked(search, 'Where do "blue heron" and "red fox" fly?')[:2] == [31, 30]


def test_a_title_holds_a_quotation_as_a_text_does(publish: Publish) -> None:
    """People quote documents by their titles."""
    snapshot = publish([Text("Hotels cost money.", near=0.9), Text("Hotels cost 80 EUR.", title="Travel policy", near=0.1)])
    assert ranked(snapshot.search, "What do hotels cost by the “travel policy”?") == [1, 0]


def test_a_quotation_that_nothing_holds_changes_nothing(publish: Publish) -> None:
    """The ranking is that of the same words without marks."""
    snapshot = publish([Text(f"word{number} heron blue {number % 7}") for number in range(60)])
    assert ranked(snapshot.search, 'the "blue heron" 3') == ranked(snapshot.search, "the blue heron 3")


@pytest.mark.parametrize(
    "question", ["5'11\" of blue heron", 'blue heron"', "it's blue heron's", '"blue heron', "„blue heron", '"']
)
def test_odd_marks_rank_as_if_they_were_not_there(publish: Publish, question: str) -> None:
    """Apostrophes, inches and marks that nothing closes fail nothing and boost nothing."""
    snapshot = publish(
        [Text(f"word{number} heron blue {number % 7}") for number in range(60)] + [Text("blue heron", near=-0.9)]
    )
    plain = question.translate(dict.fromkeys(map(ord, '"„'), " "))
    assert ranked(snapshot.search, question) == ranked(snapshot.search, plain)
    assert ranked(snapshot.search, question)[0] != 60 or len(question) == 1


def test_what_is_hidden_is_not_quoted(publish: Publish) -> None:
    """Hidden passages that hold the words take no place among the candidates, and none is found."""
    hidden = [Text("the blue heron", groups=("board",)) for _ in range(30)]
    snapshot = publish(
        [*hidden, Text("a long text about the blue heron and much else " * 3, near=-0.9), Text("else", near=0.9)]
    )
    everyone = LexicalFilter(("everyone",), {}, sees_everything=False)
    assert ranked(snapshot.search, '"blue heron"') == [30, 31]
    assert snapshot.lexical.holding("blue heron", 1, everyone).tolist() == [30]
    assert len(snapshot.lexical.holding("blue heron", 100, LexicalFilter(("board",), {}, sees_everything=False))) == 30


def test_quotations_can_be_switched_off(publish: Publish) -> None:
    """With no weight a quotation is words like others."""
    snapshot = publish(
        [Text("blue heron", near=-0.9), Text("heron of blue and blue heron", near=0.9), Text("blue heron x", near=0.5)]
    )
    search = Searcher(snapshot.store, snapshot.dense, snapshot.lexical, SearchSettings(quotation_weight=0))
    np.testing.assert_array_equal(ranked(search, '"blue heron x"'), ranked(search, "blue heron x"))


def test_a_quotation_of_an_earlier_turn_is_words_like_others(publish: Publish) -> None:
    """The first way of asking is the question itself; the others may quote what they like."""
    snapshot = publish([Text("the blue heron", near=0.3), Text("the red fox", near=0.3), Text("neither", near=0.9)])
    own = [Query('and the "red fox"?', asked()), Query('where is the "blue heron"? and the "red fox"?', asked())]
    earlier = [Query("and where?", asked()), Query('where is the "blue heron"? and where?', asked())]
    unmarked = [Query("and where?", asked()), Query("where is the blue heron? and where?", asked())]
    assert [hit.passage.ordinal for hit in snapshot.search.search(own, EVERYONE, 1)] == [1]
    scores = [[hit.score for hit in snapshot.search.search(queries, EVERYONE, 3)] for queries in (earlier, unmarked)]
    assert scores[0] == scores[1]
