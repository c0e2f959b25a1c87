"""Hybrid search over a published corpus: fusion, folding, scope, and filters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpus.embedders.embedder import Embedder
from corpus.lexical import LexicalFilter, stems
from corpus.search import Query, Scope, Searcher
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot
from corpus.types import Hit, Vector
from tests.corpus.corpora import Text, asked, published

EVERYONE = Scope(("everyone",))
BOARD = Scope(("board",))
BOTH = Scope(("board", "everyone"))
QUESTIONS = [
    "When are expense reports due?",
    "E-4410",
    "Wie lang muss ein Passwort sein?",
    "¿Cuándo abre la oficina de Valencia?",
    "salary of directors",
    "How many days may I work from home?",
    "Where do visitors park?",
    "zebra",
]


@pytest.fixture
def search(snapshot: OpenSnapshot) -> Searcher:
    """With defaults."""
    return snapshot.search


def searcher(snapshot: OpenSnapshot, **values: object) -> Searcher:
    """With other settings."""
    return Searcher(snapshot.store, snapshot.dense, snapshot.lexical, SearchSettings.model_validate(values))


VECTORS: dict[str, Vector] = {}


def query(embedder: Embedder, text: str, weight: float = 1.0) -> Query:
    """A question as it is searched for; each is embedded once."""
    if text not in VECTORS:
        VECTORS[text] = embedder.embed_queries([text])[0]
    return Query(text, VECTORS[text], weight)


def told(hits: list[Hit]) -> list[tuple[int, float]]:
    """What a ranking is: ordinals with scores."""
    return [(hit.passage.ordinal, hit.score) for hit in hits]


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("When are expense reports due?", "policies/travel.md"),
        ("E-4410", "it/errors.txt"),
        ("Wie viele Zeichen braucht ein Passwort?", "it/passwörter.txt"),
        ("¿A qué hora abre la oficina?", "oficina.md"),
        ("Where do visitors park?", "faq.jsonl#1"),
    ],
)
def test_the_right_document_comes_first(search: Searcher, embedder: Embedder, text: str, source: str) -> None:
    """In each language, by meaning and by identifier, the document that answers is the first one."""
    assert search.search([query(embedder, text)], EVERYONE, 3)[0].passage.source == source


@pytest.mark.parametrize("text", QUESTIONS)
@pytest.mark.parametrize("candidates", [3, 100])
def test_the_score_is_the_weighted_sum_of_both_sides(
    snapshot: OpenSnapshot, embedder: Embedder, text: str, candidates: int
) -> None:
    """Scores and order are those computed by hand: cosine, saturating BM25, identifiers shared."""
    weights = {"dense_weight": 0.7, "lexical_weight": 1.6, "identifier_weight": 1.3, "fold_near_duplicates": False}
    asked = query(embedder, text)
    everyone = LexicalFilter(("everyone",), {}, sees_everything=False)
    mask = snapshot.store.mask(("everyone",), {})
    vectors = snapshot.dense.vectors(np.arange(snapshot.dense.size))
    assert mask.sum() < 16, "so few chunks count as lying apart as is typical"
    dense, cosines = snapshot.dense.search(asked.vector, candidates, mask)
    lexical, bm25 = snapshot.lexical.search(text, candidates, everyone)
    exact, _ = snapshot.lexical.search(text, candidates, everyone, must_identify=True)
    assert (len(exact) > 0) == (text == "E-4410"), "one of the questions names an identifier"
    words = dict(zip(lexical.tolist(), bm25.tolist(), strict=True))
    others = bm25[-1] if len(bm25) == candidates else 0.0
    scores = {}
    for ordinal in {*dense.tolist(), *lexical.tolist(), *exact.tolist()}:
        meaning = 0.7 * float(vectors[ordinal] @ asked.vector)
        found = words.get(ordinal, others)
        scores[ordinal] = meaning + 1.6 * found / (found + 30) + (1.3 / len(exact) ** 0.5 if ordinal in exact else 0)
    expected = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:50]
    hits = searcher(snapshot, **weights, candidates=candidates).search([asked], EVERYONE, 50)
    assert [hit.passage.ordinal for hit in hits] == [ordinal for ordinal, _ in expected]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-6)
    by_ordinal = dict(zip(dense.tolist(), cosines.tolist(), strict=True))
    for hit in hits:
        assert hit.cosine == by_ordinal.get(hit.passage.ordinal)
        assert hit.lexical_rank == (lexical.tolist().index(hit.passage.ordinal) + 1 if hit.passage.ordinal in lexical else None)


def test_queries_add_up_over_all_that_any_of_them_finds(snapshot: OpenSnapshot, embedder: Embedder) -> None:
    """A passage that only one of two queries finds is scored for both, by their weights."""
    settings = {"fold_near_duplicates": False, "candidates": 50}
    first, second = query(embedder, QUESTIONS[0]), query(embedder, QUESTIONS[6], 0.5)
    alone = [dict(told(searcher(snapshot, **settings).search([each], EVERYONE, 50))) for each in (first, second)]
    both = dict(told(searcher(snapshot, **settings).search([first, second], EVERYONE, 50)))
    assert both == pytest.approx({ordinal: alone[0][ordinal] + alone[1][ordinal] for ordinal in alone[0]})


@pytest.mark.parametrize(
    "text", ["E-4410", "E-4410 parking", "Where do visitors park, how long is lunch, and what on earth does E-4410 mean?"]
)
def test_an_identifier_wins_however_it_is_asked_for(search: Searcher, embedder: Embedder, text: str) -> None:
    """The passage that holds the code comes first, also where most words are about something else."""
    assert search.search([query(embedder, text)], EVERYONE, 1)[0].passage.source == "it/errors.txt"


def test_one_side_alone_is_its_own_ranking(snapshot: OpenSnapshot, embedder: Embedder) -> None:
    """With a weight of zero a side adds neither scores nor candidates."""
    asked = query(embedder, QUESTIONS[0])
    dense = searcher(snapshot, lexical_weight=0, fold_near_duplicates=False).search([asked], EVERYONE, 5)
    lexical = searcher(snapshot, dense_weight=0, fold_near_duplicates=False).search([asked], EVERYONE, 5)
    assert [hit.dense_rank for hit in dense] == [1, 2, 3, 4, 5]
    assert {hit.lexical_rank for hit in dense} == {None}
    assert [hit.lexical_rank for hit in lexical] == list(range(1, len(lexical) + 1))
    assert searcher(snapshot, dense_weight=0, lexical_weight=0).search([asked], EVERYONE, 5) == []


@pytest.mark.parametrize("text", QUESTIONS)
def test_a_query_without_weight_changes_nothing(search: Searcher, embedder: Embedder, text: str) -> None:
    """One query ranks as it does alone when others weigh nothing, and when it is asked again."""
    alone = told(search.search([query(embedder, text)], EVERYONE, 8))
    assert told(search.search([query(embedder, text), query(embedder, "expense", 0.0)], EVERYONE, 8)) == alone
    assert told(search.search([query(embedder, text)], EVERYONE, 8)) == alone


def test_a_second_way_of_asking_adds_its_candidates(search: Searcher, embedder: Embedder) -> None:
    """What only the second query names is found, and what both name gains."""
    first, second = query(embedder, "E-4410"), query(embedder, "form TR-204", 0.5)
    hits = search.search([first, second], EVERYONE, 8)
    assert [hit.passage.source for hit in hits[:2]] == ["it/errors.txt", "policies/travel.md"]
    assert hits[0].score > search.search([first], EVERYONE, 1)[0].score


def test_a_hit_tells_its_cosine_to_the_question_by_itself(search: Searcher, embedder: Embedder) -> None:
    """Whatever else is asked beside it; `cosine` is the best of both."""
    first, second = (query(embedder, text) for text in ("E-4410", "form TR-204"))
    alone = {hit.passage.chunk_id: hit.own_cosine for hit in search.search([first], EVERYONE, 10)}
    both = search.search([first, second], EVERYONE, 10)
    assert [hit.own_cosine for hit in both if hit.passage.chunk_id in alone] == pytest.approx(
        [alone[hit.passage.chunk_id] for hit in both if hit.passage.chunk_id in alone], abs=1e-5
    )
    assert any((hit.cosine or 0) > (hit.own_cosine or 0) + 0.05 for hit in both)


def test_near_duplicates_are_folded_unless_a_figure_differs(snapshot: OpenSnapshot, embedder: Embedder) -> None:
    """The copy of this year's policy is folded, last year's is shown."""
    asked = query(embedder, "work from home days a week")
    folded = {hit.passage.source for hit in snapshot.search.search([asked], EVERYONE, 8)}
    shown = {hit.passage.source for hit in searcher(snapshot, fold_near_duplicates=False).search([asked], EVERYONE, 8)}
    assert shown >= {"policies/remote-2025.md", "policies/remote-2026.md", "policies/remote-2026-copy.md"}
    assert "policies/remote-2025.md" in folded
    assert len(folded & {"policies/remote-2026.md", "policies/remote-2026-copy.md"}) == 1


@pytest.mark.parametrize(("most", "kept"), [(None, 5), (3, 5), (2, 4), (1, 2)])
def test_a_document_has_so_many_passages_at_most(tmp_path: Path, most: int | None, kept: int) -> None:
    """The best of each, in the order they have without a limit, and as many in all as are asked for."""
    texts = [Text("0 first\n\n0 second\n\n0 third", near=0.9), Text("1 first\n\n1 second", near=0.5)]
    corpus = published(tmp_path / "data", texts)
    try:
        every, capped = (
            [hit.passage for hit in searcher(corpus, per_document=limit).search([Query("anything", asked())], EVERYONE, 50)]
            for limit in (None, most)
        )
        before = [[other.document_id for other in every[:at]] for at in range(5)]
        expected = [each for each, others in zip(every, before, strict=True) if others.count(each.document_id) < (most or 9)]
        assert (capped, len(capped)) == (expected, kept)
        two = searcher(corpus, per_document=most).search([Query("anything", asked())], EVERYONE, 2)
        assert [hit.passage for hit in two] == expected[:2]
    finally:
        corpus.close()


@pytest.mark.parametrize("text", QUESTIONS)
@pytest.mark.parametrize("scope", [EVERYONE, BOARD, BOTH], ids=["everyone", "board", "both"])
def test_every_hit_is_of_a_group_of_the_callers(search: Searcher, embedder: Embedder, text: str, scope: Scope) -> None:
    """Nothing leaks out of scope, whatever is asked, and the dense side gives all that is in scope."""
    hits = search.search([query(embedder, text)], scope, 50)
    assert hits
    assert all(set(hit.passage.groups) & set(scope.groups) for hit in hits)


@pytest.mark.parametrize("groups", [(), ("nobody",), ("",), ("*",), ("x' OR '1'='1",), ("everyone,board",)])
def test_no_group_of_the_callers_is_no_hit(search: Searcher, embedder: Embedder, groups: tuple[str, ...]) -> None:
    """Threat D13: without a group that a document names, nothing is visible."""
    assert search.search([query(embedder, "salary")], Scope(groups), 8) == []


@pytest.mark.parametrize(
    ("filters", "sources"),
    [
        ({"format": ("text",)}, {"it/errors.txt", "it/passwörter.txt"}),
        ({"format": ("text",), "language": ("de",)}, {"it/passwörter.txt"}),
        ({"language": ("de", "es")}, {"it/passwörter.txt", "oficina.md"}),
        ({"site": ("leeds",)}, {"faq.jsonl#1"}),
        ({"label": ("secret",)}, {"faq.jsonl#3"}),
        ({"source": ("board/salaries.md",)}, set()),
        ({"format": ()}, set()),
        ({"format": ("txt' OR '1'='1",)}, set()),
    ],
)
def test_filters_narrow_both_sides(
    search: Searcher, embedder: Embedder, filters: dict[str, tuple[str, ...]], sources: set[str]
) -> None:
    """Fields are joined by AND, values by OR, inside both indexes; a filter never widens what groups allow."""
    hits = search.search(
        [query(embedder, "salary password office visitors error lunch")], replace(EVERYONE, filters=filters), 50
    )
    assert {hit.passage.source for hit in hits} == sources


def test_rarity_counts_what_the_caller_may_see(search: Searcher) -> None:
    """A word that only hidden documents hold is as rare as one that nobody uses."""
    (canary,) = stems("canary", "en")
    assert search.rarity(canary, "en", EVERYONE) == search.rarity("zzzz", "en", EVERYONE)
    assert search.rarity(canary, "en", BOARD) < search.rarity("zzzz", "en", BOARD)


def test_vectors_found_by_their_codes_rank_the_same(tmp_path: Path) -> None:
    """Whether all vectors are scored or candidates only: the same passages with the same scores."""
    texts = [Text(f"Matter {number} of the {['north', 'south', 'east'][number % 3]} yard.") for number in range(80)]
    every, coded = published(tmp_path / "every", texts), published(tmp_path / "coded", texts, exact_up_to=20)
    assert (every.manifest.dense["kind"], coded.manifest.dense["kind"]) == ("exact", "fast-scan")
    assert min(coded.manifest.dense["recall_at_10"].values()) >= 0.98
    question = Query("south yard", asked())
    found = [told(snapshot.search.search([question], EVERYONE, 20)) for snapshot in (every, coded)]
    assert len(found[0]) == 20
    assert found[0] == found[1]
    every.close()
    coded.close()
