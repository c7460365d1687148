"""A drawing as marks in units, which one function writes as SVG and another as PNG.

A mark's ``kind`` is a few words: what it is (``grid``, ``band``, ``curve``, ``dots`` …) and its
colour (``c0`` …). In SVG they are CSS classes, so that the page decides; :mod:`.canvas_png` has the
same for a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from lloss.text.markup import text as shown

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """A line, a filled area, dots, or a text."""

    shape: Literal["line", "area", "dots", "text"]
    points: Sequence[Point]
    kind: str
    text: str = ""  # of a text; of others, what a pointer over it shows
    anchor: str = "start"  # of a text: start, middle or end


@dataclass
class Canvas:
    """Marks, later ones over earlier ones; ``says`` describes them to a screen reader."""

    width: float
    height: float
    says: str = ""
    marks: list[Mark] = field(default_factory=list)

    def line(self, points: Sequence[Point], kind: str, text: str = "") -> None:
        """Draw a line through points."""
        self.marks.append(Mark("line", points, kind, text))

    def area(self, points: Sequence[Point], kind: str) -> None:
        """Fill a polygon."""
        self.marks.append(Mark("area", points, kind))

    def dots(self, points: Sequence[Point], kind: str, text: str = "") -> None:
        """Draw a dot at each point."""
        self.marks.append(Mark("dots", points, kind, text))

    def text(self, at: Point, text: str, kind: str = "", anchor: str = "start") -> None:
        """Write a text beginning, centred or ending at a point of its base line."""
        self.marks.append(Mark("text", [at], kind, text, anchor))

    def svg(self) -> str:
        """Return the drawing as an SVG element without colours of its own."""
        marks = "".join(map(_svg, self.marks))
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{shown(self.says)}">{marks}</svg>'
        )


def _svg(mark: Mark) -> str:
    kind = f' class="{mark.kind}"' if mark.kind else ""
    at = [f"{x:.1f} {y:.1f}" for x, y in mark.points]
    if mark.shape == "text":
        x, y = mark.points[0]
        anchor = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
        return f'<text x="{x:.1f}" y="{y:.1f}"{kind}{anchor}>{shown(mark.text)}</text>'
    path = {
        "line": f"M{'L'.join(at)}",
        "area": f"M{'L'.join(at)}Z",
        "dots": f"M{'h0M'.join(at)}h0",
    }[mark.shape]
    title = f"<title>{shown(mark.text)}</title>" if mark.text else ""
    return f'<path{kind} d="{path}">{title}</path>' if title else f'<path{kind} d="{path}"/>'
