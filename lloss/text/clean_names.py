"""Names of classes and columns as people type them, cleaned to be compared."""

from __future__ import annotations

import unicodedata

UNSEEN = "".join(
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
_EDGE = _SPACES + _CONTROLS + UNSEEN

_NO_CONTROLS = str.maketrans(dict.fromkeys(_CONTROLS, " "))
_NO_UNSEEN = str.maketrans(dict.fromkeys(UNSEEN))


def stripped(text: str) -> str:
    """The text without spaces and invisible characters around it."""
    return text.strip(_EDGE)


def visible(text: str) -> str:
    """The text without invisible characters, wherever they stand."""
    return text if text.isascii() else text.translate(_NO_UNSEEN)


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
