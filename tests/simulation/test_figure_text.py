from __future__ import annotations

import math

import pytest

from lloss.simulation import figure_text
from lloss.simulation.measured import Measured

NAN = math.nan


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (figure_text.percent(0.6123), "61.2%"),
        (figure_text.percent(NAN), "–"),
        (figure_text.points(0.101), "+10.1"),
        (figure_text.points(-0.004), "−0.4"),
        (figure_text.points(-0.0001), "0.0"),
        (figure_text.span((0.6, 0.62)), "60.0 to 62.0"),
        (figure_text.span((-0.01, 0.02), signed=True), "−1.0 to +2.0"),
        (figure_text.span((-0.1, 1.2)), "0.0 to 100.0"),
        (figure_text.span((NAN, NAN)), ""),
        (figure_text.about(Measured(0.1, (0.08, 0.12))), "+10.0 ±2.0"),
        (figure_text.about(Measured(0.1, (NAN, NAN))), "+10.0"),
        (figure_text.probability(0.0004), "<0.001"),
        (figure_text.probability(0.0123), "0.012"),
        (figure_text.probability(0.25), "0.25"),
        (figure_text.plain(1234.5), "1,234"),
        (figure_text.plain(12.34), "12.3"),
        (figure_text.plain(0.0234), "0.02"),
        (figure_text.plain(NAN), "–"),
        (figure_text.heading("macro accuracy"), "Macro accuracy"),
        (figure_text.heading("mAP"), "mAP"),
    ],
)
def test_figures_read_as(made: str, text: str) -> None:
    assert made == text
