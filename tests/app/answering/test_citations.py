"""Markers checked while an answer streams, and the exact span that each citation rests on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.answering.citations import MarkerFilter, cite, whole
from app.answering.code import Code
from app.answering.sentences import Sentence, split
from app.answering.support import Checker, evidence
from corpus.snapshot import OpenSnapshot
from corpus.types import Passage
from tests.app.answering.passages import growth, passage

PORTAL = passage("Leave is requested in the portal. The portal opens at 8:30 on Mondays.", number=1)
TRAVEL = passage("Trips are booked through the travel desk seven days ahead. Use form TR-204.", number=2)
CANTEEN = passage("Die Kantine öffnet um zwölf Uhr.", number=3, language="de", page=7, start=400)
PASSAGES = (PORTAL, TRAVEL, CANTEEN)
SHOWN = re.compile(r"\[\d{1,3}\]")


class Fed:
    """A filter that waits for nothing: without an embedder it only lets others have their turn."""

    def __init__(self, passages: tuple[Passage, ...] = PASSAGES) -> None:
        self.markers = MarkerFilter(Checker(passages))

    def feed(self, text: str) -> str:
        """What can be shown now."""
        return settled(self.markers.feed(text))

    def finish(self) -> str:
        """The rest."""
        return settled(self.markers.finish())


def settled(working: Coroutine[Any, Any, str]) -> str:
    """The result of a coroutine that waits for nothing."""
    while True:
        try:
            working.send(None)
        except StopIteration as stopped:
            return str(stopped.value)


def filtered(text: str, passages: tuple[Passage, ...] = PASSAGES) -> tuple[str, MarkerFilter]:
    """An answer fed whole."""
    fed = Fed(passages)
    return fed.feed(text) + fed.finish(), fed.markers


@pytest.mark.parametrize(
    ("text", "shown", "cited", "dropped"),
    [
        ("Open the portal [1].", "Open the portal [1].", [1], 0),
        ("Open the portal. [1]", "Open the portal. [1]", [1], 0),
        ("Open the portal[1] or form TR-204 [2].", "Open the portal[1] or form TR-204 [2].", [1, 2], 0),
        ("Open the portal [0].", "Open the portal.", [], 1),
        ("Open the portal [99].", "Open the portal.", [], 1),
        ("Open the portal [2].", "Open the portal.", [], 1),
        ("Open the portal [2] today.", "Open the portal today.", [], 1),
        ("Open the portal[2] today.", "Open the portal today.", [], 1),
        ("Open the portal [2]", "Open the portal", [], 1),
        ("Open the portal [2]\nNow.", "Open the portal\nNow.", [], 1),
        ("[99] Open the portal.", "Open the portal.", [], 1),
        ("Yes.\n[99] Open the portal.", "Yes.\nOpen the portal.", [], 1),
        ("Book trips with TR-204 [1, 2].", "Book trips with TR-204 [2].", [2], 1),
        ("The desk and the portal [1, 2].", "The desk and the portal [1][2].", [1, 2], 0),
        ("The desk and the portal [ 1 ;2 ].", "The desk and the portal [1][2].", [1, 2], 0),
        ("The desk and the portal [1][2].", "The desk and the portal [1][2].", [1, 2], 0),
        ("The desk and the portal [99] [2].", "The desk and the portal [2].", [2], 1),
        ("The desk and the portal [1] [99].", "The desk and the portal [1].", [1], 1),
        ("The desk and the portal [1] [99] and.", "The desk and the portal [1] and.", [1], 1),
        ("See [note] and [sic].", "See [note] and [sic].", [], 0),
        ("See [x](y): the portal [1](http://x)", "See [x](y): the portal [1](http://x)", [1], 0),
        ("The portal [", "The portal [", [], 0),
        ("The portal [1", "The portal [1", [], 0),
        ("The portal [[1]].", "The portal [[1]].", [1], 0),
        ("The portal [1, [1].", "The portal [1,.", [], 1),
        ("The portal [1234].", "The portal [1234].", [], 0),
        ("The portal []", "The portal []", [], 0),
        ("The portal opens at 9:30 [1].", "The portal opens at 9:30.", [], 1),
        ("The portal opens at 8:30 [1].", "The portal opens at 8:30 [1].", [1], 0),
        ("The portal  opens.   ", "The portal  opens.   ", [], 0),
        ("Open the portal [1[99]].", "Open the portal [1 ].", [], 1),
        ("Open the portal [[99]1].", "Open the portal [ 1].", [], 1),
        ("", "", [], 0),
    ],
)  # fmt: skip
def test_markers_are_kept_dropped_and_left_alone(text: str, shown: str, cited: list[int], dropped: int) -> None:
    """A supported marker stays, another leaves no gap and is counted, and what is no marker is text."""
    answer, markers = filtered(text)
    assert answer == shown
    assert [citation.marker for citation in markers.citations] == cited
    assert markers.dropped == dropped
    assert not markers.abstained


@pytest.mark.parametrize(
    ("text", "shown"),
    [("The documents do not say. [none]", "The documents do not say."), ("[NONE] Sorry.", "Sorry."), ("No [ none ].", "No.")],
)
def test_a_marker_that_says_there_is_no_answer_is_taken_out(text: str, shown: str) -> None:
    """It is not shown; the answer counts as abstained."""
    answer, markers = filtered(text)
    assert answer == shown
    assert markers.abstained
    assert (markers.citations, markers.dropped) == ([], 0)


LEAVE, TRIPS = "Leave is requested in the portal.", "Trips are booked through the travel desk."


@pytest.mark.parametrize(
    ("text", "shown", "added", "dropped"),
    [
        (LEAVE, f"{LEAVE} [1]", 1, 0),
        (f"{LEAVE} {TRIPS}", f"{LEAVE} [1] {TRIPS} [2]", 2, 0),
        (f"{LEAVE}\n\n{TRIPS}\n", f"{LEAVE} [1]\n\n{TRIPS} [2]\n", 2, 0),
        (f"{LEAVE} [2] {TRIPS} [1]", f"{LEAVE} [1] {TRIPS} [2]", 2, 2),
        (f"{LEAVE} [1] {TRIPS}", f"{LEAVE} [1] {TRIPS} [2]", 1, 0),
        ("Leave is requested in the portal [1]. Yes.", "Leave is requested in the portal [1]. Yes.", 0, 0),
        ("- Leave is requested in the portal\n- Yes", "- Leave is requested in the portal [1]\n- Yes", 1, 0),
        (f"# {LEAVE}\nYes.", f"# {LEAVE}\nYes.", 0, 0),
        (f"```\n{LEAVE}\n{TRIPS}\n```\n{LEAVE}", f"```\n{LEAVE}\n{TRIPS}\n```\n{LEAVE} [1]", 1, 0),
        ("Leave is requested approx. In the portal.", "Leave is requested approx. In the portal. [1]", 1, 0),
        ("Trips are booked through the travel desk [2024].", "Trips are booked through the travel desk [2024].", 0, 0),
        ("Leave is requested in the por", "Leave is requested in the por", 0, 0),
        (f"[none] {LEAVE}", LEAVE, 0, 0),
        ("Elephants walk to Kenya in summer. Really.", "Elephants walk to Kenya in summer. Really.", 0, 0),
    ],
)  # fmt: skip
def test_a_marker_that_is_missing_is_added_behind_its_sentence(text: str, shown: str, added: int, dropped: int) -> None:
    """Where a passage clearly says it, a whole sentence gets its marker before the white space that follows."""
    answer, markers = filtered(text)
    assert answer == shown
    assert (markers.added, markers.dropped) == (added, dropped)
    assert [f"[{citation.marker}]" for citation in markers.citations] == SHOWN.findall(answer)


@pytest.mark.parametrize(
    ("text", "shown", "cited", "dropped"),
    [
        ("The desk and the portal [1-2].", "The desk and the portal [1][2].", [1, 2], 0),
        ("The desk and the portal [1–2].", "The desk and the portal [1][2].", [1, 2], 0),
        ("The desk and the portal [1, 2-3].", "The desk and the portal [1][2].", [1, 2], 1),
        ("The desk and the portal [2-1].", "The desk and the portal [2][1].", [2, 1], 0),
        ("Open the portal [^1].", "Open the portal [1].", [1], 0),
        ("Open the portal 【1】.", "Open the portal [1].", [1], 0),
        ("Open the portal [Source 1].", "Open the portal [1].", [1], 0),
        ("Open the portal [passage 2].", "Open the portal.", [], 1),
        ("Open the portal [Quellen 1, 2].", "Open the portal [1].", [1], 1),
        ("Open the portal [1-999].", "Open the portal [1].", [1], 49),
        ("Open the portal [source code].", "Open the portal [source code].", [], 0),
        ("Open the portal (see [1], [2]).", "Open the portal (see [1]).", [1], 1),
        ("Open the portal (see [1]; [2] today).", "Open the portal (see [1] today).", [1], 1),
        ("The desk and the portal [1], [2].", "The desk and the portal [1], [2].", [1, 2], 0),
    ],
)  # fmt: skip
def test_other_forms_of_markers_are_checked_and_shown_as_ours(text: str, shown: str, cited: list[int], dropped: int) -> None:
    """Ranges, footnotes, named and full-width markers become [n], whole or by the character; a comma goes with its marker."""
    assert filtered(text)[0] == shown
    fed = Fed()
    assert "".join(fed.feed(character) for character in text) + fed.finish() == shown
    assert [citation.marker for citation in fed.markers.citations] == cited
    assert fed.markers.dropped == dropped


@pytest.mark.parametrize(
    "text",
    [
        "```\nx = a[1]\ny[2] = [99]\n```",
        "````\n```\nx = a[1] \n```\nLeave is requested in the portal.\n````",
        "Write `a[1]` or ``b[2] ` [1]``.",
        "```python\nx = c[0][3]",
    ],
)
def test_code_is_left_as_it_is(text: str) -> None:
    """What looks like a marker in a block or a span of code is shown, not checked, and is no citation."""
    shown, markers = filtered(text)
    assert shown == text
    assert (markers.citations, markers.dropped, markers.added) == ([], 0, 0)


def test_a_backtick_alone_does_not_let_markers_pass() -> None:
    """A span of code ends with its line; behind it, and behind a block, markers are checked again."""
    assert filtered("Use a ` here.\nOpen the portal [2].")[0] == "Use a ` here.\nOpen the portal."
    assert filtered("```\na[2]\n```\nOpen the portal [2].")[0] == "```\na[2]\n```\nOpen the portal."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Yes. [2]", "Yes."),
        ("No, you may not. [2]", "No, you may not."),
        ("Open the portal. Yes. [1]", "Open the portal. Yes. [1]"),
        ("Open the portal. Yes. [2]", "Open the portal. Yes."),
        ("Open the portal. Yes. No, you may not. [1]", "Open the portal. Yes. No, you may not. [1]"),
    ],
)
def test_a_sentence_without_a_content_word_rests_on_what_stands_before(text: str, shown: str) -> None:
    """Its marker stays where the passage supports the last sentence that says something."""
    assert filtered(text)[0] == shown


def test_markers_that_were_added_do_not_overrule_an_abstention() -> None:
    """Only the LLM's own kept marker does; those added stay citations, for they have been shown."""
    added, markers = filtered(f"{LEAVE} {TRIPS} [none]")
    assert added == f"{LEAVE} [1] {TRIPS}"
    assert markers.abstained
    assert [citation.marker for citation in markers.citations] == [1]
    assert not filtered(f"{LEAVE} [1] {TRIPS} [none]")[1].abstained


async def _read_between_turns(text: str, step: int) -> float:
    """The characters of an answer that came without a pause for each turn that others had while it was checked."""
    turns = 0
    stopped = False

    async def other() -> None:
        nonlocal turns
        while not stopped:
            await asyncio.sleep(0)
            turns += 1

    working = asyncio.create_task(other())
    markers = MarkerFilter(Checker(PASSAGES))
    for start in range(0, len(text), step):
        await markers.feed(text[start : start + step])
    stopped = True
    await working
    return len(text) / turns


def test_others_have_their_turn_while_a_long_answer_is_checked() -> None:
    """At most some hundred characters are read without a pause; a normal delta is read at once."""
    text = f"{LEAVE} [1] " * 1000
    for step in (len(text), 7):
        assert asyncio.run(_read_between_turns(text, step)) < 500
    with pytest.raises(StopIteration):
        MarkerFilter(Checker(PASSAGES)).feed(f"{LEAVE} [1]").send(None)


def test_a_sentence_is_shown_before_it_is_known_to_be_over() -> None:
    """Only the white space behind it waits, and the marker goes before that."""
    fed = Fed()
    assert fed.feed(LEAVE) == LEAVE
    assert fed.feed("\n") == ""
    assert fed.feed("\n") == ""
    assert fed.feed("T") == " [1]\n\nT"
    assert fed.finish() == ""


def test_without_leave_to_add_an_answer_stays_as_it_is() -> None:
    """What is quoted has its markers already."""
    markers = MarkerFilter(Checker(PASSAGES), adds=False)
    assert settled(markers.feed(f"{LEAVE} {TRIPS}")) + settled(markers.finish()) == f"{LEAVE} {TRIPS}"


def bare_of_code(text: str) -> str:
    """A text without its brackets that stand in code."""
    code, kept = Code(), ""
    for part in re.split(r"(\[)", text):
        if part != "[" or not code.is_inside():
            kept += part
        code.feed(part)
    return kept


PIECES = st.sampled_from(
    [
        "Open the portal", "form TR-204", "The desk", " ", "  ", "\n", ".", ". ", "! ", ":", ", ", "[1]", "[2]", "[3]", "[0]",
        "[99]", "[1, 2]", "[ 1 ]", "[none]", "[note]", "[", "]", "[1", "[no", ", 3]", '"', "”", "8:30", "1. ", "Kantine", "…",
        "[" + " " * 30 + "1]", "[" + " " * 60 + "1]", "\n\n", "```", "- ",
        "`", "a[1]", "[1-3]", "[^2]", "【1】", "[Source 2]", "[sou", "; ", "Yes. ",
        "Leave is requested in the portal", "Trips are booked by the travel desk",
        "[1" + ", 1" * 20 + "]", "(http://x)", "😀", " " * 50,
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join), st.lists(st.integers(1, 9), min_size=1, max_size=12))
@settings(max_examples=500, deadline=None)
def test_how_an_answer_is_cut_into_pieces_changes_nothing(text: str, sizes: list[int]) -> None:
    """Fed by the character or in any pieces, text, citations and counts are those of the answer fed whole."""
    expected, whole_markers = filtered(text)
    for pieces in (sizes, [1]):
        fed, shown, position, turn = Fed(), "", 0, 0
        while position < len(text):
            size = pieces[turn % len(pieces)]
            shown += fed.feed(text[position : position + size])
            position, turn = position + size, turn + 1
        shown += fed.finish()
        markers = fed.markers
        assert shown == expected
        assert markers.citations == whole_markers.citations
        assert (markers.dropped, markers.abstained) == (whole_markers.dropped, whole_markers.abstained)


@given(st.lists(PIECES, max_size=30).map("".join))
@settings(max_examples=300, deadline=None)
def test_each_citation_belongs_to_the_marker_in_its_place(text: str) -> None:
    """The i-th citation has the number of the i-th marker, and its quote stands in that passage at its offsets."""
    shown, markers = filtered(text)
    assert [int(found[1:-1]) for found in SHOWN.findall(bare_of_code(shown))] == [
        citation.marker for citation in markers.citations
    ]
    for citation in markers.citations:
        source = PASSAGES[citation.marker - 1]
        assert citation.document_id == source.document_id
        assert source.text[citation.start - source.start : citation.end - source.start] == citation.quote != ""


@given(st.lists(PIECES, max_size=30).map("".join))
@settings(max_examples=300, deadline=None)
def test_nothing_but_markers_and_spaces_is_taken_from_an_answer(text: str) -> None:
    """The letters outside of brackets are shown as the model wrote them, all and in order."""
    shown, _ = filtered(text)
    # In brackets there is nothing but figures, `none`, `note` and their beginnings.
    letters = re.compile(r"\[\s*no?n?e?|\[sou(?:rce)?|source|sou|\[note|note|none|no|[\W\d_]", re.IGNORECASE)
    assert letters.sub("", shown) == letters.sub("", text)


def test_text_is_shown_at_once_and_only_a_marker_waits() -> None:
    """Every word comes out as it goes in; from `[` on it waits until it is known what it becomes."""
    markers = Fed()
    assert markers.feed("Use the por") == "Use the por"
    assert markers.feed("tal ") == "tal"
    assert markers.feed("[") == ""
    assert markers.feed("1") == ""
    assert markers.feed("]") == " [1]"
    assert markers.feed(" [n") == ""
    assert markers.feed("ote]") == " [note]"


def test_the_span_is_the_sentence_that_shares_most() -> None:
    """Of two sentences the one with the figure is quoted; of headings none, unless there is nothing else."""
    assert evidence("It opens at 8:30.", PORTAL).span.text == "The portal opens at 8:30 on Mondays."
    headed = passage("# Opening hours of the portal\n\nThe portal opens at eight.")
    assert evidence("Opening hours of the portal", headed).span.text == "The portal opens at eight."
    assert evidence("Opening hours", passage("# Opening hours")).span.text == "# Opening hours"
    assert evidence("Anything", passage("  \n ")).span == Sentence(0, 4, "  \n ")


def test_a_citation_counts_from_the_documents_beginning_and_keeps_the_page() -> None:
    """Offsets are the passage's own place in its document plus the span's in the passage."""
    span = split(CANTEEN.text)[0]
    citation = cite(3, CANTEEN, span)
    assert (citation.start, citation.end, citation.page) == (400, 432, 7)
    assert citation.quote == CANTEEN.text
    candidate = whole(1, PORTAL)
    assert (candidate.quote, candidate.start, candidate.end) == (PORTAL.text, 0, len(PORTAL.text))


def test_every_quote_of_the_published_corpus_is_exact(snapshot: OpenSnapshot) -> None:
    """For each sentence of each passage of real files the best span is a slice of the document's own text."""
    quotes = 0
    for document, passages in snapshot.store.stored.documents_with_passages():
        for number, found in enumerate(passages, start=1):
            for sentence in split(found.text):
                citation = cite(number, found, evidence(sentence.plain, found).span)
                assert document.text[citation.start : citation.end] == citation.quote
                assert citation.page == found.page
                quotes += 1
    assert quotes >= 15


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "[1",
        "[1]",
        "[99] ",
        "a",
        ".",
        ". ",
        ": ",
        " ",
        "[ ",
        "\n",
        '."',
        "[none]",
        "a[ 1",
        "`",
        "```\n",
        "[1-",
        "【",
        "[1], ",
        "[s",
        "[Source 1]",
    ],
)
def test_checking_markers_takes_linear_time(piece: str) -> None:
    """Four times the answer takes four times as long, whole or by the character, whatever it is made of."""

    def whole_answer(length: int) -> None:
        filtered(piece * length)

    def by_character(length: int) -> None:
        markers = Fed()
        for character in piece * length:
            markers.feed(character)
        markers.finish()

    assert growth(whole_answer, 1_500) < 8
    assert growth(by_character, 700 // len(piece)) < 8
