"""The BM25 index: stemming by language, identifiers, filters, hostile words, and what hidden documents may not change."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from corpus.errors import SnapshotDamaged
from corpus.lexical import LexicalFilter, LexicalIndex, LexicalWriter, field_of, identifiers, inverse_document_frequency

Text = tuple[str, str | None, tuple[str, ...], dict[str, tuple[str, ...]]]
Build = Callable[[Sequence[Text]], LexicalIndex]

INJECTION = "x' OR '1'='1"
TEXTS: list[Text] = [
    ("The running dogs bring form TR-204 back to the office", "en", ("everyone",), {"format": ("md",)}),
    ("Form 204 is for trips: TR stands for travel report, form by form", "en", ("everyone",), {"format": ("txt",)}),
    ("Die Versicherungen der Häuser verwaltet die Abteilung", "de", ("everyone",), {"format": ("md",), "site": ("bonn",)}),
    ("Las tarjetas de acceso se recogen en la recepción", "es", ("everyone",), {"format": ("md",)}),
    ("The salaries of directors", "en", ("board",), {"format": ("md",)}),
    ("The salaries of gatekeepers", "en", (INJECTION,), {"format": ("md",)}),
    ("The salaries of cooks", "en", ("groups:board OR *",), {"format": ('md" OR "txt',)}),
    ("Nobody may see this salary", "en", (), {"format": ("md",)}),
    ("xyzzy plugh", None, ("everyone",), {"format": ("csv",)}),
]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes an index and opens it."""

    def make(texts: Sequence[Text]) -> LexicalIndex:
        folder = tmp_path / f"lexical-{len(list(tmp_path.iterdir()))}"
        writer = LexicalWriter(folder, {field_of(language) for _, language, _, _ in texts})
        for ordinal, (text, language, groups, facets) in enumerate(texts):
            writer.add(ordinal, ordinal, text, language, groups, facets)
        writer.close()
        return LexicalIndex(folder)

    return make


@pytest.fixture
def index(build: Build) -> LexicalIndex:
    """The texts above."""
    return build(TEXTS)


def found(
    index: LexicalIndex, text: str, groups: Sequence[str] = ("everyone",), facets: dict[str, tuple[str, ...]] | None = None
) -> list[int]:
    """The ordinals that a caller in some groups finds."""
    return list(index.search(text, 10, LexicalFilter(groups, facets or {}, sees_everything=False))[0].tolist())


@pytest.mark.parametrize(
    ("query", "ordinal"),
    [("dog run", 0), ("Versicherung Haus", 2), ("recoger tarjeta", 3), ("recepcion", 3), ("PLUGH", 8)],
    ids=["English", "German", "Spanish", "without its accent", "no language"],
)
def test_words_are_found_by_their_stems(index: LexicalIndex, query: str, ordinal: int) -> None:
    """Each text is stemmed in its own language, and a question in all of them."""
    assert found(index, query) == [ordinal]


def test_stop_words_find_nothing(index: LexicalIndex) -> None:
    """Words that carry no content do not make candidates."""
    assert found(index, "the of to") == []


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Do I have to pay it back after the seminar?", ["pay", "seminar", "back"]),
        ("What are the US rates?", ["us", "rate"]),
        ("WHAT ARE THE US RATES?", ["rate"]),
        ("Do you have to?", []),
    ],
    ids=["function words", "a name in capitals", "all in capitals", "nothing but function words"],
)
def test_a_question_is_searched_by_its_content_words(index: LexicalIndex, question: str, asked: list[str]) -> None:
    """Words that only say how one asks are left out; one that is written as a name stays."""
    assert sorted(term for field, term in index.terms(question) if field == "text_english") == sorted(asked)


def test_function_words_are_left_out_in_their_own_language_only(index: LexicalIndex) -> None:
    """German "die" is no word of a German question; English "die" is one of an English question."""
    assert index.terms("die Kündigung") == [
        ("text_any", "kundigung"), ("text_english", "die"), ("text_english", "kundigung"), ("text_german", "kundig"),
        ("text_spanish", "die"), ("text_spanish", "kundigung"),
    ]  # fmt: skip


@pytest.mark.parametrize("query", ["TR-204", "tr-204", "where is form TR-204?", "(TR-204)."])
def test_an_exact_identifier_ranks_first(index: LexicalIndex, query: str) -> None:
    """The text that holds the form number itself comes before the one that holds only its parts, more often."""
    assert found(index, query)[0] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Use form TR-204, or E.4410/7.", ["e.4410/7", "tr-204"]),
        ("in 2024 and 17", []),
        ("A4 paper -- v2.1.3...", ["a4", "v2.1.3"]),
        ("well-known words", []),
        ("ERR_17-b", ["err_17-b"]),
        ("x9" * 60, []),
    ],
)
def test_identifiers_are_tokens_with_a_digit_that_are_no_numbers(text: str, expected: list[str]) -> None:
    """Form numbers and error codes count as one token; plain numbers, words and overlong tokens do not."""
    assert identifiers(text) == expected


HOSTILE = {
    "syntax": 'groups:board OR text_english:salaries AND (((NOT "x"~2^3 [a TO z] {a TO z} *:* IN [board]',
    "unbalanced quote": 'salaries "',
    "NUL": "salaries\x00board",
    "lone surrogate": "salaries \ud800",
    "emoji": "😀 👩‍👩‍👧 salaries",
    "right to left": "\u202esalaries שלום",
    "SQL": "'; DROP TABLE chunks; --",
    "empty": "",
    "blank": " \t\n",
    "one word of a million letters": "a" * 1_000_000,
    "a million joined letters": "a-" * 500_000,
    "a million points": "." * 1_000_000,
    "many words": " ".join(f"w{number:x}" for number in range(20_000)),
}


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
def test_no_question_raises_or_finds_what_is_hidden(index: LexicalIndex, query: str) -> None:
    """Threats C2 and C6: words are only words, whatever they look like, and take no more than seconds."""
    started = time.monotonic()
    hidden = {4, 5, 6, 7}
    assert not hidden & set(found(index, query))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (("board",), [4]),
        ((INJECTION,), [5]),
        (("groups:board OR *",), [6]),
        (("board", INJECTION), [4, 5]),
        (("*",), []),
        (("boar",), []),
        (("Board",), []),
        (("",), []),
        ((), []),
    ],
)
def test_a_group_is_a_name_and_nothing_else(index: LexicalIndex, groups: tuple[str, ...], expected: list[int]) -> None:
    """Threat C6: a group that looks like a query finds the documents of the group of that name."""
    assert found(index, "salaries salary", groups) == expected


@pytest.mark.parametrize(
    ("facets", "expected"),
    [
        ({"format": ("md",)}, [0]),
        ({"format": ("txt",)}, [1]),
        ({"format": ("md", "txt")}, [0, 1]),
        ({"format": ("md",), "site": ("bonn",)}, []),
        ({"format": ()}, []),
        ({"nowhere": ("md",)}, []),
        ({"format": ('md" OR "txt',)}, []),
    ],
)
def test_filters_are_and_between_fields_and_or_within_one(
    index: LexicalIndex, facets: dict[str, tuple[str, ...]], expected: list[int]
) -> None:
    """A filter is applied inside the index, beside the groups."""
    assert sorted(found(index, "form", facets=facets)) == expected


def test_equal_scores_come_in_the_order_of_their_ordinals(build: Build) -> None:
    """Ties are broken by ordinal, also at the limit."""
    index = build([("alpha beta", "en", ("everyone",), {})] * 40)
    ordinals, scores = index.search("alpha", 7, LexicalFilter(("everyone",), {}, sees_everything=False))
    assert ordinals.tolist() == list(range(7))
    assert len(set(scores.tolist())) == 1


def test_the_score_is_bm25(build: Build) -> None:
    """Where everything is visible the score is BM25 with k1 1.2 and b 0.75, computed here by hand."""
    index = build([("zebra zebra fence fence", "en", ("g",), {}), ("zebra lion", "en", ("g",), {}), ("lion", "en", ("g",), {})])
    ordinals, scores = index.search("zebra", 5, LexicalFilter(("g",), {}, sees_everything=True))
    average, rarity = 7 / 3, inverse_document_frequency(3, 2)
    by_hand = [rarity * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / average)) for tf, length in ((2, 4), (1, 2))]
    assert ordinals.tolist() == [0, 1]
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "holding"),
    [
        ("dogs running", [0]),
        ("form TR", [0, 1]),
        ("Häuser Versicherung", [2]),
        ("form of the TR office", [0]),
        ("dogs salaries", []),
        ("the of", []),
        ("", []),
        ("salaries \ud800", []),
    ],
)
def test_a_text_that_holds_all_words_is_found_in_any_language(index: LexicalIndex, text: str, holding: list[int]) -> None:
    """In any order and form, stop words aside; nothing where only stop words are asked for, and nothing hidden."""
    everyone = LexicalFilter(("everyone",), {}, sees_everything=False)
    assert sorted(index.holding(text, 10, everyone).tolist()) == holding


def test_a_file_that_is_no_index_is_damage(tmp_path: Path) -> None:
    """tantivy's own error becomes ours."""
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(SnapshotDamaged, match="the lexical index cannot be opened"):
        LexicalIndex(tmp_path)


def _worlds(seed: int, *, longer: int) -> tuple[list[Text], list[Text], list[str]]:
    """A visible corpus, hidden documents (`longer` times as long) with words of their own frequencies, and questions."""
    rng = random.Random(seed)
    words = [f"term{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(120)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    visible: list[Text] = [
        (" ".join(rng.choices(words, weights, k=rng.randint(20, 60))), "en", ("everyone",), {}) for _ in range(300)
    ]
    # The hidden ones use the rare words often: with global statistics they would weigh little.
    hidden: list[Text] = [
        (" ".join(rng.choices(words, weights[::-1], k=longer * rng.randint(20, 60))), "en", ("board",), {}) for _ in range(600)
    ]
    return visible, hidden, [" ".join(rng.sample(words, rng.randint(2, 5))) for _ in range(300)]


def _changed(build: Build, *, longer: int, own_frequencies: bool = True) -> tuple[int, int, float]:
    """Of 300 questions, those whose top ten and whose first hit change once the hidden documents are there, and the share of
    the ten that stays."""
    visible, hidden, questions = _worlds(11, longer=longer)
    alone, both = build(visible), build([*visible, *hidden])
    orders, firsts, shares = 0, 0, []
    for question in questions:
        before = alone.search(question, 10, LexicalFilter(("everyone",), {}, sees_everything=True))[0].tolist()
        # Told that everything is visible, the index weighs terms by all documents.
        after = both.search(question, 10, LexicalFilter(("everyone",), {}, sees_everything=not own_frequencies))[0].tolist()
        assert len(before) == len(after)
        orders += before != after
        firsts += before[:1] != after[:1]
        shares.append(len(set(before) & set(after)) / len(before))
    return orders, firsts, float(np.mean(shares))


def test_hidden_documents_of_the_same_length_hardly_change_an_order(build: Build) -> None:
    """Threat D5: terms weigh by the visible documents alone, so that hidden ones move near-ties at most."""
    orders, firsts, share = _changed(build, longer=1)
    assert (firsts, orders <= 30, share > 0.99) == (0, True, True), (orders, firsts, share)


def test_weighing_terms_by_all_documents_would_betray_hidden_ones(build: Build) -> None:
    """Threat D5, the counter-proof: without the visible frequencies, most orders change on the same corpus."""
    orders, _, _ = _changed(build, longer=1, own_frequencies=False)
    assert orders > 200


def test_what_hidden_documents_still_shift_is_the_average_length(build: Build) -> None:
    """Threat D5, the residual: hidden texts four times as long change BM25's average length and so move places."""
    orders, _, share = _changed(build, longer=4)
    assert orders > 100, "the residual is gone: say so in the documentation, and expect no change here"
    assert share > 0.85


@pytest.mark.parametrize("written", ["TR204", "tr_204", "TR/204", "TR-204"])
def test_an_identifier_is_found_however_its_parts_are_joined(index: LexicalIndex, written: str) -> None:
    """TR204, TR/204 and TR-204 are one; 2.04 is another number."""
    everyone = LexicalFilter(("everyone",), {}, sees_everything=False)
    assert index.search(written, 10, everyone, must_identify=True)[0].tolist() == [0]
    assert index.holds_identifier(written.lower(), everyone)
    assert not index.holds_identifier("tr-2.04", everyone)
    assert not index.holds_identifier(written.lower(), LexicalFilter(("board",), {}, sees_everything=False))


@pytest.mark.parametrize("hidden", [0, 1, 5, 2000])
def test_how_many_hidden_texts_hold_an_identifier_does_not_show(build: Build, hidden: int) -> None:
    """At the boundary: ten visible chunks of twenty hold it, which still singles them out, whatever is hidden."""
    visible: list[Text] = [(f"note {n} on machine {'XR-77' if n < 10 else 'oil'}", "en", ("everyone",), {}) for n in range(20)]
    secret: list[Text] = [(f"secret {n} of XR-77", "en", ("board",), {}) for n in range(hidden)]
    everyone = LexicalFilter(("everyone",), {}, sees_everything=False)
    assert build([*visible, *secret]).search("XR-77", 50, everyone, must_identify=True)[0].tolist() == list(range(10))


def test_many_hidden_texts_make_no_common_identifier_rare(build: Build) -> None:
    """Eleven of twenty visible chunks hold it: a word like others, though it would be rare among ten thousand."""
    visible: list[Text] = [(f"note {n} on machine {'XR-77' if n < 11 else 'oil'}", "en", ("everyone",), {}) for n in range(20)]
    secret: list[Text] = [(f"secret {n}", "en", ("board",), {}) for n in range(10_000)]
    everyone = LexicalFilter(("everyone",), {}, sees_everything=False)
    assert build([*visible, *secret]).search("XR-77", 50, everyone, must_identify=True)[0].tolist() == []
