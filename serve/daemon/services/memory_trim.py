"""Return freed memory to the system."""

from __future__ import annotations

import contextlib
import ctypes

import pyarrow as pa

_M_ARENA_MAX = -8  # of glibc's malloc.h
_UNSUPPORTED = (AttributeError, OSError, TypeError)  # musl, macOS, Windows


def limit_arenas() -> None:
    """Have all threads allocate from two arenas, with glibc. Call it before starting threads.

    By default each thread gets an arena of its own, up to 8 a core, and memory that one thread
    freed is of no use to the others.
    """
    with contextlib.suppress(*_UNSUPPORTED):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def trim() -> None:
    """Return what Arrow and the C library keep after a model or a job is freed."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(*_UNSUPPORTED):
        ctypes.CDLL(None).malloc_trim(0)
