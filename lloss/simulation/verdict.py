"""What a simulation shows, in plain words, and what it does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lloss.simulation.comparison import Comparison, MethodResult, ScenarioResult
from lloss.simulation.figure_text import in_full, points
from lloss.simulation.measured import LEVEL, Difference
from lloss.statistics.paired_trials import EXACT, least_p
from lloss.text.counts import counted
from lloss.text.first_names import first_names


@dataclass(frozen=True)
class Line:
    """What is shown of a scenario, or of all."""

    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.about}: {self.text}"


@dataclass(frozen=True)
class Verdict:
    """One line, the lines that follow it, and what to beware of."""

    headline: str
    lines: Sequence[Line] = ()
    warnings: Sequence[str] = ()


def verdict(comparison: Comparison) -> Verdict:
    """Say who is ahead of whom, and where that is not shown.

    No winner is named while planned trials are missing, nor where a difference is not clear.
    """
    plan, warnings = comparison.plan, [*comparison.problems, *_extended(comparison)]
    if not comparison.complete:
        missing = f"{comparison.finished:,} of {comparison.planned:,} planned trials are finished"
        warnings.insert(0, (
            f"only {missing}: the figures are of these alone and will change; whether a method is "
            "better is not said before all are finished, since their number was fixed beforehand"
        ))  # fmt: skip
        return Verdict(f"No verdict yet: {missing}", _unfinished(comparison), warnings)
    if len(plan.methods) < 2:
        return Verdict(f"{plan.methods[0]} alone: nothing to compare it with", [], warnings)
    other = plan.reference or plan.default
    if not other:
        warnings.append("no method is the reference (random): curves are shown, differences not")
        return Verdict(f"{len(plan.methods)} methods without a reference", [], warnings)
    if too_few := _too_few(comparison):
        return Verdict(f"No verdict: {too_few}", [], warnings)
    return Verdict(_headline(comparison), list(_lines(comparison)), warnings)


def _extended(comparison: Comparison) -> Iterable[str]:
    """Beware of a number of trials that was raised after results were there."""
    added = comparison.added
    if added is None:
        return
    planned = ", then ".join(f"{count:,}" for count in comparison.plan.extended)
    more = f"{added.plan.most_trials:,} more {'was' if added.plan.most_trials == 1 else 'were'}"
    gains = added.gains or {
        result.method: result.gain for result in added.scenarios[0].methods if result.gain
    }
    subject = added.plan.default if added.plan.default in gains else best_gain(added)
    shows = ""
    if comparison.complete and subject in gains:
        shows = f": {subject} {in_full(gains[subject])} over {added.plan.reference}"
    yield (
        f"planned with {planned} trials; {more} added when results were there. If the results "
        f"were the reason, trust the added trials alone{shows}"
    )


def _too_few(comparison: Comparison) -> str:
    """Why no difference can be clear with so many trials; "" if one can."""
    methods, trials = len(comparison.plan.methods) - 1, comparison.plan.most_trials
    if comparison.plan.cycles < 2:
        return "with one cycle no method picks anything; give 2 cycles or more"
    if methods * least_p(trials) < LEVEL:
        return ""
    enough = next((n for n in range(2, EXACT + 1) if methods * least_p(n) < LEVEL), EXACT)
    many = counted(trials, "trial is", "trials are")
    return (
        f"{many} too few to show any difference between {methods + 1} methods; at least "
        f"{enough} are needed"
    )


def _unfinished(comparison: Comparison) -> list[Line]:
    lines = []
    for scenario in comparison.scenarios:
        short = [
            f"{result.method} {result.finished} of {result.planned}"
            for result in scenario.methods
            if result.finished < result.planned
        ]
        if short:
            lines.append(Line(scenario.name, f"finished {first_names(short)}"))
    return lines


def _headline(comparison: Comparison) -> str:
    plan = comparison.plan
    subject = plan.default if plan.default != plan.reference else ""
    subject = subject or best_gain(comparison)
    pairs = [(each, _pair(comparison, each.of(subject))) for each in comparison.scenarios]
    reference = plan.reference or "the other methods"
    if not plan.reference:
        return f"{subject} against {len(plan.methods) - 1} other methods"
    if len(pairs) == 1:
        (scenario, difference) = pairs[0]
        return _one(subject, reference, scenario.name, difference)
    counts = {
        sign: sum(difference is not None and difference.sign == sign for _, difference in pairs)
        for sign in (1, 0, -1)
    }
    return _many(subject, reference, counts, len(pairs))


def _pair(comparison: Comparison, result: MethodResult) -> Difference | None:
    return result.gain if comparison.plan.reference else None


def _one(subject: str, reference: str, scenario: str, difference: Difference | None) -> str:
    if difference is None or not difference.sign:
        return f"No difference between {subject} and {reference} is shown on {scenario}"
    beats = "beats" if difference.sign > 0 else "is worse than"
    by = points(abs(difference.final.value))[1:]
    return f"{subject} {beats} {reference} on {scenario} by {by} points"


def _many(subject: str, reference: str, counts: dict[int, int], scenarios: int) -> str:
    won, unclear, lost = (counts[sign] for sign in (1, 0, -1))
    every = f"all {scenarios} scenarios"
    if won == scenarios:
        return f"{subject} beats {reference} in {every}"
    if lost == scenarios:
        return f"{subject} is worse than {reference} in {every}"
    if unclear == scenarios:
        return f"No difference between {subject} and {reference} is shown in any scenario"
    parts = [f"beats {reference} in {won} of {scenarios} scenarios"] if won else []
    if lost:
        than = "" if won else f" than {reference}"
        parts.append(f"is worse{than} in {lost}" + ("" if won else f" of {scenarios} scenarios"))
    shown = f"; in {unclear} no difference is shown" if unclear else ""
    return f"{subject} {' and '.join(parts)}{shown}"


def best_gain(comparison: Comparison) -> str:
    """The method with the largest gain over the reference, in the mean of the scenarios."""
    gains = comparison.gains or {
        result.method: result.gain
        for result in comparison.scenarios[0].methods
        if result.gain is not None
    }
    return max(
        gains, key=lambda method: gains[method].final.value, default=comparison.plan.methods[-1]
    )


def _lines(comparison: Comparison) -> Iterable[Line]:
    plan = comparison.plan
    for scenario in comparison.scenarios:
        yield Line(scenario.name, "; ".join(_of_scenario(comparison, scenario)))
    leads = comparison.leads or {
        result.method: result.lead
        for result in comparison.scenarios[0].methods
        if result.lead is not None
    }
    parts = []
    if plan.default in comparison.gains:
        gain = comparison.gains[plan.default]
        parts.append(f"{plan.default} {in_full(gain)} over {plan.reference}")
    if len(leads) > 1:
        parts.append(_against_each(plan.default, leads))
    if parts:
        over_all = len(comparison.scenarios) > 1
        yield Line("mean over scenarios" if over_all else "all methods", "; ".join(parts))


def _of_scenario(comparison: Comparison, scenario: ScenarioResult) -> Iterable[str]:
    plan = comparison.plan
    if plan.default and plan.reference and plan.default != plan.reference:
        result = scenario.of(plan.default)
        if result.gain is not None:
            shown = "" if result.gain.sign else ", not clear"
            yield f"{plan.default} {in_full(result.gain)} over {plan.reference}{shown}"
        if result.reach is not None and result.gain is not None and result.gain.sign > 0:
            end = result.labels[-1]
            yield (
                f"it reaches {plan.reference}'s final {scenario.metric} with {result.reach.mean} "
                f"of {end:,.0f} labels"
            )
    level = [method for method in scenario.level if method != plan.reference]
    if plan.reference in scenario.level or scenario.highest == plan.reference:
        yield f"no method is shown to be better than {plan.reference}"
    elif level:
        yield f"highest: {scenario.highest}, not clearly above {first_names(level)}"
    else:
        yield f"highest: {scenario.highest}, clearly above all others"


def _against_each(default: str, leads: Mapping[str, Difference]) -> str:
    groups = {1: "is ahead of", 0: "is not shown to differ from", -1: "is behind"}
    parts = [
        f"{words} {first_names([m for m, lead in leads.items() if lead.sign == sign], 20)}"
        for sign, words in groups.items()
        if any(lead.sign == sign for lead in leads.values())
    ]
    return f"{default} {'; '.join(parts)}"
