"""Counts in words."""

from __future__ import annotations


def plural(count: int, one: str, many: str = "") -> str:
    """Return the words for so many: ``many`` where it is not ``one`` with an s."""
    return one if count == 1 else many or f"{one}s"


def counted(count: int, one: str, many: str = "") -> str:
    """Return the count with its words, such as ``1 image`` or ``1,000 images``."""
    return f"{count:,} {plural(count, one, many)}"
