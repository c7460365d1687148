"""Which stage bounds a run, and what is said of it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.batch.profile import Profile, Profiler, Stage

from lloss import Scorer


def profile(on_host: bool = True, remote: bool = False, **shares: float) -> Profile:
    stages = tuple(
        Stage(name, shares.get(name, 0.0) * 10, 1, shares.get(name, 0.0))
        for name in ("read", "decode", "infer", "write")
    )
    return Profile(1000, 10.0, stages, on_host, remote)


HOST = [
    ("infer", {"decode": 0.2, "infer": 0.75}),
    ("decode", {"read": 0.1, "decode": 0.5, "infer": 0.3}),
    ("read", {"read": 0.6, "decode": 0.2, "infer": 0.1}),
    ("write", {"infer": 0.5, "write": 0.95}),
    ("listing", {"decode": 0.1, "infer": 0.3, "write": 0.1}),
    ("listing", {}),
]
DEVICE = [
    ("infer", {"decode": 0.5, "infer": 0.95}),
    ("decode", {"decode": 0.99, "infer": 0.3}),
    ("decode", {"read": 0.4, "decode": 0.5, "infer": 0.3}),  # the same threads do both
    ("read", {"read": 0.9, "decode": 0.05, "infer": 0.2}),
    ("write", {"write": 0.9}),
    ("listing", {"decode": 0.2, "infer": 0.3}),
]
REMOTE = [
    ("read", True, {"read": 0.95, "decode": 0.1, "infer": 0.3}),
    ("infer", True, {"read": 0.95, "decode": 0.1, "infer": 0.8}),
    ("read", False, {"read": 0.3, "decode": 0.6, "infer": 0.3}),
    ("decode", False, {"read": 0.9, "decode": 0.9, "infer": 0.3}),
]


@pytest.mark.parametrize(("bound", "shares"), HOST)
def test_on_the_host_one_thread_does_all(bound: str, shares: dict[str, float]) -> None:
    assert profile(**shares).bound() == bound


@pytest.mark.parametrize(("bound", "shares"), DEVICE)
def test_beside_a_device(bound: str, shares: dict[str, float]) -> None:
    assert profile(on_host=False, **shares).bound() == bound


@pytest.mark.parametrize(("bound", "on_host", "shares"), REMOTE)
def test_from_a_store(bound: str, on_host: bool, shares: dict[str, float]) -> None:
    assert profile(on_host, remote=True, **shares).bound() == bound


def test_each_verdict_has_its_remedy() -> None:
    wanted = {
        ("infer", True): "--precision int8", ("infer", False): "--precision fp16",
        ("decode", True): "more cores", ("read", True): "--readers",
        ("write", True): "faster disk", ("listing", False): "tar shards",
    }  # fmt: skip
    for (bound, on_host), remedy in wanted.items():
        table = HOST if on_host else DEVICE
        shares = next(shares for name, shares in table if name == bound)
        last = profile(on_host, **shares).text().splitlines()[-1]
        assert last.startswith(f"bound by {bound}: ") and remedy in last


def test_the_text_is_a_table() -> None:
    lines = profile(decode=0.25, infer=0.7, write=0.01).text().splitlines()
    assert lines[0] == "1000 images in 10.0 s, 100 images/s"
    assert lines[3].split() == ["decode", "2.50", "1", "25%"]
    assert [line.split()[0] for line in lines[2:6]] == ["read", "decode", "infer", "write"]
    assert Profile(0, 0.0, profile().stages, True, False).text().startswith("0 images in 0.0 s")


def test_a_profiler_counts_from_when_it_was_made(artifact: Path) -> None:
    with Scorer(artifact, "cpu", batch_size=8, threads=2, readers=7) as scorer:
        scorer.telemetry.spent("decode", 100.0)
        scorer.telemetry.ran(np.zeros(5, np.float32), 2)
        profiler = Profiler(scorer)
        scorer.telemetry.spent("decode", 0.5)
        scorer.telemetry.spent("read", 0.25)
        scorer.telemetry.ran(np.zeros(3, np.float32), 1)
        time.sleep(0.05)
        made = profiler.profile(remote=True)
    stages = {stage.name: stage for stage in made.stages}
    assert made.images == 4 and made.remote and made.on_host and made.seconds >= 0.05
    assert (stages["decode"].seconds, stages["read"].seconds) == (0.5, 0.25)
    assert [stages[name].threads for name in stages] == [7, 2, 2, 1]
    assert stages["read"].share == pytest.approx(0.25 / (7 * made.seconds))


def test_the_command_prints_it(artifact: Path, photos: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lloss", "score", artifact, photos, "-o", tmp_path / "s",
         "--provider", "cpu", "--profile"], capture_output=True, text=True, check=True)  # fmt: skip
    assert "60 images in " in done.stderr and "bound by " in done.stderr
    assert done.stderr.splitlines()[-1].endswith("60 images scored")
