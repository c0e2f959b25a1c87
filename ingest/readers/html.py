"""Web pages: what a reader of the page sees, as lines. The only importer of selectolax."""

from __future__ import annotations

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from corpus.errors import DocumentError
from ingest.readers.extract import Block, Extract, as_title, assemble, clean, one_line, title_from_name
from ingest.readers.text import decode

_LEFT_OUT = frozenset(
    [
        "script",
        "style",
        "nav",
        "noscript",
        "template",
        "svg",
        "math",
        "iframe",
        "object",
        "canvas",
        "audio",
        "video",
        "select",
        "textarea",
        "button",
        "head",
    ]
)
_LINES = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "ol",
        "p",
        "section",
        "summary",
        "ul",
        "caption",
        "table",
        "tbody",
        "thead",
        "tfoot",
        "tr",
        "td",
        "th",
    ]
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_NOT_SHOWN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_NESTING = re.compile(r"<(/?)(div|span|table|ul|ol|b|i|em|strong|font|a|section|blockquote|article)\b", re.IGNORECASE)
# Source: the parser takes time quadratic in the depth: .6 s at 10,000, 240 s at 200,000.
_MAX_DEPTH = 10_000
# A table that holds these lays a page out; it is read as the blocks in it.
_LAYOUT = "table, h1, h2, h3, h4, h5, h6, ul, ol, article, section"


def read_html(name: str, data: bytes) -> Extract:
    """The page's text with its headings; navigation, scripts and what is hidden are left out."""
    declared = _DECLARED.search(data[:4096])
    return extract_html(name, decode(name, data, declared.group(1).decode("ascii") if declared else None))


def extract_html(name: str, markup: str) -> Extract:
    """The same for markup that is text already.

    Raises: DocumentError where the parser gives up.
    """
    if _depth(markup) > _MAX_DEPTH:
        raise DocumentError(name, f"its elements are nested more than {_MAX_DEPTH} deep", "save the page again")
    try:
        tree = LexborHTMLParser(clean(markup))
        root = tree.root
        blocks = _blocks(root) if root is not None else []
        declared_title = tree.css_first("head > title")
        first_heading = next((block.text for block in blocks if block.level == 1), None)
        title = as_title(declared_title.text() if declared_title is not None else None) or as_title(first_heading)
        language = (root.attributes.get("lang") or "") if root is not None else ""
        author = tree.css_first('meta[name="author"]')
        metadata = {"author": one_line(author.attributes.get("content") or "")} if author is not None else {}
    # RuntimeError and ValueError: what the parser raises for markup it cannot hold.
    except (SelectolaxError, RuntimeError, ValueError) as error:
        raise DocumentError(name, f"the HTML cannot be parsed ({type(error).__name__})", "save the page again") from error
    title = title or title_from_name(name)
    text, sections = assemble(blocks, leave_out=title)
    return Extract(
        title=title,
        text=text,
        sections=sections,
        language=one_line(language) or None,
        metadata={key: value for key, value in metadata.items() if value},
    )


class _Lines:
    """Collects inline text until a block ends."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._pieces: list[str] = []
        self._level: int | None = None
        self._tight = False

    def text(self, text: str) -> None:
        self._pieces.append(text)

    def end(self, *, level: int | None = None, tight: bool = False, preformatted: bool = False) -> None:
        written = "".join(self._pieces)
        self._pieces.clear()
        lines = written.split("\n") if preformatted else [one_line(line) for line in written.split("\x00")]
        text = "\n".join(lines).strip("\n")
        if text.strip():
            self.blocks.append(Block(text, level=level, tight=tight))


def _blocks(root: LexborNode) -> list[Block]:
    """Walks the tree without recursion, so that deep nesting costs no stack."""
    lines = _Lines()
    stack: list[tuple[LexborNode, bool]] = [(root, False)]
    preformatted = 0
    while stack:
        node, leaving = stack.pop()
        tag = node.tag or ""
        if leaving:
            preformatted -= tag == "pre"
            lines.end(level=_HEADINGS.get(tag), tight=tag in ("li", "dt", "dd"), preformatted=tag == "pre")
            continue
        if tag == "-text":
            content = node.text_content or ""
            lines.text(content if preformatted else re.sub(r"\s+", " ", content))
        elif tag == "br":
            lines.text("\n" if preformatted else "\x00")
        elif tag in _LEFT_OUT or tag.startswith(("-", "!")) or _is_hidden(node):
            continue
        else:
            if tag == "table" and _is_data(node):
                lines.end()
                lines.blocks.extend(_table(node))
                continue
            if tag in _LINES or tag in _HEADINGS or tag == "pre":
                lines.end()
                stack.append((node, True))
                preformatted += tag == "pre"
            if tag == "li":
                lines.text("- ")
            stack.extend((child, False) for child in reversed(list(node.iter(include_text=True))))
    lines.end()
    return lines.blocks


def _depth(markup: str) -> int:
    """How deeply elements nest at most, as far as the tags tell."""
    depth = deepest = 0
    for match in _NESTING.finditer(markup):
        depth = max(0, depth - 1) if match.group(1) else depth + 1
        deepest = max(deepest, depth)
    return deepest


def _is_hidden(node: LexborNode) -> bool:
    """Whether a reader does not see a node, or sees it as navigation."""
    attributes = node.attributes
    if attributes.get("role") in ("navigation", "search"):
        return True
    return "hidden" in attributes or _NOT_SHOWN.search(attributes.get("style") or "") is not None


def _is_data(table: LexborNode) -> bool:
    """Whether a table holds data, not the layout of a page; the search finds the table itself too."""
    return len(table.css(_LAYOUT)) <= 1


def _table(table: LexborNode) -> list[Block]:
    """A table's rows as `a | b`, after its caption."""
    blocks: list[Block] = []
    for caption in table.css("caption"):
        blocks.append(Block(_cell(caption)))
    for row in table.css("tr"):
        cells = [_cell(cell) for cell in row.iter() if cell.tag in ("td", "th") and not _is_hidden(cell)]
        if any(cells):
            blocks.append(Block(" | ".join(cells), tight=bool(blocks)))
    return [block for block in blocks if block.text]


def _cell(node: LexborNode) -> str:
    """A cell's visible text on one line."""
    pieces: list[str] = []
    stack = [node]
    while stack:
        current = stack.pop()
        tag = current.tag or ""
        if tag == "-text":
            pieces.append(current.text_content or "")
        elif tag not in _LEFT_OUT and not tag.startswith(("-", "!")) and not _is_hidden(current):
            if tag in _LINES or tag == "br":
                pieces.append(" ")
            stack.extend(reversed(list(current.iter(include_text=True))))
    return one_line("".join(pieces))
