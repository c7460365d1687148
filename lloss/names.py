"""Names of classes and columns as people type them: cleaned, and searched for similar ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping

_UNSEEN = "".join(
    chr(code)
    for first, last in (
        (0xAD, 0xAD), (0x180E, 0x180E), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2064),
        (0x2066, 0x2069), (0xFEFF, 0xFEFF),
    )
    for code in range(first, last + 1)
)  # fmt: skip
"""Characters without a shape: soft hyphen, zero-width space and joiners, directions, BOM."""

_CONTROLS = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)))
_SPACES = "".join(char for char in map(chr, range(0x3001)) if char.isspace())
_EDGE = _SPACES + _CONTROLS + _UNSEEN

_NO_CONTROLS = str.maketrans(dict.fromkeys(_CONTROLS, " "))
_NO_UNSEEN = str.maketrans(dict.fromkeys(_UNSEEN))

_NUMBER = re.compile(r"([+-]?)0*(\d*)(?:\.(\d*?)0*)?", re.ASCII)
_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)", re.ASCII)
_JOINTS = re.compile(r"[\s_-]+")

_PAIRS = 3
"""Groups of similar names that a note names; a data set of letters has 26."""


def stripped(text: str) -> str:
    """The text without spaces and invisible characters around it."""
    return text.strip(_EDGE)


def clean_name(text: str) -> str:
    """A class name as it is compared: in NFC, stripped, on one line; "" if nothing is visible."""
    if text.isascii() and text.isprintable():
        return text.strip()
    name = stripped(unicodedata.normalize("NFC", text))
    controlled = name.translate(_NO_CONTROLS)
    return name if controlled == name else " ".join(controlled.split())


def is_text(name: str) -> bool:
    """Whether a name can be written to a file: JSON's escapes can make half a character."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def similar_note(
    counts: Mapping[str, int], what: str = "classes", known: Collection[str] = ()
) -> str:
    """One line on names that differ only in case, spaces or how a number is written.

    Args:
        counts: how often each name occurs.
        what: the names are of.
        known: names of which it was said already that they are similar.

    Returns:
        "" if no two names are that similar.
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_loose(name), []).append(name)
    similar = [names for names in groups.values() if len(names) > 1 and not set(known) >= {*names}]
    if not similar:
        return ""
    shown = "; ".join(
        " and ".join(f"{_shown(name)} ({counts[name]})" for name in names)
        for names in similar[:_PAIRS]
    )
    rest = f"; and {len(similar) - _PAIRS} more such groups" if len(similar) > _PAIRS else ""
    return (
        f"the {what} {shown}{rest} differ only in case, spaces or how a number is written; "
        "if they mean the same, write one name"
    )


def _shown(name: str) -> str:
    """The name in quotes; what looks like a space or like nothing stands as an escape."""
    return "".join(
        f"\\u{ord(char):04x}" if char in _UNSEEN or (char != " " and char.isspace()) else char
        for char in repr(name)
    )


def _loose(name: str) -> str:
    key = unicodedata.normalize("NFKC", name).translate(_NO_UNSEEN).casefold()
    number = _NUMBER.fullmatch(key)
    if number and any(char.isdecimal() for char in key):
        sign, whole, part = number.groups()
        return f"{'-' if sign == '-' else ''}{whole or '0'}" + (f".{part}" if part else "")
    return _ZEROS.sub("", _JOINTS.sub(" ", key).strip())
