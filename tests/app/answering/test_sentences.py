"""Sentences with exact offsets: spans, wrapped lines, lists, tables, headings, abbreviations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.answering.sentences import LONGEST, Sentence, figures, is_ended, split
from tests.app.answering.passages import growth

PIECES = st.sampled_from(
    [
        "Trips are booked early.", "see e.g. Annex B. Then", "z. B. Köln", "p. ej. Valencia", "It costs 3.5 EUR", "a", "B", "…",
        " ", "  ", "\n", "\n\n", "\t", "- entry", "* entry", "1. First", "2) second", "# Heading", "### 4.2 Scope", "| a | b |",
        "| --- | --- |", "|:-:|", "City | Limit", "Days: 25; Site: Leeds", "---", "===", "```", "> quoted", "**bold**", "_it_",
        "¿Qué?", "¡Sí!", '"Yes."', "»Nein.«", "()", "[1]", "\r", "\x00", "\x85", "\u2028", "\u200d", "\u202e", "😀", "ſ",
        "مرحبا.",
        "The following:", "tel. 0941", "x" * 700,
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=300), st.lists(PIECES, max_size=40).map("".join), st.lists(PIECES, max_size=25).map("\n".join)
)
WORD = re.compile(r"\w")
LETTER = re.compile(r"[^\W_]")


@given(TEXTS)
@settings(max_examples=400, deadline=None)
def test_spans_are_exact_in_order_and_lose_no_word(text: str) -> None:
    """Each span slices back, begins behind the one before and holds a word or more; what is between has no word but rules."""
    position = 0
    for sentence in split(text):
        assert text[sentence.start : sentence.end] == sentence.text
        assert position <= sentence.start < sentence.end
        between = text[position : sentence.start]
        assert all(c == "_" for c in WORD.findall(between))
        assert sentence.text == sentence.text.strip()
        assert len(sentence.text) <= LONGEST or "|" in sentence.text or sentence.is_heading
        position = sentence.end
    assert all(c == "_" for c in WORD.findall(text[position:]))


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_the_plain_form_invents_no_word(text: str) -> None:
    """A sentence without its markup has the same letters in the same order; a row's are those of its cells and its header."""
    for sentence in split(text):
        letters = LETTER.findall(sentence.plain)
        if sentence.table_head is None:
            assert letters == LETTER.findall(sentence.text)
        else:
            assert set(letters) <= set(LETTER.findall(sentence.text + sentence.table_head))


def texts_of(text: str) -> list[str]:
    """The sentences of a text."""
    return [sentence.text for sentence in split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there! Three? Four", ["One is here.", "Two is there!", "Three?", "Four"]),
        ('He said "No." Then he left.', ['He said "No."', "Then he left."]),
        ("Use a proxy, e.g. Squid. It is free.", ["Use a proxy, e.g. Squid.", "It is free."]),
        ("Ask Dr. Meyer or Prof. Kern. They know.", ["Ask Dr. Meyer or Prof. Kern.", "They know."]),
        ("Es gilt z. B. Montag. Danach nicht.", ["Es gilt z. B. Montag.", "Danach nicht."]),
        ("Vgl. Abs. 3 und Art. 5 der Ordnung. Sie gilt.", ["Vgl. Abs. 3 und Art. 5 der Ordnung.", "Sie gilt."]),
        ("Hay descuentos, p. ej. Navidad. ¿Cuándo? Siempre.", ["Hay descuentos, p. ej. Navidad.", "¿Cuándo?", "Siempre."]),
        ("Avise al Sr. López o a la Sra. Gil. Gracias.", ["Avise al Sr. López o a la Sra. Gil.", "Gracias."]),
        ("The rate is 3.5 % of 1.200,50 EUR. Pay it.", ["The rate is 3.5 % of 1.200,50 EUR.", "Pay it."]),
        ("Version 2.4.1 fixes E-44.10. Install it.", ["Version 2.4.1 fixes E-44.10.", "Install it."]),
        ("Wait... Then go.", ["Wait...", "Then go."]),
        ("ends. and goes on in lower case", ["ends. and goes on in lower case"]),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    """Abbreviations, decimal points, versions and ellipses in three languages do not end one wrongly."""
    assert texts_of(text) == expected


def test_a_wrapped_line_is_not_an_end() -> None:
    """A sentence over three lines is one span; its plain form is one line."""
    text = "Trips are booked through the desk at least seven\ndays ahead, unless the manager of the trip\nagrees. Ask her."
    first, second = split(text)
    assert first.plain == "Trips are booked through the desk at least seven days ahead, unless the manager of the trip agrees."
    assert second.text == "Ask her."


def test_list_entries_are_apart_and_stand_under_what_introduces_them() -> None:
    """Each entry is a sentence of its own, read under the line that ends in a colon, which says nothing alone."""
    text = (
        "# Leave\n\nYou may take leave for:\n- a wedding\n- a move\n  of your household\n1. First call the desk.\n2. Then wait."
    )
    heading, lead, *entries = split(text)
    assert (heading.text, heading.is_heading) == ("# Leave", True)
    assert (lead.text, lead.is_heading) == ("You may take leave for:", True)
    assert [entry.plain for entry in entries] == [
        "a wedding", "a move of your household", "1. First call the desk.", "2. Then wait.",
    ]  # fmt: skip
    assert {entry.context for entry in entries} == {"Leave You may take leave for:"}
    assert not any(entry.is_heading for entry in entries)


def test_rows_of_a_markdown_table_are_read_with_their_header() -> None:
    """A row is `Header: value`; header and rule are no rows; an empty cell is left out, one without a header stays."""
    text = "| City | Limit |\n| :- | --: |\n| Berlin | **140** EUR |\n| Paris | |\n| Rome | 90 | approx |\n\nAll included."
    head, berlin, paris, rome, after = split(text)
    assert head.is_heading
    assert berlin.plain == "City: Berlin; Limit: 140 EUR"
    assert paris.plain == "City: Paris"
    assert rome.plain == "City: Rome; Limit: 90; approx"
    assert after.text == "All included."


def test_a_table_that_was_cut_from_its_header_has_plain_rows() -> None:
    """Where a chunk begins within a table, a row is its cells."""
    assert [row.plain for row in split("| Berlin | 140 |\n| Rome | 90 |")] == ["Berlin; 140", "Rome; 90"]


def test_rows_with_bars_between_their_cells_are_apart() -> None:
    """Each ` | ` row is a sentence; within a text the first of a run is their header."""
    head, berlin, rome = split("Limits of hotels are these.\n\nCity | Limit\nBerlin | 140 EUR\nRome | 90 EUR")[1:]
    assert (head.text, head.is_heading) == ("City | Limit", True)
    assert (berlin.text, berlin.is_heading, berlin.context) == ("Berlin | 140 EUR", False, "City | Limit")
    assert rome.text == "Rome | 90 EUR"


def test_rows_of_a_sheet_are_apart() -> None:
    """Lines of `Header: value; Header: value` are one sentence each."""
    rows = ["Name: Ada; Days: 25", "Name: Bob; Days: 30", "Name: Cid; Days: 28"]
    assert texts_of("\n".join(rows)) == rows


@pytest.mark.parametrize(
    ("text", "headings"),
    [
        ("4.2 Scope\n\nThis applies to all.", ["4.2 Scope"]),
        ("Scope\n\nThis applies to all.", ["Scope"]),
        ("Geltungsbereich\n\nDies gilt für alle.", ["Geltungsbereich"]),
        ("## Scope of this\nThis applies to all.", ["## Scope of this"]),
        ("1. Call the desk\n2. Wait for it\n3. Go home", ["3. Go home"]),
        ("This is a whole sentence.\n\nSo is this one.", []),
        ("Days: 25\n\nThat is all.", []),
    ],
)
def test_headings_are_told_from_sentences_and_from_numbered_lists(text: str, headings: list[str]) -> None:
    """A short line alone is a heading, one that ends like a sentence, holds a value or is one of several entries is not."""
    assert [sentence.text for sentence in split(text) if sentence.is_heading] == headings


def test_a_long_run_without_an_end_is_cut_at_a_space() -> None:
    """No sentence is longer than a quote may be, and no word is broken unless it is longer itself."""
    text = "word " * 1000
    sentences = split(text)
    assert all(len(sentence.text) <= LONGEST and set(sentence.text.split()) == {"word"} for sentence in sentences)
    assert sum(len(sentence.text.split()) for sentence in sentences) == 1000


def test_a_word_of_a_megabyte_is_cut_in_pieces() -> None:
    """One word of a million letters is 1,667 spans that hold it all."""
    sentences = split("x" * 1_000_000)
    assert len(sentences) == 1667
    assert sum(len(sentence.text) for sentence in sentences) == 1_000_000


@pytest.mark.parametrize(
    "piece",
    [
        "x", ".", ". ", "…", "a. ", "A. B", "e.g. ", "Trips are booked. ", "long lines of words that go on and on and on\n",
        "\n", " ", "|", "| a |\n", "| a |\n\nb\n\n", "-", "- a\n", "1. ", "1.1", "_", "**", "` ", '"', ")", ": ", "x: y; ",
        " | ",
        "a | b\n", "#", "# a\n", "\t", ".\t",
    ],
)  # fmt: skip
def test_cutting_takes_linear_time(piece: str) -> None:
    """Four times the text takes four times as long, the plain forms of what was cut included, whatever it is made of."""

    def work(length: int) -> None:
        for sentence in split.__wrapped__(piece * length):
            assert sentence.plain is not None

    assert growth(work, 10_000 // len(piece)) < 8


@pytest.mark.parametrize("piece", ["-", "- ", "| ", ":-", "-|", " ", "\t-"])
def test_a_tables_rule_that_ends_otherwise_takes_linear_time(piece: str) -> None:
    """Four times the dashes under a row take four times as long, and are no rule."""
    sizes = []

    def work(length: int) -> None:
        sizes.append(len(split.__wrapped__("| a |\n" + piece * length + "x")))

    assert growth(work, 10_000) < 8
    assert min(sizes) >= 1


@pytest.mark.parametrize(
    ("rule", "is_rule"),
    [
        ("|---|", True),
        ("---|---", True),
        ("| :-: | --- |  ", True),
        (":-", True),
        ("-", True),
        ("| --- | x", False),
        ("| |", False),
    ],
)
def test_a_tables_rule_is_told_from_a_row(rule: str, is_rule: bool) -> None:
    """Dashes, colons and bars alone, a dash at least at its beginning."""
    assert split(f"| a | b |\n{rule}\n| 1 | 2 |")[0].is_heading is is_rule


def test_every_sample_document_is_cut_exactly() -> None:
    """The spans of the handbook's Markdown and text files slice back and leave out nothing but rules and white space."""
    files = [path for path in Path("examples/handbook").rglob("*") if path.suffix in (".md", ".txt")]
    assert len(files) >= 8
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        rest = list(text)
        for sentence in split(text):
            assert text[sentence.start : sentence.end] == sentence.text
            rest[sentence.start : sentence.end] = [" "] * (sentence.end - sentence.start)
        assert not re.search(r"[^\W_]", "".join(rest)), path


def test_figures_are_numbers_and_identifiers_as_written() -> None:
    """Decimal and thousands separators belong to a number; a form number counts as a whole and by its number."""
    assert figures("Pay 1.200,50 EUR by 14:30 with TR-204.") == {"1.200,50", "1.200", "14:30", "204", "tr-204"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It opens at noon.", True), ("He said “no.”", True), ("**Really?**", True), ("It opens at noon", False), ("", False),
        ("Bring e.g.", False), ("Ask Dr.", False), ("2.", False), ("In 2024.", True), ("Wait…", True), ("These are:", False),
    ],
)  # fmt: skip
def test_the_end_of_a_sentence_is_told_from_an_abbreviations(text: str, expected: bool) -> None:
    """A stop with what closes it ends a sentence; that of an abbreviation or behind an entry's number does not."""
    assert is_ended(text) is expected


def test_a_sentence_without_markup_is_itself() -> None:
    """Snake case and multiplication keep their signs; emphasis loses them."""
    assert Sentence(0, 30, "use `max_body_bytes` or **two** _words_ here").plain == "use max_body_bytes or two words here"
