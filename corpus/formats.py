"""The formats that are read, by the extensions of files."""

from __future__ import annotations

from pathlib import PurePosixPath

FORMATS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".csv": "csv",
    ".tsv": "csv",
    ".eml": "eml",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""The format that each extension stands for."""


def format_of(name: str) -> str | None:
    """The format that a file's extension stands for, or None for one that is not read."""
    return FORMATS.get(PurePosixPath(name).suffix.casefold())
