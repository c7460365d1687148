"""Numbers as text of annotation files, read strictly."""

from __future__ import annotations

import math

from lloss.annotations.json_fields import FARTHEST
from lloss.annotations.problems import AnnotationError


def parse_number(text: str, where: str, field: str = "") -> float:
    """Read a finite number; messages name the ``field``."""
    text = text.strip()
    named = f"{field} " if field else ""
    try:
        # Python's own takes "1_0" and the digits of all scripts.
        value = float(text if text.isascii() and "_" not in text else "")
    except ValueError:
        raise AnnotationError(where, f"{named}{text!r} is not a number") from None
    if not math.isfinite(value) or abs(value) > FARTHEST:
        raise AnnotationError(where, f"{named}{value:g} is far outside any image")
    return value
