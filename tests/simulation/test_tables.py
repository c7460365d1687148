from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lloss.simulation.comparison import Comparison, compare
from lloss.simulation.tables import (
    detail_table,
    gain_table,
    lead_table,
    markdown_tables,
    ranked,
    result_table,
    terminal_table,
)

from .simulated_rows import METRIC, rows, write

GAINS = {
    "balanced": {"random": 0.0, "badge": -0.05, "auto": 0.0},
    "long|tail": {"random": 0.0, "badge": -0.01, "auto": 0.1},
}


def compared(out: Path) -> Comparison:
    return compare(write(out, rows(GAINS)))


def test_methods_are_ranked_by_their_mean_gain(tmp_path: Path) -> None:
    assert ranked(compared(tmp_path)) == ["auto", "random", "badge"]
    only = [row for row in rows(GAINS) if row.method != "random"]
    assert ranked(compare(write(tmp_path / "other", only))) == ["auto", "badge"]


def test_gains_have_a_row_a_method_and_a_column_a_scenario(tmp_path: Path) -> None:
    table = gain_table(compared(tmp_path))
    assert table is not None
    assert table.heads == ["all", *GAINS]
    assert list(table.rows) == ["auto", "random", "badge"]
    mean, _, tail = table.rows["auto"]
    assert mean.difference is not None and mean.difference.sign == 1
    assert tail.text.startswith("+") and " to +" in tail.note
    assert table.rows["random"][1].text.endswith("%")
    assert table.rows["random"][1].difference is None


def test_leads_are_the_default_less_the_others(tmp_path: Path) -> None:
    table = lead_table(compared(tmp_path))
    assert table is not None and list(table.rows) == ["random", "badge"]
    assert table.rows["badge"][0].text.startswith("+")
    assert lead_table(compare(write(tmp_path / "o", rows(GAINS), default=""))) is None


def test_results_and_details_of_a_scenario(tmp_path: Path) -> None:
    comparison = compared(tmp_path)
    result = result_table(comparison, comparison.scenarios[1])
    cells = dict(zip(result.heads, result.rows["auto"], strict=True))
    assert cells["adjusted p"].text == "0.004"
    assert cells[METRIC].text.endswith("%")
    assert cells[f"labels to random's final {METRIC}"].note.endswith("10 of 10 trials")
    detail = detail_table(comparison, comparison.scenarios[1])
    assert detail.heads == [
        "worst class", "recall of truck", "count of truck", "duplicates among picks",
        "junk among picks", "rare among picks", "ranking accuracy, predicted loss",
        "ranking accuracy, entropy", "seconds a cycle",
    ]  # fmt: skip
    cells = dict(zip(detail.heads, detail.rows["auto"], strict=True))
    assert cells["rare among picks"].text == "15.0"
    assert cells["seconds a cycle"].note == "train 1.5, measure 0.10, score 0.25, select 0.02"
    random = dict(zip(detail.heads, detail.rows["random"], strict=True))
    assert random["ranking accuracy, predicted loss"].text == "–"


def test_columns_without_a_figure_are_left_out(tmp_path: Path) -> None:
    found = [replace(row, head=None, picks={}, seconds={}) for row in rows(GAINS)]
    comparison = compare(write(tmp_path, found))
    heads = detail_table(comparison, comparison.scenarios[0]).heads
    assert heads[-1] == "ranking accuracy, entropy"
    assert not any("picks" in head for head in heads)


def test_the_terminal_gets_verdict_and_differences_in_columns(tmp_path: Path) -> None:
    lines = terminal_table(compared(tmp_path))
    assert lines[0].startswith("auto beats random in 1 of 2 scenarios")
    table = lines[-4:]
    assert table[0].split() == ["all", *GAINS]
    assert table[1].startswith("auto") and "* " in f"{table[1]} "
    assert len({len(line.rstrip("*")) for line in table[1:]}) <= 2


def test_the_terminal_s_warnings_come_last(tmp_path: Path) -> None:
    lines = terminal_table(compare(write(tmp_path, rows(GAINS), trials=11)))
    assert lines[0].startswith("No verdict yet")
    assert lines[-1].startswith("warning: only 60 of 66 planned trials are finished")
    assert not any(line.endswith("*") or "* " in line for line in lines[lines.index("") + 3 :])


def test_markdown_has_every_table_and_escapes_bars(tmp_path: Path) -> None:
    text = markdown_tables(compare(write(tmp_path, rows(GAINS))))
    assert "|  | all | balanced | long\\|tail |" in text
    assert "| auto | **+" in text
    assert text.count("| --- |") == 2 + 2 * 2
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")


def test_many_figures_of_classes_are_left_to_the_csv(tmp_path: Path) -> None:
    classes = {f"AP {n}": 0.5 for n in range(20)}
    found = [replace(row, figures={"map": row.figures[METRIC], **classes}) for row in rows(GAINS)]
    metrics = dict.fromkeys(GAINS, "map")
    out = write(tmp_path, found, metric="map", metrics=metrics, metric_title="mAP")
    comparison = compare(out)
    table = detail_table(comparison, comparison.scenarios[0])
    assert table.title == "Models, picks and time (12 more figures are in results.csv)"
    assert [head for head in table.heads if head.startswith("AP")] == [f"AP {n}" for n in range(8)]
    assert result_table(comparison, comparison.scenarios[0]).heads[0] == "mAP"
