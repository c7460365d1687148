"""Pages of reports: one file each, without scripts, that follow a light or dark scheme."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from lloss.text.markup import text

REPORT = "report.html"
"""A report's template in its package, and what the page is called."""

STYLE = "report.css"


def render_page(package: str, filters: dict[str, Callable[..., str]], **values: Any) -> str:
    """Fill in the template of a package.

    It has the style that all reports share as ``style``, and besides ``filters`` these: ``shown``
    makes any text visible and harmless, ``sentence`` also makes a sentence of a line.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "sentence": lambda line: Markup(text(f"{_capitalized(line)}.")),
        "shown": lambda value: Markup(text(value)),
        **filters,
    }
    template = resources.files(package).joinpath(REPORT).read_text("utf-8")
    style = Markup(resources.files(__package__).joinpath(STYLE).read_text("utf-8"))
    return environment.from_string(template).render(values, style=style)


def _capitalized(line: str) -> str:
    """Begin a sentence, but leave a path that it begins with as it is."""
    first = line.partition(" ")[0]
    return line[:1].upper() + line[1:] if not {*"/.\\_"} & {*first} else line
