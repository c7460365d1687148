"""The axes of charts: ranges, round ticks and their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEFT, RIGHT, TOP, BASE = 44, 328, 20, 170
"""The edges of the plane of every chart, in the units of its drawing."""

WIDTH, HEIGHT = 340, 220
"""The size of every chart."""


@dataclass(frozen=True)
class Plane:
    """The ranges of data that fill the plane of a chart."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, x: float) -> float:
        """Where a value of x is."""
        return round(float(np.interp(x, self.x, (LEFT, RIGHT))), 1)

    def up(self, y: float) -> float:
        """Where a value of y is."""
        return round(float(np.interp(y, self.y, (BASE, TOP))), 1)


def ticks(low: float, high: float, least: float = 0) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most seven, at least ``least`` apart."""
    rough = max((high - low) / 6, least)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough * 0.999)
    numbers = range(math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6) + 1)
    return [float(f"{number * step:.12g}") for number in numbers]


def ticks_at(xs: Sequence[float], span: tuple[float, float]) -> list[float]:
    """The values themselves where they are few and apart, otherwise round numbers among them."""
    own = sorted(set(xs))
    if len(own) <= 6 and min(np.diff(own), default=1) >= (own[-1] - own[0]) / 8:
        return own
    return [x for x in ticks(*span, least=1) if own[0] <= x <= own[-1]]


def named(places: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks and their labels, all in the same unit."""
    largest = max(map(abs, places), default=0)
    size, unit = (
        (1e6, "M") if 1e6 <= largest < 1e9 else (1e3, "k") if 1e4 <= largest < 1e6 else (1, "")
    )
    return [(x, f"{x / size:,g}{unit if x else ''}".replace("-", "−")) for x in places]


def around(low: float, high: float, least: float) -> tuple[float, float]:
    """A range with some air on both sides, and ``least`` wide."""
    air = max((high - low) * 0.08, (least - (high - low)) / 2)
    return low - air, high + air
