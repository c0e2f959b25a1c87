"""Tells the code in a Markdown text that comes piece by piece: fenced blocks and spans between backticks."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"`+|\n|[^`\n]+")
_FENCE = 3


@dataclass(slots=True)
class Code:
    """Where a text stands. A span ends with its line at the latest: a backtick alone must not make code of all that follows."""

    _fence: int = 0
    _span: int = 0
    _run: int = 0
    _begins_line: bool = True
    _opens: bool = False

    def feed(self, text: str) -> None:
        """Read on."""
        for part in _TOKEN.findall(text):
            if part[0] == "`":
                self._run += len(part)
                continue
            self._end_run()
            if part == "\n":
                self._begins_line, self._opens, self._span = True, False, 0
            elif not part.isspace():
                self._begins_line = False

    def is_fenced(self) -> bool:
        """Whether what follows stands in a fenced block, if it is not one more backtick."""
        self._end_run()
        return self._fence > 0

    def is_inside(self) -> bool:
        """Whether what follows is code, if it is not one more backtick."""
        return self.is_fenced() or self._span > 0

    def _end_run(self) -> None:
        length, self._run = self._run, 0
        if not length:
            return
        if self._fence:
            # ```x``` within a line is a span.
            if length >= self._fence and (self._begins_line or self._opens):
                self._fence = 0
        elif self._span:
            self._span = 0 if length == self._span else self._span
        elif self._begins_line and length >= _FENCE:
            self._fence, self._opens = length, True
        else:
            self._span = length
        self._begins_line = False


def without_blocks(text: str) -> str:
    """A text without its fenced blocks."""
    code = Code()
    kept = []
    for line in text.splitlines(keepends=True):
        was_fenced = code.is_fenced()
        code.feed(line)
        kept.append("\n" if was_fenced or code.is_fenced() else line)
    return "".join(kept)
