"""The frame of an HTML report: one file that loads nothing, in light, dark and print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2430; --soft: #5b6675; --line: #dde2e9; --tile: #f5f7fa;
  --a: #2f6fb3; --b: #c4741a; --good: #1e7d4c; --bad: #b3322f; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --ink: #e6eaf0; --soft: #9aa5b4; --line: #2c3440;
  --tile: #1c222b; --a: #6ba4e0; --b: #e5a050; --good: #58bd88; --bad: #ea7a74; --warn: #3a3115; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 980px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0 0 4px; font-size: 26px; } h2 { margin: 40px 0 8px; font-size: 18px; } h3 { margin: 20px 0 4px; font-size: 15px; }
p { margin: 4px 0 12px; } .soft { color: var(--soft); } .small { font-size: 13px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { padding: 12px 14px; border-radius: 8px; background: var(--tile); border: 1px solid var(--line); break-inside: avoid; }
.tile b { display: block; font-size: 24px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tile span { display: block; font-size: 13px; color: var(--soft); }
.note { padding: 10px 14px; border-radius: 8px; background: var(--warn); margin: 8px 0; }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; }
th, td { padding: 5px 10px 5px 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } td.number, th.number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; } tr { break-inside: avoid; } td { overflow-wrap: anywhere; }
td.number, td:first-child { overflow-wrap: normal; } p.soft { break-after: avoid; }
.good { color: var(--good); white-space: nowrap; } .bad { color: var(--bad); white-space: nowrap; }
svg { width: 100%; height: auto; max-width: 860px; break-inside: avoid; font: 12px system-ui, Arial, sans-serif; }
svg text { fill: var(--ink); } svg text.tick, svg text.value { fill: var(--soft); font-size: 11.5px; }
svg text.heading { font-weight: 600; } svg .grid { stroke: var(--line); } svg .zero { stroke: var(--soft); }
svg line.ink, svg line.good, svg line.bad { stroke-width: 1.5; } svg line.ink { stroke: var(--ink); }
svg line.good { stroke: var(--good); } svg line.bad { stroke: var(--bad); }
svg circle.ink { fill: var(--ink); } svg circle.good { fill: var(--good); } svg circle.bad { fill: var(--bad); }
svg rect.a { fill: var(--a); opacity: .75; } svg rect.b { fill: var(--b); opacity: .75; }
svg polyline { fill: none; stroke-width: 2; } svg polyline.a { stroke: var(--a); } svg polyline.b { stroke: var(--b); }
svg circle.hollow { fill: none; stroke-width: 2.5; } svg circle.a { stroke: var(--a); } svg circle.b { stroke: var(--b); }
@media print { :root { color-scheme: light; --paper: #fff; --ink: #111; --soft: #555; --line: #ccc; --tile: #fff; --a: #2f6fb3;
  --b: #c4741a; --good: #1e7d4c; --bad: #b3322f; --warn: #fff; } body { max-width: none; padding: 0; font-size: 12px; }
  .note { border: 1px solid #999; } h2 { break-after: avoid; } }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document. `parts` are HTML already, the title is not."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of plain texts; the columns `numbers` are set to the right. A cell that is HTML already is `Marked`."""

    def cell(tag: str, column: int, content: str) -> str:
        kind = ' class="number"' if column in numbers else ""
        return f"<{tag}{kind}>{content if isinstance(content, Marked) else escape(content)}</{tag}>"

    head = "".join(cell("th", column, content) for column, content in enumerate(headings))
    body = "".join(
        "<tr>" + "".join(cell("td", column, content) for column, content in enumerate(row)) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


class Marked(str):
    """Text that is HTML already."""


def marked(text: str, kind: str) -> Marked:
    """Text in a colour of the page's: good, bad or soft."""
    return Marked(f'<span class="{kind}">{escape(text)}</span>')


def tile(title: str, value: str, below: str) -> str:
    """A headline number."""
    return f'<div class="tile"><span>{escape(title)}</span><b>{escape(value)}</b><span>{escape(below)}</span></div>'


def note(text: str) -> str:
    """Something a reader must know first."""
    return f'<p class="note">{escape(text)}</p>'


def paragraph(text: str, kind: str = "soft") -> str:
    """A paragraph."""
    return f'<p class="{kind}">{escape(text)}</p>'
