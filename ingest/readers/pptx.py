"""Presentations: every slide is a section. The only importer of python-pptx."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pptx
from pptx.enum.shapes import PP_PLACEHOLDER
from pptx.exc import PythonPptxError

from ingest.readers.extract import Block, Extract, as_title, assemble, clean, one_line, title_from_name
from ingest.readers.ooxml import DAMAGED, check_package, damaged

LIBRARY_ERRORS: tuple[type[Exception], ...] = (PythonPptxError,)

_FURNITURE = (PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.HEADER, PP_PLACEHOLDER.SLIDE_NUMBER)
_MAX_GROUP_DEPTH = 20


def read_pptx(name: str, data: bytes) -> Extract:
    """Titles, bullets, tables, charts and speaker notes of the slides that are shown."""
    check_package(name, data)
    try:
        return _extract(name, data)
    except (*LIBRARY_ERRORS, *DAMAGED) as error:
        raise damaged(name, error) from error


def _extract(name: str, data: bytes) -> Extract:
    presentation = pptx.Presentation(BytesIO(data))
    blocks: list[Block] = []
    hidden: list[str] = []
    first_title: str | None = None
    for number, slide in enumerate(presentation.slides, start=1):
        if slide.element.get("show") in ("0", "false"):
            hidden.append(str(number))
            continue
        title_shape = slide.shapes.title
        slide_title = one_line(title_shape.text_frame.text) if title_shape is not None else ""
        first_title = first_title or slide_title
        blocks.append(Block(slide_title, level=1, page=number))
        title_id = title_shape.shape_id if title_shape is not None else None
        for shape in _shapes(slide.shapes):
            if shape.shape_id != title_id:
                blocks.extend(Block(text, page=number) for text in _shape_texts(shape))
        if slide.has_notes_slide:
            notes = slide.notes_slide.notes_text_frame
            written = clean(notes.text).strip() if notes is not None else ""
            if written:
                blocks.append(Block(f"Notes: {written}", page=number))
    properties = presentation.core_properties
    text, sections = assemble(blocks)
    moment = properties.modified or properties.created
    metadata = {
        "author": one_line(properties.author or ""),
        "date": moment.date().isoformat() if moment is not None else "",
        "hidden_slides": ", ".join(hidden),
    }
    return Extract(
        title=as_title(properties.title) or as_title(first_title) or title_from_name(name),
        text=text,
        sections=sections,
        language=one_line(properties.language or "") or None,
        metadata={key: value for key, value in metadata.items() if value},
    )


def _shapes(shapes: Any, depth: int = 0) -> Iterator[Any]:
    """All shapes in their order, those in groups too; dates, footers and slide numbers are not content."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            if depth < _MAX_GROUP_DEPTH:
                yield from _shapes(shape.shapes, depth + 1)
        elif not (shape.is_placeholder and shape.placeholder_format.type in _FURNITURE):
            yield shape


def _shape_texts(shape: Any) -> Iterator[str]:
    if shape.has_text_frame:
        lines = [_paragraph(paragraph) for paragraph in shape.text_frame.paragraphs]
        yield "\n".join(line for line in lines if line.strip())
    elif getattr(shape, "has_table", False) and shape.has_table:
        rows = ([one_line(cell.text) for cell in row.cells] for row in shape.table.rows)
        yield "\n".join(" | ".join(cells) for cells in rows if any(cells))
    elif getattr(shape, "has_chart", False) and shape.has_chart:
        yield _chart(shape.chart)


def _paragraph(paragraph: Any) -> str:
    """A paragraph on one line; below the first level it is indented as a list."""
    text = one_line(paragraph.text)
    return "  " * (paragraph.level - 1) + f"- {text}" if paragraph.level and text else text


def _chart(chart: Any) -> str:
    """The chart's title, then every series with its categories: `Sales: 2023 = 4, 2024 = 5`."""
    lines: list[str] = []
    if chart.has_title and chart.chart_title.has_text_frame:
        lines.append(one_line(chart.chart_title.text_frame.text))
    for plot in chart.plots:
        categories = [one_line(str(category)) for category in plot.categories]
        for series in plot.series:
            values = [f"{value:g}" if value is not None else "" for value in series.values]
            pairs = (
                f"{categories[number]} = {value}" if number < len(categories) else value
                for number, value in enumerate(values)
                if value
            )
            lines.append(f"{one_line(series.name or '')}: {', '.join(pairs)}")
    return "\n".join(line for line in lines if line)
