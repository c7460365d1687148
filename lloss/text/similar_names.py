"""Class names that may be misspelled: near to others, or of one image alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

from lloss.text.clean_names import visible

COMPARED = 100
"""Characters of a name that are compared with others."""

_SHOWN = 3
"""Names that a line lists."""

_RESEMBLES = 0.6
"""Similarity from which a name is suggested."""

_FRACTION = re.compile(r"(?<=\d)\.0+$", re.ASCII)
_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)", re.ASCII)
_JOINTS = re.compile(r"[\s_-]+")


def nearest(name: str, known: Iterable[str], resembles: float = 0) -> str:
    """The known name most similar to an unknown one, in any case of letters; "" for none.

    ``resembles`` is the least similarity, 0 to 1; see :mod:`difflib`.
    """
    return next(iter(nearest_few(name, known, 1, resembles)), "")


def nearest_few(
    name: str, known: Iterable[str], count: int = _SHOWN, resembles: float = 0
) -> list[str]:
    """The known names most similar to an unknown one, as :func:`nearest`; the best is first."""
    short = {other[:COMPARED].casefold(): other for other in known}
    found = get_close_matches(name[:COMPARED].casefold(), short, count, cutoff=resembles)
    return [short[each][:COMPARED] for each in found]


def similar_note(
    counts: Mapping[str, int], what: str = "classes", known: Collection[str] = ()
) -> str:
    """One line on names that differ only in case, spaces or how a number is written; "" for none.

    ``counts`` says how often each name occurs; an earlier line covered those of ``known``.
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_loose(name), []).append(name)
    similar = [names for names in groups.values() if len(names) > 1 and not set(known) >= {*names}]
    if not similar:
        return ""
    shown = "; ".join(
        " and ".join(f"{name!r} ({counts[name]})" for name in names) for names in similar[:_SHOWN]
    )
    rest = f"; and {len(similar) - _SHOWN} more such groups" if len(similar) > _SHOWN else ""
    return (
        f"the {what} {shown}{rest} differ only in case, spaces or how a number is written; "
        "if they mean the same, write one name"
    )


def lone_classes(images: Mapping[str, int], known: Collection[str] = ()) -> str:
    """One line on the classes of a single image that are not ``known``; "" for none."""
    names = [name for name, count in images.items() if count == 1 and name not in known]
    if not names:
        return ""
    shown = ", ".join(_with_suggestion(name, set(images) - {name}) for name in names[:_SHOWN])
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"new classes of one image: {shown}{rest}; check the spelling, or label more of them"


def _with_suggestion(name: str, others: Collection[str]) -> str:
    meant = nearest(name, others, _RESEMBLES)
    return f"{name[:COMPARED]!r}" + (f" ({meant!r}?)" if meant else "")


def _loose(name: str) -> str:
    """Equal for names that differ only in case, spaces or how a whole number is written."""
    key = unicodedata.normalize("NFKC", visible(name)).casefold()
    return _ZEROS.sub("", _FRACTION.sub("", _JOINTS.sub(" ", key).strip()))
