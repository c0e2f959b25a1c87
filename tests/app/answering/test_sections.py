"""Passages as whole sections: exact spans, nothing lost, nothing twice, within the room there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.answering.prompt import Prompts, build, shown
from app.answering.sections import REACH, Surroundings, whole
from app.settings import PromptSettings
from corpus.records import DocumentSummary
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_current
from corpus.types import Document, Passage, Section, chunk_id_of
from ingest.chunking import chunk_document
from tests.app.serving import PROMPTS, publish

WORDS = st.sampled_from(["leave", "is", "granted.", "Ask", "the", "office", "early.", "Überstunden", "| 12 | days |", "\n\n"])
PLENTY = 10_000


def words(text: str) -> int:
    """A token counter as simple as it can be."""
    return len(text.split())


def cost(number: int, passage: Passage) -> int:
    """What a passage costs in a prompt, in words."""
    return words(shown(number, passage)) + 1


def document_of(sections: Sequence[tuple[tuple[str, ...], int | None, str]], name: str = "document") -> Document:
    """A document of sections: heading, page, text."""
    text, found = "", []
    for heading, page, part in sections:
        found.append(Section(len(text), len(text) + len(part), heading, page))
        text += f"{part}\n\n"
    return Document(
        name, "v1", "handbook", f"{name}.md", "Handbook", text, tuple(found), "text", "en", ("everyone",), "internal"
    )


def passages_of(document: Document, first: int = 0, overlap: int = 4) -> list[Passage]:
    """The document's chunks of at most twenty words, as a search finds them."""
    chunks = chunk_document(document, words, max_tokens=20, overlap_tokens=overlap)
    return [
        Passage(
            first + number, chunk.chunk_id, document.document_id, document.version, document.title, document.source,
            document.collection, chunk.text, chunk.heading, chunk.page, chunk.start, chunk.end, document.label,
            document.groups, document.language,
        )
        for number, chunk in enumerate(chunks)
    ]  # fmt: skip


def around(documents: Sequence[Document], passages: Sequence[Passage], most_tokens: int) -> Surroundings:
    """All there is around some passages."""
    texts = {document.document_id: document.text for document in documents}
    return Surroundings(most_tokens, {passage.ordinal: passage for passage in passages}, texts)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[Document], list[Passage], list[Passage]]:
    """Two documents, all their chunks, and some of those in any order, as a search found them."""
    text = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)
    heading = st.sampled_from([(), ("Leave",), ("Leave", "Carry over")])
    section = st.tuples(heading, st.sampled_from([None, 1, 2]), text)
    documents = [document_of(draw(st.lists(section, min_size=1, max_size=4)), name) for name in ("one", "two")]
    chunks = passages_of(documents[0], overlap=draw(st.integers(0, 6)))
    chunks += passages_of(documents[1], first=len(chunks))
    found = draw(st.lists(st.sampled_from(chunks), unique_by=lambda passage: passage.ordinal, max_size=8)) if chunks else []
    return documents, chunks, found


@given(corpora(), st.integers(0, 120), st.integers(0, 120))
@settings(max_examples=200, deadline=None)
def test_sections_are_exact_whole_and_within_their_room(
    corpus: tuple[list[Document], list[Passage], list[Passage]], left: int, most: int
) -> None:
    """Every span is the document's, every passage found is in one, the better first, and no more is spent than there is."""
    documents, chunks, found = corpus
    made, left_over = whole(found, around(documents, chunks, most), left, cost)
    texts = {document.document_id: document.text for document in documents}
    spent = sum(cost(number, passage) for number, passage in enumerate(made, start=1))
    before = sum(cost(number, passage) for number, passage in enumerate(found, start=1))
    assert left_over >= 0
    assert spent <= before + left - left_over
    for passage in made:
        assert passage.text == texts[passage.document_id][passage.start : passage.end]
        assert passage.chunk_id == chunk_id_of(passage.document_id, "v1", passage.start, passage.end)
    places = []
    for passage in found:
        holding = [number for number, each in enumerate(made) if holds(each, passage)]
        assert len(holding) == 1
        places.append(holding[0])
    assert list(dict.fromkeys(places)) == list(range(len(made)))


def holds(section: Passage, passage: Passage) -> bool:
    """Whether a passage is a part of a section."""
    return (
        section.document_id == passage.document_id
        and section.start <= passage.start
        and passage.end <= section.end
        and (section.heading, section.page) == (passage.heading, passage.page)
    )


@given(corpora(), st.integers(0, 120))
@settings(max_examples=200, deadline=None)
def test_with_room_no_text_stands_there_twice(corpus: tuple[list[Document], list[Passage], list[Passage]], most: int) -> None:
    """No two sections of a document overlap, however the chunks that were found did."""
    documents, chunks, found = corpus
    made, _ = whole(found, around(documents, chunks, most), PLENTY, cost)
    for number, one in enumerate(made):
        for other in made[number + 1 :]:
            assert one.document_id != other.document_id or one.end <= other.start or other.end <= one.start


@given(corpora(), st.integers(0, 60), st.integers(180, 500))
@settings(max_examples=100, deadline=None)
def test_a_prompt_of_sections_loses_no_passage_and_keeps_its_budget(
    corpus: tuple[list[Document], list[Passage], list[Passage]], most: int, budget: int
) -> None:
    """The same passages are in the prompt as without sections, and it is no longer than allowed."""
    documents, chunks, found = corpus
    prompts = Prompts.load(PromptSettings(folder=PROMPTS))

    def built(surroundings: Surroundings) -> tuple[tuple[Passage, ...], int, int]:
        made = build(prompts, "How much leave?", (), found, budget_tokens=budget, count_tokens=words, surroundings=surroundings)
        return made.passages, made.tokens, sum(words(message.content) + 4 for message in made.messages)

    plain, _, _ = built(Surroundings())
    sections, tokens, counted = built(around(documents, chunks, most))
    assert counted <= tokens <= budget
    assert all(any(holds(section, passage) for section in sections) for passage in plain)


LONG = " ".join(f"Sentence number {n} says something." for n in range(12))


def test_passages_side_by_side_become_one_at_the_place_of_the_best() -> None:
    """Third and second chunk of a section, with another document between them, are one passage, first; its page is theirs."""
    document, other = document_of([(("Leave",), 3, LONG)]), document_of([((), None, "Another.")], "other")
    chunks = passages_of(document)
    stranger = passages_of(other, first=len(chunks))
    joined, last = whole([chunks[2], *stranger, chunks[1]], around([document, other], chunks[1:3], 1), 0, cost)[0]
    assert (joined.start, joined.end) == (chunks[1].start, chunks[2].end)
    assert (joined.page, joined.heading, joined.ordinal) == (3, ("Leave",), chunks[1].ordinal)
    assert joined.text == document.text[chunks[1].start : chunks[2].end]
    assert chunks[1].end > chunks[2].start, "the chunks overlap, so that something could stand there twice"
    assert last == stranger[0]


def test_a_passage_is_filled_up_to_its_section_and_no_further() -> None:
    """The chunks around it under its heading are taken in; those under another heading or on another page are not."""
    document = document_of([(("Pay",), 1, LONG), (("Leave",), 1, LONG), (("Leave",), 2, LONG)])
    chunks = passages_of(document)
    section = [chunk for chunk in chunks if (chunk.heading, chunk.page) == (("Leave",), 1)]
    made, _ = whole([section[1]], around([document], chunks, PLENTY), PLENTY, cost)
    assert [(passage.start, passage.end) for passage in made] == [(section[0].start, section[-1].end)]


def test_the_best_passage_is_filled_up_first() -> None:
    """With room for one more chunk, the first passage gets it."""
    one, two = document_of([((), None, LONG)], "one"), document_of([((), None, LONG)], "two")
    chunks = passages_of(one)
    others = passages_of(two, first=len(chunks))
    made, left = whole([others[0], chunks[0]], around([one, two], [*chunks, *others], PLENTY), 17, cost)
    assert (made[0].start, made[0].end) == (others[0].start, others[1].end)
    assert made[1] == chunks[0]
    assert left < 17


def test_a_passage_stops_at_its_most_tokens() -> None:
    """Whole chunks are taken in as long as all of it costs no more than it may."""
    document = document_of([((), None, LONG)])
    chunks = passages_of(document)
    made, _ = whole([chunks[0]], around([document], chunks, 40), PLENTY, cost)
    assert 40 - 20 < cost(1, made[0]) <= 40


def test_a_tables_rows_take_what_stands_above_them_first() -> None:
    """A row means little without the head of its table; prose goes on below first."""
    rows = "\n".join(f"| {name} | {n} days |" for n, name in enumerate(["Group", "Staff", "Board", "Guests"] * 3))
    document = document_of([((), None, rows)])
    chunks = passages_of(document, overlap=0)
    above, _ = whole(chunks[:2], around([document], chunks[:2], 1), PLENTY, cost)
    table, _ = whole([chunks[1]], around([document], chunks, cost(1, above[0])), PLENTY, cost)
    assert len(chunks) > 2
    assert table == above
    prose = document_of([((), None, LONG)])
    chunks = passages_of(prose)
    below, _ = whole([chunks[1], chunks[2]], around([prose], chunks[1:3], 1), PLENTY, cost)
    text, _ = whole([chunks[1]], around([prose], chunks, cost(1, below[0])), PLENTY, cost)
    assert text == below


def test_without_tokens_for_it_passages_are_joined_and_not_filled_up() -> None:
    """With 0, what was found side by side is one passage, and nothing that was not found is in it."""
    document = document_of([((), None, LONG)])
    chunks = passages_of(document)
    found = [chunks[0], chunks[1], chunks[3]]
    made, _ = whole(found, around([document], [], 0), 0, cost)
    assert [(passage.start, passage.end) for passage in made] == [
        (chunks[0].start, chunks[1].end),
        (chunks[3].start, chunks[3].end),
    ]


def test_passages_are_not_joined_where_that_has_no_room() -> None:
    """Where one passage cost more than two, and nothing is left, they stay two."""
    document = document_of([((), None, LONG)])
    chunks = passages_of(document)

    def dear(number: int, passage: Passage) -> int:
        return 1 if passage.text in {chunk.text for chunk in chunks} else 3

    assert whole(chunks[:2], around([document], [], 0), 0, dear) == (chunks[:2], 0)
    assert len(whole(chunks[:2], around([document], [], 0), 1, dear)[0]) == 1


@pytest.fixture(scope="module")
def neighbours(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSnapshot]:
    """A published snapshot whose documents, open and hidden ones, lie side by side in it."""
    root = tmp_path_factory.mktemp("neighbours")
    text = " ".join(f"Rule {n} of the canteen is that trays go back to the rack before noon." for n in range(120))
    for name in ("a/open.txt", "board/secret.txt", "c/open.txt"):
        path = root / "documents" / name
        path.parent.mkdir(parents=True)
        path.write_text(text if name != "board/secret.txt" else text.replace("canteen", "vault"), encoding="utf-8")
    publish(root / "documents", root / "data", models)
    snapshot, _ = open_current(root / "data", SearchSettings())
    yield snapshot
    snapshot.close()


def test_the_surroundings_are_of_the_same_documents_alone(neighbours: OpenSnapshot) -> None:
    """Around the last chunk of an open document nothing of the hidden one beside it is looked at, nor beyond the reach."""
    with_edges = [list(neighbours.store.passages_of(d.document_id)) for d in _summaries(neighbours, "everyone")]
    assert len(with_edges) == 2
    found = [passages[edge] for passages in with_edges for edge in (0, -1)]
    surroundings = Surroundings.look(neighbours, ("everyone",), found, 500)
    assert {passage.document_id for passage in surroundings.chunks.values()} == {passage.document_id for passage in found}
    assert set(surroundings.texts) == {passage.document_id for passage in found}
    assert all("vault" not in passage.text for passage in surroundings.chunks.values())
    assert all(min(abs(ordinal - passage.ordinal) for passage in found) <= REACH for ordinal in surroundings.chunks)
    made, _ = whole(found, surroundings, PLENTY, cost)
    assert all("vault" not in passage.text for passage in made)
    assert sum(len(passage.text) for passage in made) > sum(len(passage.text) for passage in found)


def test_a_document_that_may_not_be_seen_has_no_surroundings(neighbours: OpenSnapshot) -> None:
    """Access is asked for again where the text is read, not taken from the passage."""
    (hidden,) = _summaries(neighbours, "board")
    found = neighbours.store.passages_of(hidden.document_id)[:1]
    assert Surroundings.look(neighbours, ("everyone",), found, 500) == Surroundings(500)
    assert Surroundings.look(neighbours, ("everyone",), neighbours.store.passages_of(hidden.document_id), 0) == Surroundings()
    assert whole(found, Surroundings(500), PLENTY, cost) == (found, PLENTY)
    assert len(Surroundings.look(neighbours, ("board",), found, 500).chunks) > 1


def test_only_what_is_needed_is_read(neighbours: OpenSnapshot) -> None:
    """Passages that are not side by side need no text; those that are need their document's, and no other chunks."""
    one, other = (neighbours.store.passages_of(d.document_id) for d in _summaries(neighbours, "everyone"))
    assert Surroundings.look(neighbours, ("everyone",), [one[0], one[2], other[1]], 0) == Surroundings()
    surroundings = Surroundings.look(neighbours, ("everyone",), [one[1], other[1], one[0]], 0)
    assert set(surroundings.texts) == {one[0].document_id}
    assert surroundings.chunks == {}


def _summaries(snapshot: OpenSnapshot, group: str) -> list[DocumentSummary]:
    return snapshot.store.document_summaries((group,), after=None, limit=10)
