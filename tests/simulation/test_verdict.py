from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lloss.simulation.comparison import compare
from lloss.simulation.figure_text import in_full
from lloss.simulation.verdict import Verdict, verdict

from .simulated_rows import rows, write

Gains = Mapping[str, Mapping[str, float]]


def said(out: Path, gains: Gains, trials: int = 10, cycles: int = 6, **changes: Any) -> Verdict:
    found = rows(gains, trials, cycles)
    return verdict(compare(write(out, found, trials, cycles, **changes)))


def words(found: Verdict) -> str:
    return "\n".join([found.headline, *map(str, found.lines), *found.warnings])


@pytest.mark.parametrize(
    ("gains", "headline"),
    [
        ((0.1,), "auto beats random on s0 by "),
        ((-0.1,), "auto is worse than random on s0 by "),
        ((0.0,), "No difference between auto and random is shown on s0"),
        ((0.1, 0.1), "auto beats random in all 2 scenarios"),
        ((-0.1, -0.1), "auto is worse than random in all 2 scenarios"),
        ((0.0, 0.0), "No difference between auto and random is shown in any scenario"),
        ((0.1, 0.0), "auto beats random in 1 of 2 scenarios; in 1 no difference is shown"),
        ((0.1, -0.1), "auto beats random in 1 of 2 scenarios and is worse in 1"),
        ((0.0, -0.1), "auto is worse than random in 1 of 2 scenarios; in 1 no difference is"),
        ((0.1, 0.0, -0.1),
         "auto beats random in 1 of 3 scenarios and is worse in 1; in 1 no difference is shown"),
    ],
)  # fmt: skip
def test_headline(tmp_path: Path, gains: tuple[float, ...], headline: str) -> None:
    found = said(tmp_path, {f"s{n}": {"random": 0, "auto": g} for n, g in enumerate(gains)})
    assert found.headline.startswith(headline)
    assert not found.warnings


def test_lines_say_how_much_how_sure_and_who_else(tmp_path: Path) -> None:
    gains = {"s": {"random": 0, "auto": 0.1, "entropy": 0.1, "badge": 0.02}}
    (scenario, others) = said(tmp_path, gains).lines
    assert scenario.about == "s"
    assert "points (95% interval +" in scenario.text and "over random" in scenario.text
    assert "it reaches random's final macro accuracy with " in scenario.text
    assert "not clearly above" in scenario.text
    assert others.text == "auto is ahead of random, badge; is not shown to differ from entropy"


def test_names_no_winner_where_the_interval_contains_zero(tmp_path: Path) -> None:
    found = words(said(tmp_path, {"s": {"random": 0, "auto": 0.0, "badge": 0.0}}))
    assert "not clear; no method is shown to be better than random" in found
    assert "beats" not in found and "highest" not in found and "ahead" not in found


def test_names_no_winner_while_trials_are_missing(tmp_path: Path) -> None:
    found = rows({"s": {"random": 0, "auto": 0.1}}, trials=9)
    say = verdict(compare(write(tmp_path, found, trials=10)))
    assert say.headline == "No verdict yet: 18 of 20 planned trials are finished"
    assert str(say.lines[0]) == "s: finished random 9 of 10, auto 9 of 10"
    assert "only 18 of 20 planned trials are finished: the figures" in say.warnings[0]
    assert "beats" not in words(say) and "highest" not in words(say)


def test_added_trials_are_named_and_shown_alone(tmp_path: Path) -> None:
    gains = {"s": {"random": 0, "auto": 0.1}}
    (warning,) = said(tmp_path / "more", gains, trials=20, extended=[6, 12]).warnings
    assert warning.startswith("planned with 6, then 12 trials; 8 more were added when results were")
    found = [replace(row, trial=row.trial - 12) for row in rows(gains, 20) if row.trial >= 12]
    alone = compare(write(tmp_path / "alone", found, 8)).scenarios[0].of("auto").gain
    assert alone is not None
    assert warning.endswith(f"added trials alone: auto {in_full(alone)} over random")
    (without,) = said(tmp_path / "no", {"s": {"a": 0, "b": 0.1}}, extended=[6]).warnings[:1]
    assert without.endswith("trust the added trials alone")
    unfinished = verdict(
        compare(write(tmp_path / "less", rows(gains, 15), 20, extended=[12]))
    ).warnings
    assert unfinished[-1].endswith("trust the added trials alone")


def test_too_few_trials_can_show_nothing(tmp_path: Path) -> None:
    gains = {"s": {"random": 0, "auto": 0.2}}
    assert said(tmp_path / "5", gains, trials=5).headline == (
        "No verdict: 5 trials are too few to show any difference between 2 methods; at least 6 are "
        "needed"
    )
    assert said(tmp_path / "6", gains, trials=6).headline.startswith("auto beats random")
    assert "1 trial is too few" in said(tmp_path / "1", gains, trials=1).headline


def test_a_single_cycle_picks_nothing(tmp_path: Path) -> None:
    found = said(tmp_path, {"s": {"random": 0, "auto": 0.2}}, cycles=1)
    assert found.headline == (
        "No verdict: with one cycle no method picks anything; give 2 cycles or more"
    )


def test_one_method_has_nothing_to_compare_it_with(tmp_path: Path) -> None:
    assert "nothing to compare it with" in said(tmp_path, {"s": {"random": 0}}).headline


def test_without_random_the_default_is_held_against_the_others(tmp_path: Path) -> None:
    found = said(tmp_path, {"s": {"auto": 0.1, "badge": 0.0, "entropy": 0.1}})
    assert found.headline == "auto against 2 other methods"
    assert found.lines[-1].text.startswith("auto is ahead of badge")


def test_without_a_default_the_largest_gain_is_the_subject(tmp_path: Path) -> None:
    found = said(tmp_path, {"s": {"random": 0, "badge": 0.02, "entropy": 0.1}})
    assert found.headline.startswith("entropy beats random on s by ")


def test_without_reference_and_default_only_curves_are_shown(tmp_path: Path) -> None:
    found = said(tmp_path, {"s": {"badge": 0.02, "entropy": 0.1}})
    assert found.headline == "2 methods without a reference"
    assert found.warnings


def test_one_method_besides_random(tmp_path: Path) -> None:
    found = said(tmp_path, {"s": {"random": 0, "auto": 0.1}})
    assert len(found.lines) == 1 and "clearly above all others" in found.lines[0].text
