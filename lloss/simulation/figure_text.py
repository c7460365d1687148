"""Figures of a simulation as text: shares in percent, differences in points."""

from __future__ import annotations

import math

from lloss.simulation.measured import Difference, Measured
from lloss.statistics.confidence_intervals import Interval, in_points, usable

NONE = "–"


def percent(share: float) -> str:
    """Format a share as ``61.2%``."""
    return f"{100 * share:.1f}%" if math.isfinite(share) else NONE


def points(difference: float) -> str:
    """Format a difference of shares as ``+10.1`` or ``−0.4``; an undefined one as –."""
    if not math.isfinite(difference):
        return NONE
    return in_points(difference)


def span(interval: Interval, signed: bool = False) -> str:
    """Format an interval of shares as ``60.1 to 62.3``; "" without one.

    ``signed`` is of differences: others are within 0 and 100.
    """
    if not usable(interval):
        return ""
    ends = (points(end) if signed else f"{100 * min(max(end, 0), 1):.1f}" for end in interval)
    return " to ".join(ends)


def about(measured: Measured) -> str:
    """Format a difference as ``+10.1 ± 1.9``; without an interval, as the difference alone."""
    value = points(measured.value)
    if value == NONE or not usable(measured.interval):
        return value
    low, high = measured.interval
    return f"{value} ±{100 * (high - low) / 2:.1f}"


def in_full(difference: Difference) -> str:
    """Format a difference as ``+10.1 points (95% interval +8.2 to +12.0)``."""
    interval = span(difference.final.interval, signed=True)
    return f"{points(difference.final.value)} points" + (
        f" (95% interval {interval})" if interval else ""
    )


def probability(p: float) -> str:
    """Format a p as ``0.012``, or ``<0.001``."""
    if not math.isfinite(p):
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def plain(value: float) -> str:
    """Format a count or a time."""
    if not math.isfinite(value):
        return NONE
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def heading(name: str) -> str:
    """Begin a figure's name with a capital, if it is not an abbreviation such as mAP."""
    return name.capitalize() if name.islower() else name
