"""Markdown: the source stays as it is, its headings become sections. The only importer of markdown-it-py."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from itertools import accumulate, pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from corpus.errors import DocumentError, NotYaml
from corpus.strict_yaml import parse_yaml
from ingest.readers.extract import Extract, as_title, clean, is_title, one_line, sections_of, title_from_name
from ingest.readers.text import decode

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)

_ACCESS = ("groups", "label")
# Taken for metadata, a misspelt access key would leave a document open that its author closed.
_NEARLY_ACCESS = ("group", "labels", "acl")
_SPEAKS_OF_ACCESS = re.compile(r"^\s*['\"]?(groups?|labels?|acl)['\"]?\s*:", re.MULTILINE | re.IGNORECASE)

# Headings are found without reading the inline markup of the whole document, which takes most of the time.
_BLOCKS = MarkdownIt("commonmark").enable("table").disable("inline")
_INLINE = MarkdownIt("commonmark")


def read_markdown(name: str, data: bytes) -> Extract:
    """The title is the front matter's, else the first level-1 heading, else the file's name.

    Raises: DocumentError where the front matter speaks of access in a way that is not understood.
    """
    declared, access, text = _front_matter(name, clean(decode(name, data)))
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
        groups=access.groups,
        label=access.label,
        metadata=declared,
    )


@dataclass(frozen=True, slots=True)
class _Access:
    """Who may see the document, as far as its front matter says so."""

    groups: tuple[str, ...] | None = None
    label: str | None = None


def _front_matter(name: str, text: str) -> tuple[dict[str, str], _Access, str]:
    """The YAML between `---` lines as strings, what it says of access, and the text after it.

    What is no YAML mapping stays in the text, unless it looks as if it meant to close the document.
    """
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, _Access(), text
    try:
        values = parse_yaml(match.group(1))
    except NotYaml as error:
        if error.repeated:
            raise _unclear(name, error.reason) from error
        values = None
    if not isinstance(values, dict):
        if _SPEAKS_OF_ACCESS.search(match.group(1)):
            raise _unclear(name, "it names groups or a label, and is not valid YAML")
        return {}, _Access(), text
    named: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(key, str):
            folded = one_line(key).casefold()
            if folded in named:
                raise _unclear(name, f"it has the key {folded[:40]!r} twice")
            named[folded] = value
    access = _access(name, named)
    declared = {key: written for key, value in named.items() if key not in _ACCESS and (written := _scalar(value))}
    return declared, access, text[match.end() :]


def _access(name: str, named: dict[str, object]) -> _Access:
    for key in _NEARLY_ACCESS:
        if key in named:
            raise _unclear(name, f"unknown key {key!r}; write it as `groups` or `label`")
    groups: tuple[str, ...] | None = None
    if "groups" in named:
        value = named["groups"]
        written = value if isinstance(value, list) else [value]
        groups = tuple(one_line(group) if isinstance(group, str) else "" for group in written)
        if not groups or not all(groups):
            raise _unclear(name, "groups is not a list of at least one group")
    label = named.get("label")
    if "label" in named and (not isinstance(label, str) or not one_line(label)):
        raise _unclear(name, "label is not the name of a label")
    return _Access(groups, one_line(label) if isinstance(label, str) else None)


def _unclear(name: str, reason: str) -> DocumentError:
    return DocumentError(name, f"its front matter: {reason}", "mend it; until then the document is left out")


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
