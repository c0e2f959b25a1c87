"""Server-sent events: what is data and what is not, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.events import EventParser


@given(
    events=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1), max_size=5),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    data=st.data(),
)
def test_events_are_the_same_however_the_bytes_are_cut(events: list[str], line_end: bytes, data: st.DataObject) -> None:
    """Where the network cuts the stream makes no difference, not even inside a letter or a line end."""
    stream = b"".join(b"data: " + event.encode() + line_end * 2 for event in events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser = EventParser(max_event_bytes=100_000)
    found: list[str] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += parser.feed(stream[start:end])
    assert found == events


def fed(*chunks: bytes, limit: int = 1_000) -> list[str]:
    """All that a parser says to these chunks."""
    parser = EventParser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        ([b"event: delta\ndata: one\nid: 7\n\n"], ["one"]),
        ([b"data: a\n\ndata: b\n\nda", b"ta: c\n\n"], ["a", "b", "c"]),
        ([b"data: a\ndata:b\ndata:  c\n\n"], ["a\nb\n c"]),
        ([b": ping\n\n: ping\n\ndata: a\n\n"], ["a"]),
        ([b"\xef\xbb\xbfdata: a\n\n", b"\xef\xbb\xbfdata: b\n\n"], ["a"]),
        ([b"data: a\r", b"\n\r", b"\n", b"data: b\r\n\r", b"\ndata: c\r\r"], ["a", "b", "c"]),
        ([b"data: a\n", b"\n", b"\n\n\n", b"data: b\n\n\n"], ["a", "b"]),
        ([b"", b"data: \xff\xe2\x82\n\n"], ["\ufffd\ufffd"]),
        ([b"data: \xe2\x82", b"\xac\n\n"], ["\u20ac"]),
        ([b"database: no\n\n", b"data\n\n", b"data: never ended\n"], []),
        ([b"data:\n\n"], [""]),
    ],
)
def test_only_data_is_an_event(chunks: list[bytes], events: list[str]) -> None:
    """Other fields, comments, empty blocks and what was never ended are left out; broken UTF-8 is replaced."""
    assert fed(*chunks) == events


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 1_001 + b"\n\n"],
        [b"data: a\n\ndata: " + b"x" * 1_001 + b"\n\n"],
        [b"data: " + b"x" * 700, b"x" * 700],
        [b"data: xxxxxxxx\n"] * 100,
        [b": ping\n"] * 300,
    ],
    ids=["whole", "second", "no line end", "no blank line", "comments only"],
)
def test_an_event_that_is_too_large_is_refused(chunks: list[bytes]) -> None:
    """A thousand bytes are the limit, with or without an end in sight."""
    with pytest.raises(ValueError, match="one event is larger than 1,000 bytes"):
        fed(*chunks)


def test_many_small_events_in_one_chunk_are_not_one_large_event() -> None:
    """The limit is for each event, not for what arrives at once."""
    assert fed(b"data: 0123456789\n\n" * 1_000) == ["0123456789"] * 1_000
