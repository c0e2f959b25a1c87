"""What Word, PowerPoint and Excel files have in common: a zip of XML parts, checked before any library opens it."""

from __future__ import annotations

import struct
import zipfile
import zlib
from io import BytesIO

from corpus.errors import DocumentError

MAX_UNPACKED_BYTES = 500_000_000
# XML packs well, 30:1 is common and repetitive sheets reach 100:1; small files may pack as they like.
MAX_RATIO = 200
_RATIO_COUNTS_FROM_BYTES = 20_000_000
MAX_PARTS = 20_000

# What the Office libraries let through when a package is damaged: errors of zipfile, of XML (lxml's and the standard
# library's are both SyntaxErrors), and what goes wrong where they take a part or an attribute for granted.
DAMAGED: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    SyntaxError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    AssertionError,
    RecursionError,
    OverflowError,
)


def check_package(name: str, data: bytes) -> None:
    """Refuse a package that is damaged, would unpack to far more than it is, or declares entities.

    Raises: DocumentError.
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as package:
            parts = package.infolist()
            _check_sizes(name, parts, len(data))
            for part in parts:
                if part.flag_bits & 1:
                    raise DocumentError(name, "it is encrypted with a password", "save a copy without the password")
                if part.filename.casefold().endswith((".xml", ".rels")):
                    with package.open(part) as stream:
                        _check_xml(name, part.filename, stream.read(4096))
    except DAMAGED as error:
        raise damaged(name, error) from error


def damaged(name: str, error: Exception) -> DocumentError:
    """The error for a package that cannot be read."""
    # Other errors than those of the container may quote a cell or a word.
    words = " ".join(str(error).split())[:120] if isinstance(error, zipfile.BadZipFile | zlib.error) else ""
    reason = words or type(error).__name__
    return DocumentError(name, f"the file is damaged or cut off ({reason})", "get a new copy of the file")


def _check_sizes(name: str, parts: list[zipfile.ZipInfo], packed: int) -> None:
    # zipfile never unpacks more of a part than the size declared for it, so the declared sizes are a true limit.
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MAX_UNPACKED_BYTES:
        reason = f"it would unpack to {unpacked} bytes, more than {MAX_UNPACKED_BYTES}"
    elif unpacked > _RATIO_COUNTS_FROM_BYTES and unpacked > MAX_RATIO * packed:
        reason = f"it would unpack to {unpacked // packed} times its size, more than {MAX_RATIO} times"
    elif len(parts) > MAX_PARTS:
        reason = f"it has {len(parts)} parts, more than {MAX_PARTS}"
    else:
        return
    raise DocumentError(name, f"{reason}; it may be a zip bomb", "check where it comes from, or split it")


def _check_xml(name: str, part: str, beginning: bytes) -> None:
    """Office files have no document type declaration; one is there only to declare entities."""
    if b"<!DOCTYPE" in beginning.replace(b"\x00", b"").upper():
        raise DocumentError(
            name,
            f"its part {part!r} has a document type declaration, which Office never writes",
            "check where it comes from",
        )
