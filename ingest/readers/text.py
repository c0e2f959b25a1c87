"""Plain text, and the one place that finds out a text's encoding. The only importer of charset-normalizer."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from corpus.errors import DocumentError
from ingest.readers.extract import Extract, clean, sections_of, title_from_name

# UTF-32 before UTF-16: its mark begins with the other's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# An open guess over all encodings turns short texts into nonsense, so only those that offices use take part.
_CANDIDATES = [
    *("cp932", "euc_jp", "gb18030", "big5", "euc_kr"),
    *("cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874", "cp1250", "cp1254", "cp1252"),
]

# The letters, marks and signs of Windows-1252, without the Icelandic ones.
_WESTERN = re.compile(
    "[\x00-\x7f\xa0-\xef\xf1-\xfc\xff\u20ac\u2013\u2014\u2018-\u201a\u201c-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a"
    "\u2122\u02dc\u0152\u0153\u0160\u0161\u0178\u017d\u017e]*"
)
# What Central European, Turkish, Cyrillic or Asian bytes look like when they are taken for Western ones.
_NOT_WESTERN = re.compile(r"[^\W\d_][¹³¿¡¾¼½ªº»«£¥¢¶±][^\W\d_]|[\x80-\xff]{3}")


def decode(name: str, data: bytes, declared: str | None = None) -> str:
    """Bytes as text: by byte order mark, as declared, as UTF-8, else by what the bytes look like.

    Raises: DocumentError where the bytes are no text at all.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decode_or_fail(name, data[len(mark) :], encoding)
    for candidate in (_known(declared), "utf-8"):
        if candidate is not None and b"\x00" not in data:
            try:
                return data.decode(candidate)
            except UnicodeDecodeError:
                continue
    if b"\x00" in data:
        return _decode_or_fail(name, data, _utf16_without_mark(name, data))
    return _decode_or_fail(name, data, _guess(data))


def read_text(name: str, data: bytes) -> Extract:
    """A plain text is one section; its title is the file's name."""
    text = clean(decode(name, data))
    return Extract(title=title_from_name(name), text=text, sections=sections_of((), len(text)))


def _known(declared: str | None) -> str | None:
    try:
        encoding = codecs.lookup((declared or "").strip()).name if declared else None
    except (LookupError, ValueError):
        return None
    # Browsers, and so everybody, write ISO-8859-1 and mean Windows-1252; codecs such as base64 are no charset.
    if encoding in ("iso8859-1", "ascii"):
        return None
    return encoding if encoding is None or _is_charset(encoding) else None


def _is_charset(encoding: str) -> bool:
    try:
        return isinstance(b"a".decode(encoding), str)
    except (LookupError, ValueError):
        return False


def _utf16_without_mark(name: str, data: bytes) -> str:
    """UTF-16 has its zero bytes nearly all on one side."""
    sample = data[:4096]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if len(data) % 2 == 0 and max(even, odd) > 0.3 * len(sample) / 2 and min(even, odd) <= 0.05 * max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    raise _binary(name)


def _guess(data: bytes) -> str:
    western = data.decode("cp1252", "replace")
    if _WESTERN.fullmatch(western) and not _NOT_WESTERN.search(western):
        return "cp1252"
    best = from_bytes(data[:200_000], cp_isolation=_CANDIDATES, explain=False).best()
    return best.encoding if best is not None else "cp1252"


def _decode_or_fail(name: str, data: bytes, encoding: str) -> str:
    """A few undecodable bytes are replaced; where they are many, the file is not text."""
    text = data.decode(encoding, "replace")
    odd = text.count("\ufffd") + sum(1 for character in text if character < " " and character not in "\t\n\r\x0b\x0c")
    if odd > 0.02 * len(text) + 1:
        raise _binary(name)
    return text


def _binary(name: str) -> DocumentError:
    return DocumentError(
        name, "it holds binary data, not text", "give the file the extension of its real format, or exclude it"
    )
