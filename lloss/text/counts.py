"""Counts in words."""

from __future__ import annotations

NEAR = "are near-duplicates"

_OF_ONE = {
    NEAR: "is a near-duplicate",
    "are": "is",
    "have": "has",
    "match": "matches",
    "were": "was",
}


def counted(count: int, one: str, many: str = "") -> str:
    """Return ``1 image``, ``1,000 images``, ``no images``; ``many`` if it is not ``one`` with s."""
    number = f"{count:,}" if count else "no"
    return f"{number} {one if count == 1 else many or f'{one}s'}"


def part(count: int, total: int, nouns: str, verb: str) -> str:
    """Return ``1 of 4 rows has`` or ``2 of 4 rows have``; ``verb`` is the plural's."""
    return f"{count:,} of {total:,} {nouns} {_OF_ONE.get(verb, f'{verb}s') if count == 1 else verb}"
