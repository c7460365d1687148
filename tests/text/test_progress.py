"""Bars on terminals, lines elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from lloss.text import progress as module
from lloss.text.progress import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_of_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(module, "EVERY", 0.0)
    with progress(total=3, desc="train", unit="images") as bar:
        for _ in range(3):
            bar.update(1)
    lines = log.getvalue().splitlines()
    assert "\r" not in log.getvalue() and len(lines) >= 3
    assert all(line.startswith("train: ") and "of 3 images" in line for line in lines)
    assert lines[-1].startswith("train: 3 of 3 images, ")


def test_what_is_over_soon_writes_nothing_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    assert list(progress(range(5), "score", unit="images")) == [0, 1, 2, 3, 4]
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    list(progress(range(5), "score"))
    assert "score: 100%|" in terminal.getvalue() and "\r" in terminal.getvalue()
