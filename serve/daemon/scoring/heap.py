"""Memory that was freed, and that allocators keep all the same."""

from __future__ import annotations

import ctypes

import pyarrow as pa


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
