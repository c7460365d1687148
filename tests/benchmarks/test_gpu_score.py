"""The report of the GPU benchmark: its ratios and verdicts, from figures made up here."""

from __future__ import annotations

from types import ModuleType


def rows(bench: ModuleType, **rates: dict[str, list[float]]) -> dict:
    return {name: bench.Row(name, given) for name, given in rates.items()}


def test_ratios_are_to_the_fastest_of_the_reference(bench: ModuleType) -> None:
    made = rows(
        bench,
        torch_slow={"64": [90, 100, 900]},
        torch_fast={"64": [200, 200, 1]},
        lloss={"64": [500, 300, 100]},
    )
    lines = bench.table(made, ["64", "32"], "torch", "contender")
    assert lines[2] == "| torch_slow | 100 (0.50×) | not measured |  |"
    assert lines[4] == "| lloss | 300 (1.50×) | not measured |  |"


def test_verdicts(bench: ModuleType) -> None:
    engine = rows(bench, **{"torch eager": {"64": [100.0]}, "lloss executor": {"64": [99.0]}})
    engine |= rows(bench, **{"session.run, fp32": {"64": [100.0]}, "session.run, fp16": {}})
    whole = rows(
        bench,
        **{
            "torch loop": {".npy": [10.0]},
            "lloss Scorer.stream, fp32": {".npy": [91.0]},
            "lloss Scorer.stream, fp16": {".npy": [15.0]},
        },
    )
    lines = bench.verdicts(engine, whole, 64)
    assert lines[0].endswith("0.99× (target 1.0×) **FAIL**")
    assert lines[1].endswith("9.10× (target 2.0×) **PASS**")
    assert lines[2].endswith("not measured (target 2.0×)")
    assert lines[3].endswith("0.91× (target 0.9×) **PASS**")
    assert lines[4].endswith("not measured (target 0.9×)")


def test_contenders_take_turns(bench: ModuleType) -> None:
    order: list[str] = []

    def work(name: str) -> int:
        order.append(name)
        return 5

    plan = bench.Plan("cpu", "", 0, (), 2, 0.0, 0, False, False, deadline=float("inf"))
    measured: dict = {}
    contenders = {name: lambda name=name: work(name) for name in "ab"}
    bench.take_turns(contenders, plan, measured, "64")
    assert "".join(order) == "ab" * 3, "the first turn warms up"
    assert len(measured["a"].rates["64"]) == 2 and measured["a"].rate("64") > 0
