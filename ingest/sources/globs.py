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
    """Whether a relative POSIX path matches a glob; an address matches with or without its scheme."""
    compiled = _compiled(pattern)
    if compiled.fullmatch(path) is not None:
        return True
    scheme, separator, rest = path.partition("://")
    return bool(separator and scheme) and compiled.fullmatch(rest) is not None
