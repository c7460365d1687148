from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lloss.simulation.report import write_report
from lloss.simulation.results import CycleRow, SimulationError

from ..html_page import HtmlPage
from .simulated_rows import METRIC, rows, write

GAINS = {
    "balanced": {"random": 0.0, "entropy": -0.02, "auto": 0.0},
    "long-tail:50": {"random": 0.0, "entropy": 0.09, "auto": 0.1},
}
HOSTILE = "<script>alert(1)</script> \u202e \"'&"


def show(out: Path, found: list[CycleRow], trials: Any = 10, **changes: Any) -> HtmlPage:
    page = write_report(write(out, found, trials, **changes))
    with Image.open(out / "curves.png") as picture:
        picture.verify()
    return HtmlPage(page.read_text("utf-8"))


def test_says_who_wins_and_shows_every_scenario(tmp_path: Path) -> None:
    page = show(tmp_path, rows(GAINS))
    assert "auto beats random in 1 of 2 scenarios" in page.text
    assert "Macro accuracy over 10 paired trials, 100 + 5 × 100 labels." in page.text
    assert {attrs.get("id") for attrs in page.all("section")} == {"who", "scenario-1", "scenario-2"}
    ids = {attrs.get("id") for attrs in page.all("section")}
    assert {str(attrs["href"]).removeprefix("#") for attrs in page.all("a")} == ids
    assert all(attrs["aria-label"] for attrs in page.all("svg"))
    assert page.all("b", class_="better") and page.all("b", class_="worse")
    assert "the predicted loss ranks held-out images no better than chance" in page.text
    assert "efficientnet_lite0" in page.text


def test_is_one_file_without_scripts_that_asks_the_network_for_nothing(tmp_path: Path) -> None:
    page = show(tmp_path, rows(GAINS))
    assert "http" not in page.source.replace("http-equiv", "") and "url(" not in page.source
    assert {"script", "link", "img", "iframe"}.isdisjoint(name for name, _ in page.elements)
    assert "default-src 'none'; style-src 'unsafe-inline'" in str(page.all("meta")[1]["content"])


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    found = rows(GAINS)
    for name, order in (("there", found), ("back", found[::-1])):
        methods = {"methods": ["random", "entropy", "auto"], "scenarios": list(GAINS)}
        write_report(write(tmp_path / name, order, **methods))
    for file in ("report.html", "curves.png", "results.csv"):
        assert (tmp_path / "there" / file).read_bytes() == (tmp_path / "back" / file).read_bytes()


def test_missing_trials_are_said_loudly_and_nothing_is_coloured(tmp_path: Path) -> None:
    page = show(tmp_path, rows(GAINS), trials=20)
    assert page.text.count("60 of 120 planned trials are finished") >= 2
    assert len(page.all("div", class_="banner")) == 1
    assert not page.all("b", class_="better") and not page.all("b", class_="worse")
    assert "beats" not in page.text


@pytest.mark.parametrize(("trials", "cycles"), [(1, 6), (3, 1), (1, 1), (2, 2)])
def test_few_trials_and_cycles(tmp_path: Path, trials: int, cycles: int) -> None:
    page = show(tmp_path, rows(GAINS, trials, cycles), trials, cycles=cycles)
    assert "No verdict" in page.text and "nan" not in page.text.lower()


@pytest.mark.parametrize("methods", [["random"], ["badge"], ["random", "badge"]])
def test_few_methods(tmp_path: Path, methods: list[str]) -> None:
    page = show(tmp_path, rows({"s": dict.fromkeys(methods, 0.0)}))
    assert ("nothing to compare it with" in page.text) is (len(methods) == 1)


def test_nothing_has_finished(tmp_path: Path) -> None:
    page = show(tmp_path, [], methods=["random", "auto"], scenarios=["balanced"],
                metrics={"balanced": METRIC})  # fmt: skip
    assert "0 of 20 planned trials are finished" in page.text
    assert "No trial has finished yet" in page.text


def test_figures_may_be_missing(tmp_path: Path) -> None:
    bare = [
        replace(row, head=None, entropy=None, picks={}, choice="", seconds={},
                figures={METRIC: row.figures[METRIC]})
        for row in rows(GAINS)
    ]  # fmt: skip
    page = show(tmp_path, bare, initial=None)
    assert "nan" not in page.text.lower() and "None" not in page.text


def test_many_methods_and_long_names(tmp_path: Path) -> None:
    methods = {"random": 0.0} | {f"a-method-of-a-long-name-{n}": n / 100 for n in range(17)}
    gains = {f"rare:{'long class name ' * 4}{n}:0.5%": methods for n in range(6)}
    page = show(tmp_path, rows(gains, trials=2, cycles=2), 2, cycles=2)
    assert page.text.count("11 other methods, without bands") == 6
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width < 2400


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    plain = show(tmp_path / "plain", rows(GAINS))
    hostile = {HOSTILE: {"random": 0.0, "entropy": -0.02, f"m {HOSTILE}": 0.0},
               "long-tail:50": {"random": 0.0, "entropy": 0.09, f"m {HOSTILE}": 0.1}}  # fmt: skip
    page = show(tmp_path / "hostile", rows(hostile, rare=HOSTILE), data=HOSTILE)
    kinds = {name for name, _ in page.elements}
    assert "script" not in kinds and kinds <= {name for name, _ in plain.elements}
    assert "\u202e" not in page.source


def test_csv_has_a_row_a_cycle_and_totals_at_the_last(tmp_path: Path) -> None:
    show(tmp_path, rows(GAINS))
    table = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text("utf-8"))))
    assert len(table) == 2 * 3 * 6
    first, last = [
        row for row in table if (row["scenario"], row["method"]) == ("long-tail:50", "auto")
    ][::5]
    assert (first["labeled"], first["trials"], first["planned"]) == ("100.0", "10", "10")
    assert first["adjusted_p"] == "" and first["later"] == ""
    assert (
        float(last["difference_low"]) < float(last["difference"]) < float(last["difference_high"])
    )
    assert float(last["adjusted_p"]) < 0.05
    assert float(last["labels_to_reach_reference"]) < 600
    assert last["picks_rare"] == "15.0" and "recall_of_truck_low" in last


def test_a_folder_without_a_simulation_is_refused_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(SimulationError, match="holds no simulation"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())
