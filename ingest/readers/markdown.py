"""Markdown: the source stays as it is, its headings become sections. The only importer of markdown-it-py and yaml."""

from __future__ import annotations

import datetime
import re
from itertools import accumulate, pairwise

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ingest.readers.extract import Extract, as_title, clean, is_title, one_line, sections_of, title_from_name
from ingest.readers.text import decode

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)

# Headings are found without reading the inline markup of the whole document, which takes most of the time.
_BLOCKS = MarkdownIt("commonmark").enable("table").disable("inline")
_INLINE = MarkdownIt("commonmark")


def read_markdown(name: str, data: bytes) -> Extract:
    """The title is the front matter's, else the first level-1 heading, else the file's name."""
    declared, text = _front_matter(clean(decode(name, data)))
    headings = _headings(text)
    first_title = next((heading for _, level, heading in headings if level == 1), None)
    title = as_title(declared.pop("title", None)) or as_title(first_title) or title_from_name(name)
    lang = declared.pop("lang", None)
    language = declared.pop("language", None) or lang

    marks: list[tuple[int, tuple[str, ...], int | None]] = [(0, (), None)]
    path: list[tuple[int, str]] = []
    title_seen = False
    for start, level, heading in headings:
        while path and path[-1][0] >= level:
            path.pop()
        if level == 1 and not title_seen and is_title(heading, title):
            title_seen = True
        else:
            path.append((level, heading))
        marks.append((start, tuple(part for _, part in path), None))
    if len(marks) > 1 and not text[: marks[1][0]].strip():
        del marks[0]
    return Extract(
        title=title,
        text=text,
        sections=sections_of(marks, len(text)),
        language=one_line(language) or None if language else None,
        metadata=declared,
    )


def _front_matter(text: str) -> tuple[dict[str, str], str]:
    """The YAML between `---` lines as strings, and the text after it; what is no YAML mapping stays in the text."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    try:
        values = yaml.safe_load(match.group(1))
    # A date such as 2024-13-45 is a ValueError, deep nesting a RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(values, dict):
        return {}, text
    return {
        one_line(str(key)).casefold(): written
        for key, value in values.items()
        if isinstance(key, str) and (written := _scalar(value))
    }, text[match.end() :]


def _scalar(value: object) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, str | int | float):
        return one_line(str(value))
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return one_line(", ".join(str(item) for item in value))
    return ""


def _headings(text: str) -> list[tuple[int, int, str]]:
    """(start, level, plain heading) of every heading that is not inside a quotation or a list."""
    line_starts = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
    return [
        (line_starts[token.map[0]], int(token.tag[1:]), _plain(content.content))
        for token, content in pairwise(_BLOCKS.parse(text))
        if token.type == "heading_open" and token.level == 0 and token.map is not None
    ]


def _plain(inline: str) -> str:
    """A heading without its markup."""
    tokens = _INLINE.parseInline(inline)
    children: list[Token] = tokens[0].children or [] if tokens else []
    return one_line("".join(_inline_text(child) for child in children)) or one_line(inline)


def _inline_text(token: Token) -> str:
    if token.type in ("softbreak", "hardbreak"):
        return " "
    return token.content if token.type in ("text", "code_inline", "image") else ""
