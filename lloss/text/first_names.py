"""The first of many names, for a message."""

from __future__ import annotations

from collections.abc import Sequence


def first_names(names: Sequence[str], most: int = 8) -> str:
    """List at most ``most`` names; an ellipsis stands for the rest."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
