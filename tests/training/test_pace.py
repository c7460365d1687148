"""The estimate of time and memory after the first steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lloss.training import pace as module
from lloss.training.pace import Pace, in_bytes, in_words

CPU = torch.device("cpu")


def _say(seconds: list[float], steps: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of steps that take so many seconds each."""
    said: list[str] = []
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    pace = Pace(steps, 5_000_000, CPU, said.append)
    for each in seconds:
        now += each
        pace.step()
    return said


def test_the_rest_is_estimated_without_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = _say([9, 0.5, 0.5, 0.5, 0.5, 0.5], 1004, monkeypatch)
    assert line.startswith("training takes about 8 min on cpu: 1,004 steps of 0.5 s; memory ")
    assert line.endswith(", of which 5 MB are decoded images")


def test_slow_steps_are_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = _say([9, 30, 1], 12, monkeypatch)  # 10 more of 30 s when two are done
    assert "about 5 min" in line and "12 steps of 30 s" in line


@pytest.mark.parametrize("steps", [2, 20])
def test_a_short_training_says_nothing(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _say([1, 0.1, 0.1, 0.1, 0.1], steps, monkeypatch) == []


def test_memory_is_what_the_process_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with the kernel's own count of resident pages."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    assert found
    (line,) = _say([1, 9, 9], 100, monkeypatch)
    amount = re.search(r"memory (\S+) (MB|GB)", line)
    assert amount
    measured = float(amount[1]) * {"MB": 1e6, "GB": 1e9}[amount[2]]
    assert measured == pytest.approx(int(found[1]) * 1024, rel=0.2)


def test_durations_and_sizes_are_rounded() -> None:
    durations = [in_words(seconds) for seconds in (12.4, 89, 91, 840, 9000)]
    assert durations == ["12 s", "89 s", "2 min", "14 min", "2.5 h"]
    sizes = [in_bytes(count) for count in (166e3, 2e7, 6.2e8, 1.54e9)]
    assert sizes == ["0.17 MB", "20 MB", "0.6 GB", "1.5 GB"]
