"""The report of ``lloss simulate``; what it simulates is tested in tests/simulation/test_run.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.cli.main import main

from ..simulation.simulated_rows import rows, write

REPORT = {"report.html", "curves.png", "results.csv"}


def test_reports_on_a_folder_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, rows({"balanced": {"random": 0.0, "auto": 0.1}}))
    main(["simulate", "--report-only", "-o", str(tmp_path)])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("auto beats random on balanced by ")
    assert any(line.startswith("auto ") and line.endswith("*") for line in printed[1:])
    assert printed[-1] == str(tmp_path / "report.html")
    assert {path.name for path in tmp_path.iterdir()} == {*REPORT, "settings.json", "results.jsonl"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Missing argument 'DATA'."),
        (["images", "--report-only"], "--report-only reads OUT alone: leave DATA out"),
        (["--report-only"], "holds no simulation (settings.json is missing)"),
    ],
)
def test_refuses_in_a_line(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *options, "-o", str(tmp_path)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_refuses_what_a_simulation_does_not_do(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(
            ["simulate", str(photos), "--test", "30%", "--folds", "3", "-o", str(tmp_path / "out")]
        )
    assert ended.value.code == 2
    assert "folds: a simulation measures on its test images" in capsys.readouterr().err
