"""Memory that was freed, and that allocators keep all the same."""

from __future__ import annotations

import contextlib
import ctypes

import pyarrow as pa

_M_ARENA_MAX = -8  # of glibc's malloc.h
_ARENAS = 2


def share() -> None:
    """Have all threads allocate from few arenas, where the C library knows of such.

    glibc gives each of the first 8 threads a core an arena of its own. The daemon's come and go,
    most of them wait for the interpreter's lock, and what lies free in the arena of one is of no
    use to the others. To be called before there are threads.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # musl, macOS, Windows
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give freed memory back to the system: Arrow's, and the C library's where that can.

    A model is loaded and freed in small pieces between those that others hold: glibc keeps what
    lies free there, of each thread's heap anew, and after some exchanges that is a model or two.
    """
    pa.default_memory_pool().release_unused()
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    trim(0)
