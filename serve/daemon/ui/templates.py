"""Templates become pages, whatever names and ids hold."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lloss.text.markup import loss, text

STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
"""Files that pages refer to, and their types."""


@dataclass(frozen=True)
class StaticFile:
    """A file that pages refer to.

    Attributes:
        content: of it.
        media_type: of it.
        version: changes when the content does; part of its address.
    """

    content: bytes
    media_type: str
    version: str


@cache
def static_files() -> dict[str, StaticFile]:
    """All of :data:`STATIC` by name."""
    folder = resources.files(__package__).joinpath("static")
    found = {}
    for name, media_type in STATIC.items():
        content = folder.joinpath(name).read_bytes()
        found[name] = StaticFile(content, media_type, hashlib.sha256(content).hexdigest()[:12])
    return found


def render(template: str, **values: Any) -> str:
    """A page.

    Every value is escaped; ``| shown`` also makes visible what cannot be seen or turns the
    reading direction, and is meant for all text from outside.
    """
    return _environment().get_template(template).render({"guarded": False, **values})


def login_page(error: str, next: str = "/") -> str:
    """The page that asks for the token.

    Args:
        error: why again; "" the first time.
        next: where to go then, in a hidden field.
    """
    return render("login.html", error=error, next=next)


def quoted(id: str) -> str:
    """An id as ASCII for forms and addresses: browsers change line ends in a form's fields."""
    return quote(id, safe="", errors="surrogatepass")


def duration(seconds: float) -> str:
    """A time span at a glance."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def rate(value: float | None) -> str:
    """Images a second at a glance; a dash when it is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


def _shown(value: str) -> Markup:
    return Markup(text(value))


def _loss(value: float) -> str:
    return loss(value) if math.isfinite(value) else "–"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "shown": _shown,
        "quoted": quoted,
        "count": lambda value: f"{value:,}",
        "loss": _loss,
        "share": lambda value: f"{value:.0%}",
        "duration": duration,
        "rate": rate,
    }
    environment.filters |= filters
    environment.globals["static"] = lambda name: f"/static/{name}?v={static_files()[name].version}"
    return environment
