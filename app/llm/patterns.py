"""Patterns over questions, in time that grows with the question's length and no faster. The only importer of re2."""

from __future__ import annotations

import unicodedata

import re2

LARGEST = 1000
"""Instructions of a compiled pattern, at most: a question of 8,000 characters that is made for it then takes 0.2 s at most.

Source: measured with `(.?){550}z`, five times as large: 10 to 800 ms. A list of 100 words has 750, and takes 0.1 ms.
"""


class Pattern:
    """An RE2 pattern that is searched in a text, whatever its case and however its accents are encoded.

    As RE2 has it, \\b and \\w know the letters a to z alone; \\pL is any letter.
    """

    def __init__(self, pattern: str) -> None:
        """Raises: ValueError where it is not RE2, or is too large; the message says what to do."""
        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        options.never_capture = True
        try:
            self._compiled = re2.compile(unicodedata.normalize("NFC", pattern), options)
        except (re2.error, UnicodeEncodeError) as error:
            said = error.args[0]
            why = said.decode("utf-8", "replace") if isinstance(said, bytes) else "a lone surrogate is no character"
            raise ValueError(
                f"{pattern!r} is not an RE2 pattern ({why}); RE2 has no look-around and no back-references"
            ) from error
        if self._compiled.programsize > LARGEST:
            raise ValueError(f"{pattern!r} is too large a pattern; repeat less in it")

    def is_in(self, text: str) -> bool:
        """Whether it is found anywhere in a text. Other threads run meanwhile."""
        return self._compiled.search(unicodedata.normalize("NFC", text).encode("utf-8", "replace")) is not None
