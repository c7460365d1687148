from __future__ import annotations

from pathlib import Path

from lloss.simulation.comparison import Comparison, compare
from lloss.simulation.report_charts import (
    COLORS,
    REFERENCE,
    REST,
    colors,
    reach_of,
    scenario_curves,
    scenario_gains,
)
from lloss.simulation.tables import gain_table

from .simulated_rows import rows, write


def compared(out: Path, methods: dict[str, float]) -> Comparison:
    return compare(write(out, rows({"s": methods})))


def test_the_default_and_the_best_have_colours_of_their_own(tmp_path: Path) -> None:
    methods = {"random": 0.0, "auto": -0.05} | {f"m{n}": n / 100 for n in range(9)}
    found = colors(compared(tmp_path, methods))
    assert found["random"] == REFERENCE and found["auto"] == COLORS[0]
    assert [found[f"m{n}"] for n in (8, 7, 6, 5, 4)] == list(COLORS[1:])
    assert {found[f"m{n}"] for n in range(4)} == {REST}


def test_pale_curves_have_no_bands_and_are_below_the_others(tmp_path: Path) -> None:
    scenario = compared(tmp_path, {"random": 0.0, "auto": 0.1}).scenarios[0]
    of = {"random": REST, "auto": COLORS[0]}
    for canvas in (scenario_curves(scenario, of), scenario_gains(scenario, of | {"random": REST})):
        assert canvas is not None
        kinds = [mark.kind for mark in canvas.marks]
        assert "band c0" in kinds and "band rest" not in kinds
    canvas = scenario_curves(scenario, of)
    assert canvas is not None
    assert [mark.kind for mark in canvas.marks if mark.kind.startswith("curve")] == [
        "curve rest", "curve c0"
    ]  # fmt: skip


def test_one_failing_method_does_not_press_the_others_together(tmp_path: Path) -> None:
    methods = {"random": 0.0, "failed": -0.35} | {f"m{n}": 0.02 for n in range(8)}
    table = gain_table(compared(tmp_path, methods))
    assert table is not None
    assert 0.02 <= reach_of([table]) < 0.1
    assert reach_of([]) == 0.01
