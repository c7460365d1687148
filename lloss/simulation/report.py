"""The report of a simulation: ``report.html``, ``curves.png`` and ``results.csv``.

The page is self-contained, without scripts, and follows a light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from lloss.files import atomic_write, write_text
from lloss.simulation.comparison import Choices, Comparison, MethodResult, ScenarioResult, compare
from lloss.simulation.figure_text import heading
from lloss.simulation.measured import NOTHING, Measured
from lloss.simulation.plan import Plan
from lloss.simulation.report_charts import (
    COLORS,
    REFERENCE,
    REST,
    colors,
    picture,
    reach_of,
    scenario_curves,
    scenario_gains,
    strip,
)
from lloss.simulation.tables import Table, gain_table, lead_table, scenario_tables
from lloss.simulation.verdict import Verdict, verdict
from lloss.statistics.canvas import Canvas
from lloss.statistics.charts import figure
from lloss.statistics.report_page import REPORT, render_page
from lloss.text.counts import counted
from lloss.text.csv_table import csv_text
from lloss.text.markup import text

CURVES, TABLE = "curves.png", "results.csv"


@dataclass(frozen=True)
class _Section:
    """One scenario on the page."""

    id: str
    name: str
    legend: list[tuple[str, str]]
    charts: list[Markup]
    panels: list[Markup]
    tables: list[Table]
    choices: list[tuple[str, Choices, str]]


def write_report(out: Path, comparison: Comparison | None = None) -> Path:
    """Write the report of a simulation's folder into it; return the path of the page.

    ``comparison`` is that of the folder, where it is there already. SimulationError where the
    folder cannot be read. The same rows give the same bytes.
    """
    comparison = comparison or compare(out)
    said = verdict(comparison)
    write_text(out / TABLE, results_csv(comparison))
    with atomic_write(out / CURVES) as aside:
        aside.write_bytes(picture(comparison, f"{said.headline}. {_how(comparison.plan)}"))
    write_text(out / REPORT, page(comparison, said))
    return out / REPORT


def page(comparison: Comparison, said: Verdict) -> str:
    """Return the page."""
    plan, gains, leads = comparison.plan, gain_table(comparison), lead_table(comparison)
    reach = reach_of([table for table in (gains, leads) if table])
    filters: dict[str, Callable[..., str]] = {
        "points": lambda share: f"{100 * share:.0f} point" + "s" * (share > 0.01),
        "strip": lambda cell: Markup(strip(cell, reach)),
    }
    facts = plan.facts()
    return render_page(
        __package__,
        filters,
        said=said,
        plan=plan,
        how=_how(plan) + ".",
        where=[facts[name] for name in ("data", "model", "learner") if name in facts],
        gains=gains,
        leads=leads,
        reach=reach,
        scenarios=[
            _section(comparison, scenario, f"scenario-{number}")
            for number, scenario in enumerate(comparison.scenarios, 1)
        ],
        facts=facts,
    )


def _how(plan: Plan) -> str:
    trials = counted(plan.most_trials, "paired trial")
    fewer = [f"{method} {n}" for method, n in plan.trials.items() if n < plan.most_trials]
    less = f" ({', '.join(fewer)})" if fewer else ""
    if plan.extended:
        less += f" (planned with {plan.extended[-1]})"
    return f"{heading(plan.metric)} over {trials}{less}" + (
        f", {plan.budget}" if plan.budget else ""
    )


def _section(comparison: Comparison, scenario: ScenarioResult, id: str) -> _Section:
    plan, of = comparison.plan, colors(comparison)
    charts = [_figure(heading(scenario.metric), scenario_curves(scenario, of))]
    if plan.reference and len(plan.methods) > 1:
        charts.append(_figure(f"Points over {plan.reference}", scenario_gains(scenario, of)))
    names = [method for method in of if method != plan.reference]
    reference = {plan.reference: REFERENCE} if plan.reference else {}
    panels = [
        _figure(method, scenario_curves(scenario, {method: COLORS[0], **reference}))
        for method in names
    ]
    legend = [(method, color) for method, color in of.items() if color != REST]
    if others := len(of) - len(legend):
        legend.append((f"{others} other methods, without bands", REST))
    return _Section(
        id=id,
        name=scenario.name,
        legend=legend,
        charts=charts,
        panels=panels if len(names) > 1 else [],
        tables=scenario_tables(comparison, scenario),
        choices=list(_deciding(scenario)),
    )


def _figure(title: str, chart: Canvas | None) -> Markup:
    drawing = chart.svg() if chart else '<p class="note">No trial has finished yet.</p>'
    return Markup(figure(text(title), "", drawing))


def _deciding(scenario: ScenarioResult) -> Iterable[tuple[str, Choices, str]]:
    """What the methods decided on that did not decide on one thing always, or gave a reason."""
    for result in scenario.methods:
        if len(result.choices) > 1 or any(choice.reason for choice in result.choices):
            cycles = sum(choice.count for choice in result.choices)
            for choice in result.choices:
                yield result.method, choice, f"{choice.count / cycles:.0%}"


def results_csv(comparison: Comparison) -> str:
    """A row for each scenario, method and cycle; figures that are of the end are in the last."""
    rows = [
        _csv_row(scenario, result, cycle)
        for scenario in comparison.scenarios
        for result in scenario.methods
        for cycle in range(len(result.curve))
    ]
    heads = list(dict.fromkeys(name for row in rows for name in row)) or ["scenario"]
    return csv_text(heads, ([row.get(name, "") for name in heads] for row in rows))


def _csv_row(scenario: ScenarioResult, result: MethodResult, cycle: int) -> dict[str, object]:
    gain = result.gain
    row: dict[str, object] = {
        "scenario": scenario.name, "method": result.method, "cycle": cycle,
        "labeled": result.labels[cycle], "trials": result.finished, "planned": result.planned,
        "metric": scenario.metric, **_columns("mean", result.curve[cycle]),
        **_columns("difference", gain.curve[cycle] if gain else NOTHING),
    }  # fmt: skip
    if cycle + 1 < len(result.curve):
        return row
    later = {"later": result.later, "later_difference": gain.later if gain else NOTHING}
    ranking = {"head_ranking_accuracy": result.head, "entropy_ranking_accuracy": result.entropy}
    picks = {f"picks_{name}": mean for name, mean in result.picks.items()}
    for name, mean in (later | dict(result.figures) | picks | ranking).items():
        row |= _columns(name, mean)
    if gain:
        row["adjusted_p"] = gain.p
    if result.reach:
        row["labels_to_reach_reference"] = str(result.reach.mean).replace(",", "")
    return row | {f"seconds_{stage}": seconds for stage, seconds in result.seconds.items()}


def _columns(name: str, figure: Measured) -> Mapping[str, object]:
    low, high = figure.interval
    name = name.replace(" ", "_")
    values = {name: figure.value, f"{name}_low": low, f"{name}_high": high}
    return {column: "" if value != value else value for column, value in values.items()}
