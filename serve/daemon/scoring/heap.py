"""Memory that was freed, and that the C library keeps all the same."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give freed memory back to the system, where the C library is one that can.

    A model is loaded and freed in small pieces between those that others hold: glibc keeps what
    lies free there, of each thread's heap anew, and after some exchanges that is a model or two.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    trim(0)
