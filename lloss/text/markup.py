"""What is shown in HTML: text from anywhere, shares, predicted losses."""

from __future__ import annotations

import html

_JOINERS = "\u200c\u200d"  # unprintable to Python, but part of many scripts' words


def text(value: str) -> str:
    """Any string as visible text or a quoted attribute; what cannot be seen becomes ``\\n``."""
    visible = (
        c if c.isprintable() or c in _JOINERS else c.encode("unicode_escape").decode()
        for c in value
    )
    return html.escape("".join(visible))


def loss(value: float) -> str:
    """A predicted loss at a glance: about three digits."""
    size = abs(value)
    digits = "#.3g" if 0.1 <= size < 999.5 else ",.0f" if 999.5 <= size < 1e6 else ".2g"
    return f"{value:{digits}}".rstrip(".").replace("-", "−")
