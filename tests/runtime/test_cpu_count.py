"""Cores by affinity and by quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lloss.runtime import cpu_count


@pytest.mark.parametrize(
    ("quota", "affinity", "cores"),
    [
        ("200000 100000\n", 16, 2),
        ("150000 100000\n", 16, 2),
        ("50000 100000\n", 16, 1),
        ("6400000 100000", 3, 3),
        *((text, 16, 16) for text in ("max 100000\n", "", "100000 0\n", "200000\n", "\u00fc\n")),
        (None, 3, 3),
    ],
)  # fmt: skip
def test_the_smaller_of_affinity_and_rounded_up_quota(
    quota: str | None, affinity: int, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpu.max"
    if quota is not None:
        path.write_text(quota, encoding="utf-8")
    monkeypatch.setattr(cpu_count, "_QUOTA", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    assert cpu_count.usable_cores() == cores


@pytest.mark.parametrize(("machine", "cores"), [(None, 1), (5, 5)])
def test_the_machines_cores_without_affinity(
    machine: int | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_count, "_QUOTA", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    assert cpu_count.usable_cores() == cores
