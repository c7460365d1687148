"""The tables of a simulation, for HTML, a terminal and Markdown alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lloss.simulation.comparison import (
    COUNTED,
    RATIOS,
    Comparison,
    MethodResult,
    ScenarioResult,
    names_of,
)
from lloss.simulation.figure_text import NONE, about, percent, plain, points, probability, span
from lloss.simulation.measured import Difference, Measured
from lloss.simulation.verdict import verdict
from lloss.statistics.confidence_intervals import usable

ALL = "all"
"""The heading of the mean over scenarios."""


SHOWN_FIGURES = 8
"""Figures of a model, such as those of classes, that a table shows."""


@dataclass(frozen=True)
class Cell:
    """A figure, and what belongs below it in small print."""

    text: str
    note: str = ""
    difference: Difference | None = None  # that the text is of


@dataclass(frozen=True)
class Table:
    """Rows of cells, a method each."""

    title: str
    heads: Sequence[str]  # of the columns after the first, which has the methods
    rows: Mapping[str, Sequence[Cell]]


def gain_table(comparison: Comparison) -> Table | None:
    """Every method less the reference at the last cycle, by scenario; None without a reference.

    The row of the reference has its metric.
    """
    plan = comparison.plan
    if not plan.reference:
        return None
    return _matrix(
        comparison, f"Difference to {plan.reference}", lambda result: result.gain, comparison.gains
    )


def lead_table(comparison: Comparison) -> Table | None:
    """The default method less every other one, by scenario; None without a default."""
    plan = comparison.plan
    if not plan.default or len(plan.methods) < 2:
        return None
    return _matrix(
        comparison,
        f"{plan.default} less each other method",
        lambda result: result.lead,
        comparison.leads,
    )


def _matrix(
    comparison: Comparison,
    title: str,
    of: Callable[[MethodResult], Difference | None],
    over_all: Mapping[str, Difference],
) -> Table:
    rows = {}
    for method in ranked(comparison):
        results = [scenario.of(method) for scenario in comparison.scenarios]
        found = [of(result) for result in results]
        if any(found):
            all_of_them = [_difference(over_all.get(method))] * bool(over_all)
            rows[method] = all_of_them + [_difference(each) for each in found]
        elif method == comparison.plan.reference:
            rows[method] = [Cell("")] * bool(over_all) + [_share(each.final) for each in results]
    heads = [scenario.name for scenario in comparison.scenarios]
    return Table(title, [ALL] * bool(over_all) + heads, rows)


def ranked(comparison: Comparison) -> list[str]:
    """The methods by their gain in the mean of scenarios, or their final metric without one."""
    plan = comparison.plan
    gains = {method: gain.final.value for method, gain in comparison.gains.items()}
    if not gains:
        first = comparison.scenarios[0]
        gains = {
            result.method: result.gain.final.value if result.gain else result.final.value
            for result in first.methods
            if result.gain or not plan.reference
        }
    gains.setdefault(plan.reference, 0.0)
    worst = min(gains.values(), default=0.0) - 1
    return sorted(plan.methods, key=lambda method: -gains.get(method, worst))


def _difference(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell(NONE)
    return Cell(
        points(difference.final.value), span(difference.final.interval, signed=True), difference
    )


def scenario_tables(comparison: Comparison, scenario: ScenarioResult) -> list[Table]:
    """The tables of a scenario that have columns."""
    tables = result_table(comparison, scenario), detail_table(comparison, scenario)
    return [table for table in tables if table.heads]


def result_table(comparison: Comparison, scenario: ScenarioResult) -> Table:
    """The metric of each method, and its difference to the reference."""
    reference = comparison.plan.reference
    heads = [scenario.metric, "mean after the first cycle"]
    if reference:
        less = f"less {reference}"
        heads += [f"{less}, last cycle", f"{less}, mean", "adjusted p"]
        heads.append(f"labels to {reference}'s final {scenario.metric}")
    rows = {}
    for method in ranked(comparison):
        result = scenario.of(method)
        cells = [_share(result.final), _share(result.later)]
        rows[method] = cells + _gain_cells(result) * bool(reference)
    return Table("Result", heads, rows)


def _gain_cells(result: MethodResult) -> list[Cell]:
    gain, reach = result.gain, result.reach
    if gain is None:
        return [Cell(NONE)] * 4
    later = Cell(points(gain.later.value), span(gain.later.interval, signed=True))
    cells = [_difference(gain), later, Cell(probability(gain.p))]
    if reach is None:
        return [*cells, Cell(NONE)]
    median = f"median {reach.median}, {reach.reaching} of {reach.trials} trials"
    return [*cells, Cell(str(reach.mean), median)]


def _share(figure: Measured) -> Cell:
    return Cell(percent(figure.value), span(figure.interval))


def detail_table(comparison: Comparison, scenario: ScenarioResult) -> Table:
    """Other figures of the last model, of the picks, of the ranking, and the time of a cycle."""
    columns: dict[str, Callable[[MethodResult], Cell]] = {}
    figures = names_of(result.figures for result in scenario.methods)
    for name in figures[:SHOWN_FIGURES]:
        columns[name] = _figure(name)
    for name in names_of(result.picks for result in scenario.methods):
        columns[f"{name} {'of the' if name in RATIOS else 'among'} picks"] = _picked(name)
    columns["ranking accuracy, predicted loss"] = lambda result: _share(result.head)
    columns["ranking accuracy, entropy"] = lambda result: _share(result.entropy)
    columns["seconds a cycle"] = _seconds
    methods = [scenario.of(method) for method in ranked(comparison)]
    table = {head: [make(result) for result in methods] for head, make in columns.items()}
    table = {head: cells for head, cells in table.items() if any(c.text != NONE for c in cells)}
    rows = {result.method: [cells[n] for cells in table.values()]
            for n, result in enumerate(methods)}  # fmt: skip
    more = len(figures) - SHOWN_FIGURES
    left_out = f" ({more} more figures are in results.csv)" if more > 0 else ""
    return Table(f"Models, picks and time{left_out}", list(table), rows)


def _figure(name: str) -> Callable[[MethodResult], Cell]:
    counted = name.startswith("count ")
    return lambda result: _one(result.figures.get(name), counted)


def _picked(name: str) -> Callable[[MethodResult], Cell]:
    return lambda result: _one(result.picks.get(name), name in (*COUNTED, *RATIOS))


def _one(figure: Measured | None, counted: bool) -> Cell:
    if figure is None:
        return Cell(NONE)
    if not counted:
        return _share(figure)
    low, high = figure.interval
    within = f"{max(low, 0):.1f} to {high:.1f}" if usable(figure.interval) else ""
    return Cell(plain(figure.value), within)


def _seconds(result: MethodResult) -> Cell:
    if not result.seconds:
        return Cell(NONE)
    stages = ", ".join(f"{stage} {plain(value)}" for stage, value in result.seconds.items())
    return Cell(plain(sum(result.seconds.values())), stages)


def terminal_table(comparison: Comparison) -> list[str]:
    """The verdict and the differences to the reference, as lines of plain text."""
    said = verdict(comparison)
    lines = [said.headline, *(f"  {line}" for line in said.lines), ""]
    table = gain_table(comparison)
    if table is not None:
        lines += [f"{table.title}, in points of {comparison.plan.metric} at the last cycle; "
                  "± is half the 95% interval, * clear of zero", ""]  # fmt: skip
        heads = ["", *table.heads]
        rows = [[method, *map(_terminal_cell, cells)] for method, cells in table.rows.items()]
        lines += _aligned([heads, *rows])
    return lines + [f"warning: {line}" for line in said.warnings]


def _terminal_cell(cell: Cell) -> str:
    if cell.difference is None:
        return f"{cell.text} "
    return about(cell.difference.final) + ("*" if cell.difference.sign else " ")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if not place else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown_tables(comparison: Comparison) -> str:
    """The verdict and all tables of a simulation in Markdown."""
    said = verdict(comparison)
    parts = [f"**{said.headline}.**", "\n".join(f"- {line}" for line in said.lines)]
    parts += [f"> Warning: {line}" for line in said.warnings]
    matrices = [table for table in (gain_table(comparison), lead_table(comparison)) if table]
    parts += [f"{table.title}, points:\n\n{markdown(table)}" for table in matrices]
    for scenario in comparison.scenarios:
        parts += [f"{scenario.name}:", *map(markdown, scenario_tables(comparison, scenario))]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown(table: Table) -> str:
    """One table in Markdown; clear differences are bold."""
    lines = [
        _markdown_row(["", *table.heads]),
        _markdown_row(["---", *["---:"] * len(table.heads)]),
    ]
    lines += [
        *(_markdown_row([name, *map(_markdown_cell, row)]) for name, row in table.rows.items()),
    ]
    return "\n".join(lines)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.difference and cell.difference.sign else cell.text
    return f"{text} ({cell.note})" if cell.note else text
