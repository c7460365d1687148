"""Class names that may be misspelled: near to others, or of one image alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

COMPARED = 100
"""Characters of a name that are compared with others."""

_SHOWN = 3
"""Names that a line tells."""

_RESEMBLES = 0.6
"""Similarity from which a name is told as what may be meant."""


def nearest(name: str, known: Iterable[str], resembles: float = 0) -> str:
    """The known name that resembles a name most, whatever the case of its letters; "" for none.

    Args:
        name: that is not known.
        known: names.
        resembles: similarity that it has at least, 0 to 1; see :mod:`difflib`.
    """
    short = {other[:COMPARED].casefold(): other for other in known}
    found = get_close_matches(name[:COMPARED].casefold(), short, 1, cutoff=resembles)
    return short[found[0]][:COMPARED] if found else ""


def lone_classes(images: Mapping[str, int], known: Collection[str] = ()) -> str:
    """A line that names the new classes of one image; "" where there is no such class.

    Args:
        images: of each class.
        known: classes that are not new.
    """
    names = [name for name, count in images.items() if count == 1 and name not in known]
    if not names:
        return ""
    shown = ", ".join(_told(name, set(images) - {name}) for name in names[:_SHOWN])
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = "the new class" if len(names) == 1 else f"{len(names)} new classes:"
    have = "has" if len(names) == 1 else "have"
    return f"{what} {shown}{rest} {have} one image; check the spelling, or label more of it"


def _told(name: str, others: Collection[str]) -> str:
    meant = nearest(name, others, _RESEMBLES)
    return f"{name[:COMPARED]!r}" + (f" ({meant!r}?)" if meant else "")
