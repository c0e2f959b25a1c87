"""chunks.db: what is written comes back, masks are right, and nobody sees what no group of theirs may see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from corpus.errors import SnapshotDamaged
from corpus.records import Failure, FileRecord
from corpus.store import Store
from corpus.store_check import contradictions
from corpus.store_writer import StoreWriter
from corpus.types import Chunk, Document, Section, chunk_id_of, document_id_of, version_of

INJECTION = "x') OR ('1'='1"
ASTRAL = "Ä 😀👩‍👩‍👧 𝔘nicode\u0000 und\nмир"


def document(
    name: str, text: str, groups: Sequence[str] = ("everyone",), label: str = "internal", **metadata: str
) -> tuple[Document, list[Chunk]]:
    """A document in two chunks."""
    document_id, version = document_id_of("c", name), version_of(name, text)
    middle = len(text) // 2
    made = Document(
        document_id, version, "c", f"{name}.md", name, text,
        (Section(0, middle, ("A", "B › C"), 3), Section(middle, len(text))), "md", "de", tuple(groups), label, metadata,
    )  # fmt: skip
    chunks = [
        Chunk(chunk_id_of(document_id, version, start, end), document_id, version, start, end, text[start:end], ("A",), page)
        for start, end, page in ((0, middle, 3), (middle, len(text), None))
    ]
    return made, chunks


DOCUMENTS = [
    document("open", ASTRAL, site="bonn", year="2026"),
    document("board", "Salaries of the board.", ("board", "everyone-else"), "secret"),
    document("nobody", "Nobody may see this.", ()),
    document("quoted", "A group named like SQL.", (INJECTION,)),
    document("both", "Two groups may see this one.", ("board", "everyone"), "public", site="leeds"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The documents above with a file each, and two failures."""
    writer = StoreWriter(tmp_path / "odd name?#%.db")
    for made, chunks in DOCUMENTS:
        writer.add_file(FileRecord("c", made.source, 10, "hash", "rules"))
        writer.add_document(made.source, made, chunks, [bytes([number]) * 32 for number in range(2)])
    writer.add_file(FileRecord("c", "bad.pdf", 0, None, "rules"))
    writer.add_failure(Failure("c", "bad.pdf", "", "it is empty", "remove it"))
    writer.add_failure(Failure("c", "both.md", "line 3", "no text", "add one"))
    writer.close()
    return tmp_path / "odd name?#%.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """The file, open."""
    opened = Store(path)
    yield opened
    opened.close()


def test_documents_come_back_as_they_were(store: Store) -> None:
    """Text with astral characters and NUL, sections, metadata and groups survive the round trip."""
    for made, chunks in DOCUMENTS:
        ((found, found_chunks, hashes, ordinals),) = store.stored.documents_of_file("c", made.source)
        assert found == made
        assert found_chunks == chunks
        assert hashes == [b"\x00" * 32, b"\x01" * 32]
        assert len(ordinals) == 2


def test_offsets_count_code_points(store: Store) -> None:
    """Every passage is its span of the document's text, astral characters counted as one."""
    for made, _ in DOCUMENTS:
        for passage in store.passages_of(made.document_id):
            assert made.text[passage.start : passage.end] == passage.text
    assert contradictions(store.stored) == []


def test_passages_come_in_the_order_asked_for(store: Store) -> None:
    """The caller's order is kept, and each passage knows its document."""
    passages = store.passages([9, 0, 3])
    assert [passage.ordinal for passage in passages] == [9, 0, 3]
    assert [passage.title for passage in passages] == ["both", "open", "board"]
    assert (passages[1].heading, passages[1].page, passages[1].language) == (("A",), 3, "de")


def test_a_chunk_is_worded_by_title_headings_and_text(store: Store) -> None:
    """A line each, in that order, for each chunk asked for."""
    assert store.wordings([3, 1]) == {1: f"open\nA\n{ASTRAL[len(ASTRAL) // 2 :]}", 3: "board\nA\n the board."}
    assert store.wordings([]) == {}


def test_values_come_with_the_chunks_they_stand_on(store: Store) -> None:
    """Each document's value of a field, in order; none of a field that no document has."""
    assert store.stored.values("site") == [("bonn", slice(0, 2)), ("leeds", slice(8, 10))]
    assert store.stored.values("nothing' OR '1'='1") == []


def test_files_and_failures_come_back(store: Store) -> None:
    """What could not be read is as much part of the result as what could."""
    assert [file.path for file in store.stored.files() if file.content_hash is None] == ["bad.pdf"]
    assert [(failure.path, failure.item) for failure in store.stored.failures()] == [("bad.pdf", ""), ("both.md", "line 3")]
    assert store.stored.failures_of_file("c", "both.md") == [Failure("c", "both.md", "line 3", "no text", "add one")]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (("everyone",), ["open", "both"]),
        (("board",), ["board", "both"]),
        (("board", "everyone"), ["open", "board", "both"]),
        ((INJECTION,), ["quoted"]),
        (("' OR 1=1 --",), []),
        (("every%",), []),
        (("EVERYONE",), []),
        (("",), []),
        ((), []),
    ],
)
def test_a_caller_sees_what_any_of_their_groups_may_see(store: Store, groups: tuple[str, ...], expected: list[str]) -> None:
    """Threats C6 and D13: groups are compared as values; a document without a group is visible to nobody."""
    mask = store.mask(groups, {})
    assert [made.title for number, (made, _) in enumerate(DOCUMENTS) if mask[2 * number] and mask[2 * number + 1]] == expected
    assert int(mask.sum()) == 2 * len(expected)
    assert {summary.title for summary in store.document_summaries(groups, after=None, limit=10)} == set(expected)
    for made, _ in DOCUMENTS:
        assert (store.document(made.document_id, groups) is not None) == (made.title in expected)


@pytest.mark.parametrize(
    ("facets", "expected"),
    [
        ({"site": ("bonn",)}, ["open"]),
        ({"site": ("bonn", "leeds")}, ["open", "both"]),
        ({"site": ("bonn", "leeds"), "label": ("public",)}, ["both"]),
        ({"site": ("bonn",), "label": ("public",)}, []),
        ({"site": ()}, []),
        ({"site": ("bonn') OR ('1'='1",)}, []),
        ({"site' OR '1'='1": ("bonn",)}, []),
    ],
)
def test_filters_are_and_between_fields_and_or_within_one(
    store: Store, facets: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    """A filter narrows what the groups allow, never widens it."""
    mask = store.mask(("everyone",), facets)
    assert [made.title for number, (made, _) in enumerate(DOCUMENTS) if mask[2 * number]] == expected


def test_metadata_cannot_stand_in_for_a_documents_own_field(tmp_path: Path) -> None:
    """A metadata field named like one of the document's own does not change what the document is filtered by."""
    writer = StoreWriter(tmp_path / "chunks.db")
    made, chunks = document("sly", "A text that says it is public.", label="secret")
    made = replace(made, metadata={"label": "public", "collection": "other"})
    writer.add_document("sly.md", made, chunks, [b"a", b"b"])
    writer.close()
    store = Store(tmp_path / "chunks.db")
    assert store.mask(("everyone",), {"label": ("public",)}).sum() == 0
    assert store.mask(("everyone",), {"label": ("secret",)}).sum() == 2
    store.close()


def test_labels_are_told_of_visible_documents_only(store: Store) -> None:
    """A label is not told to who may not see the document, and an unknown id is left out."""
    ids = [made.document_id for made, _ in DOCUMENTS]
    assert store.labels([*ids, *ids, "nowhere"], ("everyone",)) == {ids[0]: "internal", ids[4]: "public"}
    assert store.labels(ids, ()) == {}
    assert store.labels([], ("everyone",)) == {}
    assert sorted(store.labels_in_use()) == ["internal", "public", "secret"]


def test_summaries_page_through_all_visible_documents_once(store: Store) -> None:
    """Paging by id neither repeats nor loses a document."""
    seen: list[str] = []
    while page := store.document_summaries(("everyone", "board"), after=seen[-1] if seen else None, limit=1):
        seen += [summary.document_id for summary in page]
    assert seen == sorted(DOCUMENTS[number][0].document_id for number in (0, 1, 4))


def test_a_vector_is_found_by_the_hash_of_its_input(store: Store) -> None:
    """The first chunk embedded from an input stands for it; more hashes than one statement takes are looked up in parts."""
    many = [bytes([7, number % 256, number // 256]) for number in range(1200)]
    assert store.stored.ordinal_by_input([*many, b"\x01" * 32]) == {b"\x01" * 32: 1}


def test_a_file_that_is_no_database_is_damage(tmp_path: Path) -> None:
    """SQLite's own error becomes ours."""
    (tmp_path / "chunks.db").write_bytes(b"no database" * 100)
    with pytest.raises(SnapshotDamaged, match=r"chunks\.db cannot be read"):
        Store(tmp_path / "chunks.db")


def test_an_empty_store_has_nothing_to_show(tmp_path: Path) -> None:
    """No documents at all is a valid store."""
    StoreWriter(tmp_path / "chunks.db").close()
    store = Store(tmp_path / "chunks.db")
    assert store.counts() == (0, 0)
    assert store.mask(("everyone",), {}).shape == (0,)
    assert store.passages(np.array([], dtype=np.int64)) == []
    store.close()
