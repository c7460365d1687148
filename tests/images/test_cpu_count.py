"""Cores by affinity and by quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lloss.images import cpu_count as cores


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("800000 100000\n", 8),
        ("400000 50000", 8),
        ("max 100000\n", None),
        ("max", None),
        ("", None),
        ("100000 0\n", None),
        ("200000\n", None),
        ("fast 100000\n", None),
        ("\u00fc\n", None),
    ],
)
def test_a_quota_counts_rounded_up(
    text: str, wanted: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(cores, "_QUOTA", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert cores.usable_cores() == (wanted or 16)


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7, 9}, raising=False)
    assert cores.usable_cores() == 3
    (tmp_path / "max").write_text("6400000 100000")
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "max")
    assert cores.usable_cores() == 3


def test_there_is_always_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.usable_cores() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores.usable_cores() == 5
