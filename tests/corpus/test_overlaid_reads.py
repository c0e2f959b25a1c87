"""What the overlay says holds for every read of an open snapshot, at once, and a search is that of a world without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from corpus.effects import Former, Seen
from corpus.lexical import LexicalFilter
from corpus.overlay import Overlay
from corpus.search import Query, Scope
from corpus.settings import SearchSettings
from corpus.snapshot import OpenSnapshot, open_current
from corpus.store import Store
from corpus.store_writer import StoreWriter
from corpus.types import Document, Hit, document_id_of, version_of
from tests.corpus.corpora import Text, asked, published

SCOPE = Scope(("everyone",))
WORDS = (
    "river", "lantern", "copper", "meadow", "signal", "harbour", "velvet", "engine", "orchard", "pepper", "tunnel", "marble",
    "window", "cedar", "anchor",
)  # fmt: skip


def id_of(number: int) -> str:
    """The id of a document by its number in the corpus."""
    return document_id_of("c", str(number))


def texts(count: int) -> list[Text]:
    """Documents of two chunks each, with words in common; every third one is for the board too."""
    chance = np.random.default_rng(7)
    found = []
    for number in range(count):
        words = [" ".join(chance.choice(WORDS, 9)) for _ in range(2)]
        groups = ("everyone", "board") if number % 3 == 0 else ("everyone",)
        found.append(Text("\n\n".join([f"Form K-{number:03} {words[0]}.", f"{words[1]}."]), f"Title {number}", groups))
    return found


@dataclass(frozen=True, slots=True)
class World:
    """An open snapshot and the overlay that its reads ask."""

    snapshot: OpenSnapshot
    overlay: Overlay

    def hits(self, question: str, scope: Scope = SCOPE, top_k: int = 10) -> list[Hit]:
        """What a search finds."""
        return self.snapshot.search.search([Query(question, asked())], scope, top_k)


@contextmanager
def world(folder: Path, corpus: list[Text], settings: SearchSettings = SearchSettings()) -> Iterator[World]:
    """A published corpus."""
    published(folder, corpus).close()
    overlay = Overlay(folder / "overlay.db")
    snapshot, _ = open_current(folder, settings, overlay)
    try:
        yield World(snapshot, overlay)
    finally:
        snapshot.close()
        overlay.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[World]:
    """Twelve documents, all internal."""
    with world(tmp_path / "data", texts(12)) as made:
        yield made


def visible(world: World, groups: tuple[str, ...]) -> set[str]:
    """The documents that some groups may see, which every way of reading agrees on."""
    store = world.snapshot.store
    listed = {each.document_id for each in store.document_summaries(groups, after=None, limit=99)}
    every = [id_of(number) for number in range(12)]
    assert {each for each in every if store.document(each, groups) is not None} == listed
    assert set(store.labels(every, groups)) == listed
    ordinals = np.flatnonzero(store.mask(groups, {}))
    assert {passage.document_id for passage in store.passages(ordinals)} == listed
    only = LexicalFilter(groups, {}, sees_everything=False, overlaid=store.overlaid())
    assert world.snapshot.lexical.count(only) == len(ordinals)
    found = {hit.passage.document_id for hit in world.hits(" ".join(WORDS), Scope(groups), top_k=50)}
    assert found <= listed
    return listed


def test_a_delete_holds_for_every_read_at_once(small: World) -> None:
    """Listing, reading, labels, masks, search, and the index's own count: each without the document, and with it again."""
    everything = {id_of(number) for number in range(12)}
    assert visible(small, ("everyone",)) == everything
    entry = small.overlay.delete(id_of(3), "anna")
    assert visible(small, ("everyone",)) == everything - {id_of(3)}
    assert (small.snapshot.store.passages_of(id_of(3)), small.snapshot.store.counts()) == ([], (11, 22))
    small.overlay.undo(entry.number)
    assert visible(small, ("everyone",)) == everything
    assert small.snapshot.store.counts() == (12, 24)


def test_a_revoked_group_holds_for_every_read_of_that_group(small: World) -> None:
    """Others see the document as before, and nobody is told that the group ever saw it."""
    small.overlay.revoke(id_of(3), "everyone", "anna")
    assert id_of(3) not in visible(small, ("everyone",))
    assert visible(small, ("board",)) == {id_of(number) for number in (0, 3, 6, 9)}
    document = small.snapshot.store.document(id_of(3), ("everyone", "board"))
    assert document is not None
    assert document.groups == ("board",)
    assert [passage.groups for passage in small.snapshot.store.passages_of(id_of(3))] == [("board",)] * 2
    small.overlay.revoke(id_of(3), "board", "anna")
    assert id_of(3) not in visible(small, ("everyone", "board"))


def test_a_raised_label_stands_on_every_read(small: World) -> None:
    """Document, list, passages, hits and filters have the label of now; a lower one changes nothing."""
    store = small.snapshot.store
    assert store.labels_in_use() == ["internal"]
    small.overlay.relabel(id_of(1), "secret", "anna")
    small.overlay.relabel(id_of(2), "public", "anna")
    assert store.labels([id_of(1), id_of(2)], ("everyone",)) == {id_of(1): "secret", id_of(2): "internal"}
    document = store.document(id_of(1), ("everyone",))
    assert document is not None
    assert (document.label, [each.label for each in store.passages_of(id_of(1))]) == ("secret", ["secret"] * 2)
    listed = store.document_summaries(("everyone",), after=None, limit=99)
    assert {each.document_id for each in listed if each.label == "secret"} == {id_of(1)}
    assert store.labels_in_use() == ["internal", "secret"]
    for label, count in (("secret", 1), ("internal", 11), ("public", 0)):
        scope = Scope(("everyone",), {"label": (label,)})
        found = {hit.passage.document_id: hit.passage.label for hit in small.hits(" ".join(WORDS), scope, 50)}
        assert set(found.values()) <= {label}
        only = LexicalFilter(scope.groups, scope.filters, sees_everything=False, overlaid=store.overlaid())
        assert (small.snapshot.lexical.count(only), int(store.mask(scope.groups, scope.filters).sum())) == (
            2 * count,
            2 * count,
        )


def test_an_identifier_of_a_deleted_document_is_held_by_nothing(small: World) -> None:
    """Neither that it is there, nor how rare it is, shows any more."""
    search = small.snapshot.search
    assert search.holds_identifier("k-003", SCOPE)
    assert search.rarity("003", "en", SCOPE) < search.rarity("nowhere", "en", SCOPE)
    small.overlay.delete(id_of(3), "anna")
    assert not search.holds_identifier("k-003", SCOPE)
    assert search.rarity("003", "en", SCOPE) == search.rarity("nowhere", "en", SCOPE)


@pytest.mark.parametrize("candidates", [5, 100])
def test_deletes_give_the_search_of_a_world_without_the_documents(tmp_path: Path, candidates: int) -> None:
    """The same ranking as over a corpus that never had them, although those that are gone were the best for every word.

    BM25 takes the average length of a text over the whole index, so texts here are equally long and scores agree closely.
    """
    corpus = texts(40)
    best = [
        Text(f"Form K-{number:03} {' '.join(WORDS[:9])}.\n\n{' '.join(WORDS[6:])}.", f"Title {number}", near=0.95)
        for number in range(40, 70)
    ]
    settings = SearchSettings(candidates=candidates, fold_near_duplicates=False)
    questions = ["river lantern copper", "harbour", "form K-007 marble window", "cedar anchor tunnel"]
    with (
        world(tmp_path / "with", corpus + best, settings) as hiding,
        world(tmp_path / "without", corpus, settings) as without,
    ):
        for number in range(40, 70):
            hiding.overlay.delete(id_of(number), "anna")
        for question in questions:
            one, other = hiding.hits(question), without.hits(question)
            assert len(one) == 10
            assert [hit.passage.chunk_id for hit in one] == [hit.passage.chunk_id for hit in other]
            np.testing.assert_allclose([hit.score for hit in one], [hit.score for hit in other], atol=1e-4)
            assert without.snapshot.search.rarity("river", "en", SCOPE) == hiding.snapshot.search.rarity("river", "en", SCOPE)


def stored(path: Path, documents: Mapping[str, tuple[Former, ...]]) -> Path:
    """A chunks.db with a document of each id, none of them with a chunk."""
    writer = StoreWriter(path)
    for document_id, former in documents.items():
        document = Document(
            document_id, version_of("t", "x"), "c", document_id, "t", "x", (), "md", "en", ("everyone",), "internal"
        )
        writer.add_document(document_id, document, [], [], former)
    writer.close()
    return path


def test_entries_follow_a_move_through_the_snapshot(tmp_path: Path) -> None:
    """Made on an id of before, also two moves ago, they hold for the document; on who has that id now, only for that one."""
    path = stored(tmp_path / "chunks.db", {"new": (Former("middle", 7), Former("old", 5)), "old": (), "other": ()})
    overlay = Overlay(tmp_path / "overlay.db")
    store = Store(path, overlay, 9)
    assert store.stored.former_ids("new") == (Former("middle", 7), Former("old", 5))
    first = overlay.delete("old", "anna", Seen(4))
    assert set(store.labels(["new", "old", "other"], ["everyone"])) == {"other"}
    overlay.undo(first.number)
    overlay.delete("old", "anna", Seen(8))
    overlay.relabel("middle", "secret", "anna", Seen(6))
    assert store.labels(["new", "old", "other"], ["everyone"]) == {"new": "secret", "other": "internal"}
    store.close()
    overlay.close()


def test_entries_hold_in_older_snapshots_under_the_id_of_then(tmp_path: Path) -> None:
    """Going back to a snapshot of before the move does not bring a deleted document back."""
    path = stored(tmp_path / "chunks.db", {"old": (), "other": ()})
    overlay = Overlay(tmp_path / "overlay.db")
    overlay.delete("new", "anna", Seen(9, (Former("old", 5),)))
    shown = {}
    for number in (5, 6):
        store = Store(path, overlay, number)
        shown[number] = set(store.labels(["old", "other"], ["everyone"]))
        store.close()
    assert shown == {5: {"other"}, 6: {"old", "other"}}
    overlay.close()


def test_an_answer_rests_on_a_version_under_its_id_of_then(tmp_path: Path) -> None:
    """A rename leaves it, and an edit; it is gone with the version although another has the id now; labels are those of now."""
    version, edited = version_of("t", "x"), version_of("t", "before")
    path = stored(tmp_path / "chunks.db", {"new": (Former("old", 5),), "other": ()})
    overlay = Overlay(tmp_path / "overlay.db")
    store = Store(path, overlay, 9)
    wanted = [("old", version), ("other", version), ("other", edited), ("nowhere", version)]
    assert set(store.standing(wanted, ["everyone"])) == set(wanted[:3])
    assert store.standing(wanted, ["board"]) == {}
    overlay.relabel("new", "secret", "anna", Seen(9, (Former("old", 5),)))
    assert store.standing(wanted, ["everyone"]) == {wanted[0]: "secret", wanted[1]: "internal", wanted[2]: "internal"}
    overlay.delete("new", "anna", Seen(9, (Former("old", 5),)))
    assert set(store.standing(wanted, ["everyone"])) == set(wanted[1:3])
    store.close()
    taken = Store(stored(tmp_path / "taken.db", {"old": (), "other": ()}), overlay, 9)
    # The id has another version now; of the version that left it, nothing stands any more.
    assert set(taken.standing([("old", version), ("old", edited)], ["everyone"])) == {("old", version)}
    overlay.undo(1)
    overlay.undo(2)
    overlay.delete("elsewhere", "anna", Seen(9, version=edited, copies=("other",)))
    assert set(taken.standing([("old", edited), ("other", edited)], ["everyone"])) == {("other", edited)}
    taken.close()
    overlay.close()
