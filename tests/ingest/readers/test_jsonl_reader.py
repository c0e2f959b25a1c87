"""JSON lines."""

from __future__ import annotations

import json

import pytest

from corpus.errors import DocumentError
from ingest.readers.extract import Extract
from ingest.readers.jsonl import read_jsonl

FULL = {
    "id": "a1",
    "title": "First",
    "text": "One.\r\nTwo.",
    "source": "https://example.org/1",
    "groups": ["hr", "board"],
    "label": "confidential",
    "language": "en",
    "metadata": {"year": 2024, "draft": False, "by": "Ada", "none": None},
    "pages": 3,
    "tags": ["left out"],
}


def rows(*lines: object) -> list[Extract | DocumentError]:
    """What is read from these rows; a string is a line as it is."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return list(read_jsonl("x.jsonl", text.encode()))


def test_every_field_is_read() -> None:
    """A full row gives a full extract; unknown scalars are metadata."""
    assert rows(FULL) == [
        Extract(
            title="First",
            text="One.\nTwo.",
            sections=rows(FULL)[0].sections,  # type: ignore[union-attr]
            row_id="a1",
            language="en",
            groups=("hr", "board"),
            label="confidential",
            source="https://example.org/1",
            metadata={"pages": "3", "year": "2024", "draft": "false", "by": "Ada"},
        )
    ]


def test_a_row_needs_only_id_and_text() -> None:
    """The title is the first line then, and nothing is said of access."""
    [extract] = rows({"id": 7, "text": "A first line\nmore"})
    assert isinstance(extract, Extract)
    assert (extract.row_id, extract.title, extract.groups, extract.label) == ("7", "A first line", None, None)


BAD = {
    "no-json": ("{oops", "not a JSON object"),
    "list": ("[1]", "holds a list of 1, not a JSON object"),
    "no-id": ({"text": "x"}, "field 'id' is missing or null"),
    "id-boolean": ({"id": True, "text": "x"}, "field 'id' is a boolean"),
    "no-text": ({"id": "a"}, "field 'text' is missing or null"),
    "blank-text": ({"id": "a", "text": " \n"}, "field 'text' is a string of 2 characters"),
    "text-number": ({"id": "a", "text": 5}, "field 'text' is a number, not a string"),
    "title-list": ({"id": "a", "text": "x", "title": []}, "field 'title' is a list of 0, not a string"),
    "groups-string": ({"id": "a", "text": "x", "groups": "hr"}, "field 'groups' is a string of 2 characters, not a list"),
    "groups-empty": ({"id": "a", "text": "x", "groups": []}, "field 'groups' is a list of 0, not a list of at least one group"),
    "groups-null": ({"id": "a", "text": "x", "groups": None}, "field 'groups' is missing or null"),
    "groups-blank": ({"id": "a", "text": "x", "groups": ["hr", " "]}, "field 'groups' is a list of 2"),
    "groups-number": ({"id": "a", "text": "x", "groups": [1]}, "field 'groups' is a list of 1"),
    "groups-twice": ('{"id": "a", "text": "x", "groups": ["hr"], "groups": ["all"]}', "'groups' is given twice"),
    "groups-misspelt": ({"id": "a", "text": "x", "Groups": ["hr"]}, "unknown field 'Groups'; write it as `groups`"),
    "label-number": ({"id": "a", "text": "x", "label": 3}, "field 'label' is a number, not a string"),
    "label-blank": ({"id": "a", "text": "x", "label": ""}, "field 'label' is a string of 0"),
    "metadata-list": ({"id": "a", "text": "x", "metadata": []}, "field 'metadata' is a list of 0"),
    "metadata-nested": ({"id": "a", "text": "x", "metadata": {"a": {}}}, "field 'metadata, value 1' is an object"),
    "not-a-number": ('{"id": "a", "text": "x", "n": NaN}', "NaN is not JSON"),
    "deep": ("[" * 200_000, "not a JSON object"),
}


CANARY = "GNU04CANARY broken row"


@pytest.mark.parametrize(
    "row",
    [
        CANARY, [CANARY], {CANARY: 1}, {"id": [CANARY], "text": "x"}, {"id": "a", "text": [CANARY]},
        {"id": "a", "text": "x", "groups": CANARY}, {"id": "a", "text": "x", "groups": [CANARY, ""]},
        {"id": "a", "text": "x", "metadata": {CANARY: [CANARY]}}, json.dumps(CANARY), f'{{"{CANARY}": 1, "{CANARY}": 2}}',
        f'{{"id": "a", "text": "{CANARY}", "text": "{CANARY}"}}', f'{{"id": "a", "text": "{CANARY}"',
        f'{{"id": "a", "text": "x", "n": {{"a": "{CANARY}", "b": NaN}}}}',
    ],
    ids=range(13),
)  # fmt: skip
def test_an_error_never_says_what_a_row_says(row: object) -> None:
    """Threat G1: errors go into reports, which stay when a document is deleted."""
    [error] = rows(row)
    assert isinstance(error, DocumentError)
    assert "canary" not in str(error).casefold()


@pytest.mark.parametrize(("row", "message"), BAD.values(), ids=BAD)
def test_a_bad_row_fails_alone(row: object, message: str) -> None:
    """The error names line, field and type; the rows around it are read."""
    before, error, after = rows({"id": "b", "text": "before"}, row, {"id": "c", "text": "after"})
    assert isinstance(error, DocumentError)
    assert error.path == "x.jsonl line 2"
    assert message in str(error)
    assert [item.text for item in (before, after) if isinstance(item, Extract)] == ["before", "after"]


def test_an_id_used_twice_is_an_error_on_the_second() -> None:
    """The first row keeps the id."""
    first, second = rows({"id": "1", "text": "x"}, {"id": 1, "text": "y"})
    assert isinstance(first, Extract)
    assert "its id was used in line 1 already" in str(second)


def test_a_badly_encoded_line_fails_alone() -> None:
    """One line that is not UTF-8 does not spoil the file."""
    good = b'{"id": "a", "text": "x"}\n'
    items = list(read_jsonl("x.jsonl", good + b'{"id": "b", "text": "\xff"}\n\n' + good.replace(b'"a"', b'"c"')))
    assert [type(item) for item in items] == [Extract, DocumentError, Extract]


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    """UTF-8 with a mark and UTF-16 are what Windows programs write."""
    line = '{"id": "a", "text": "Größe"}'
    for encoding in ("utf-8-sig", "utf-16"):
        [extract] = read_jsonl("x.jsonl", line.encode(encoding))
        assert isinstance(extract, Extract)
        assert extract.text == "Größe"
