"""The plan compares what lies in the sources with what the snapshot was made from."""

from __future__ import annotations

import random
from dataclasses import replace

from corpus.records import FileRecord
from ingest.plan import plan

OLD = [FileRecord("c", name, 1, f"hash-{name}", "rules") for name in ("a", "b", "d", "e")]
NOW = [
    OLD[0],
    replace(OLD[1], content_hash="other"),
    replace(OLD[2], rules_hash="other"),
    FileRecord("c", "f", 1, "x", "rules"),
]


def test_files_are_sorted_by_what_happens_to_them() -> None:
    """Another content or other rules is a change; the same path in another source is another file."""
    found = plan([*NOW, replace(OLD[0], collection="z")], OLD)
    assert [file.path for file in found.kept] == ["a"]
    assert [file.path for file in found.changed] == ["b", "d"]
    assert [(file.collection, file.path) for file in found.added] == [("c", "f"), ("z", "a")]
    assert [file.path for file in found.removed] == ["e"]
    assert not found.is_empty


def test_the_order_of_files_does_not_matter() -> None:
    """Threat A14: shuffled input gives the same plan."""
    rng = random.Random(5)
    for _ in range(20):
        assert plan(rng.sample(NOW, len(NOW)), rng.sample(OLD, len(OLD))) == plan(NOW, OLD)


def test_nothing_changed_is_an_empty_plan() -> None:
    """The same files, and size alone, are no work; a file that could not be read stays as it is."""
    unread = FileRecord("c", "x", 0, None, "rules")
    assert plan([*(replace(file, size_bytes=2) for file in OLD), unread], [*OLD, unread]).is_empty
    assert plan([], []).is_empty


def test_a_file_that_can_be_read_now_is_changed() -> None:
    """No hash before and one now is a change, and the other way round."""
    unread = replace(OLD[0], content_hash=None)
    assert plan([OLD[0]], [unread]).changed == (OLD[0],)
    assert plan([unread], [OLD[0]]).changed == (unread,)
