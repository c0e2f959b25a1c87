"""offsets.js, stream.js and prose.js, run in the browser."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.app.web.pages import ChatPage

PARSE = """async ([bytes, cuts]) => {
  const { EventParser } = await import("/stream.js");
  const parser = new EventParser();
  const all = Uint8Array.from(bytes);
  const events = [];
  let from = 0;
  for (const cut of [...cuts, all.length]) {
    events.push(...parser.push(all.slice(from, cut)));
    from = cut;
  }
  return events;
}"""

SPLIT = """async ([text, start, end]) => (await import("/offsets.js")).splitAt(text, start, end)"""

BLOCKS = """async (text) => (await import("/prose.js")).blocksOf(text)"""

PROSE = """async ([text, numbers]) => {
  const { showProse } = await import("/prose.js");
  const box = document.createElement("div");
  const marker = (number) => {
    if (!numbers.includes(number)) return null;
    const node = document.createElement("button");
    node.textContent = number;
    return node;
  };
  showProse(box, text, marker);
  return box.innerHTML;
}"""


def parsed(chat: ChatPage, stream: bytes, cuts: list[int]) -> list[dict[str, str]]:
    events: list[dict[str, str]] = chat.page.evaluate(PARSE, [list(stream), cuts])
    return events


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        pytest.param("plain text", 2, 7, id="plain"),
        pytest.param("😀 a 𝔸 b 𠮷 c", 3, 9, id="astral before and inside"),
        pytest.param("👩🏽‍🚀e\u0301 x", 4, 7, id="joined signs and combining accents"),
        pytest.param("😀😀😀", 1, 2, id="only astral"),
        pytest.param("😀 end", 0, 5, id="all of it"),
        pytest.param("abc", 3, 3, id="empty at the end"),
    ],
)
def test_offsets_in_code_points_cut_where_python_cuts(chat: ChatPage, text: str, start: int, end: int) -> None:
    """The page's three parts are those of Python's slices, which count code points."""
    assert chat.page.evaluate(SPLIT, [text, start, end]) == [text[:start], text[start:end], text[end:]]


@pytest.mark.parametrize(("start", "end"), [(0, 4), (4, 4), (2, 1), (-1, 2), (0.5, 1)])
def test_a_span_outside_the_text_is_no_span(chat: ChatPage, start: float, end: float) -> None:
    """Nothing is highlighted where the offsets do not fit the text."""
    assert chat.page.evaluate(SPLIT, ["a😀b", start, end]) is None


STREAM = (
    '\ufeff: ping\n\nevent: sources\ndata: {"a":\n'
    "data:  1}\r\n\r\nevent:delta\rdata: Grüße 😀\r\rdata: no name\nid: 7\nretry: 5\n\nevent: empty\n\ndata\n\n"
    "data: unfinished\n"
).encode()
EVENTS = [
    {"name": "sources", "data": '{"a":\n 1}'},
    {"name": "delta", "data": "Grüße 😀"},
    {"name": "message", "data": "no name"},
    {"name": "message", "data": ""},
]


def test_events_are_read_whole(chat: ChatPage) -> None:
    """Comments, all three line ends, several data lines, fields that are not known, and an event that never ends."""
    assert parsed(chat, STREAM, []) == EVENTS


def test_a_cut_anywhere_changes_nothing(chat: ChatPage) -> None:
    """Whatever byte a piece ends at (in a character, in a CRLF), the events are the same."""
    script = f"""async (bytes) => {{
      const parse = {PARSE};
      const found = [];
      for (let cut = 0; cut <= bytes.length; cut += 1) found.push(JSON.stringify(await parse([bytes, [cut]])));
      found.push(JSON.stringify(await parse([bytes, [...bytes.keys()]])));
      return [...new Set(found)];
    }}"""
    assert [json.loads(each) for each in chat.page.evaluate(script, list(STREAM))] == [EVENTS]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        pytest.param(
            "One\ntwo\n\nthree",
            [
                {"kind": "paragraph", "lines": ["One", "two"], "first": 1},
                {"kind": "paragraph", "lines": ["three"], "first": 1},
            ],
            id="paragraphs",
        ),
        pytest.param(
            "List:\n- a\n  more of a\n* b\n",
            [
                {"kind": "paragraph", "lines": ["List:"], "first": 1},
                {"kind": "bullets", "lines": ["a\nmore of a", "b"], "first": 1},
            ],
            id="bullets",
        ),
        pytest.param("3. c\n4) d", [{"kind": "numbers", "lines": ["c", "d"], "first": 3}], id="numbers"),
        pytest.param(
            "2026 was good.\n-5 degrees",
            [{"kind": "paragraph", "lines": ["2026 was good.", "-5 degrees"], "first": 1}],
            id="no lists",
        ),
    ],
)
def test_text_falls_into_blocks(chat: ChatPage, text: str, blocks: list[dict[str, Any]]) -> None:
    """Paragraphs and simple lists are told apart; nothing is lost."""
    assert chat.page.evaluate(BLOCKS, text) == blocks


@pytest.mark.parametrize(
    ("text", "html"),
    [
        pytest.param(
            "Due **soon** [1][2].",
            '<p>Due <strong>soon</strong> <span class="cited"><button>1</button><button>2</button></span>.</p>',
            id="bold and markers",
        ),
        pytest.param("Not cited [9].", "<p>Not cited [9].</p>", id="unknown marker"),
        pytest.param(
            "<img src=x> [a](javascript:x) ![b](//c)",
            "<p>&lt;img src=x&gt; [a](javascript:x) ![b](//c)</p>",
            id="markup stays text",
        ),
        pytest.param("** no ** **", "<p>** no ** **</p>", id="lone stars"),
        pytest.param(
            "- **a** [1]\n- b",
            '<ul><li><strong>a</strong> <span class="cited"><button>1</button></span></li><li>b</li></ul>',
            id="list",
        ),
    ],
)
def test_prose_becomes_few_kinds_of_nodes(chat: ChatPage, text: str, html: str) -> None:
    """Paragraphs, lists, bold and markers become nodes, everything else stays text."""
    assert chat.page.evaluate(PROSE, [text, [1, 2]]) == html
