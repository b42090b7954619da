"""Returns freed memory to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # not glibc
        return None
    return trim


_malloc_trim = _trim()


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc).

    glibc keeps freed blocks for later. After large images that is tens of megabytes for each
    thread, which a small board needs for other programs.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)
