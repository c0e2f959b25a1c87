"""Gives memory back that the C library keeps after large things were read. Knows glibc; elsewhere it does nothing."""

from __future__ import annotations

import ctypes
import sys


def give_back() -> None:
    """Return what is free in the heap to the system. Takes some milliseconds: for the end of a load, not for a request."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    if trim is not None:
        trim(0)
