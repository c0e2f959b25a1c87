"""Path globs: `*` and `?` within one name, `**` over folders. A pattern without `/` matches a name at any depth."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    if "/" not in pattern and pattern != "**":
        pattern = f"**/{pattern}"
    out, position = "", 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            out, position = out + "(?:[^/]+/)*", position + 3
        elif pattern.startswith("**", position):
            out, position = out + ".*", position + 2
        elif pattern[position] == "*":
            out, position = out + "[^/]*", position + 1
        elif pattern[position] == "?":
            out, position = out + "[^/]", position + 1
        else:
            out, position = out + re.escape(pattern[position]), position + 1
    return re.compile(out, re.DOTALL)


def matches(path: str, pattern: str) -> bool:
    """Whether a relative POSIX path matches a glob."""
    return _compiled(pattern).fullmatch(path) is not None
