"""What the C library keeps of freed memory goes back to the system."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from corpus.heap import give_back

PIECES, PIECE = 40_000, 2048


def resident_bytes() -> int:
    """What this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for it")
def test_freed_memory_goes_back_although_something_behind_it_is_held() -> None:
    """82 MB in small pieces, of which the last is kept: at least half of them is given back."""
    pieces = [bytes([number % 256]) * PIECE for number in range(PIECES)]
    held = pieces[-1]
    full = resident_bytes()
    del pieces
    give_back()
    assert full - resident_bytes() > PIECES * PIECE / 2
    assert held == bytes([(PIECES - 1) % 256]) * PIECE
