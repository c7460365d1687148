"""Render pages from templates; every value is escaped."""

from __future__ import annotations

import math
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lloss.text.counts import counted
from lloss.text.markup import loss, text


def render(template: str, **values: Any) -> str:
    """Render a page.

    Text from outside also needs the filter ``shown``: it makes invisible characters, and those
    that turn the reading direction, visible.
    """
    return _environment().get_template(template).render(values)


def quoted(id: str) -> str:
    """Encode an id as ASCII for forms and addresses: browsers change line ends in fields."""
    return quote(id, safe="", errors="surrogatepass")


def duration(seconds: float) -> str:
    """Write a time span briefly."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def rate(value: float) -> str:
    """Write images per second briefly."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": lambda value: Markup(text(value)),
        "quoted": quoted,
        "counted": counted,
        "count": lambda value: "–" if value is None else f"{value:,}",
        "loss": lambda value: loss(value) if math.isfinite(value) else "–",
        "share": lambda value: f"{value:.0%}",
        "duration": duration,
    }
    return environment
