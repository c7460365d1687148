"""The stage that limits a run, and the advice for it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.batch.profile import Profile, Profiler
from lloss.serve.scoring.telemetry import STAGES

from lloss import Scorer
from lloss.cli.main import main


def profile(on_host: bool = True, remote: bool = False, **shares: float) -> Profile:
    busy = {name: shares.get(name, 0.0) * 10 for name in STAGES}
    return Profile(1000, 10.0, busy, dict.fromkeys(STAGES, 1), on_host, remote)


@pytest.mark.parametrize(
    ("where", "bound", "advice", "shares"),
    [
        ("cpu", "infer", "--precision int8", {"decode": 0.2, "infer": 0.75}),
        ("cpu", "decode", "more cores", {"read": 0.1, "decode": 0.5, "infer": 0.3}),
        ("cpu", "read", "--readers", {"read": 0.6, "decode": 0.2, "infer": 0.1}),
        ("cpu", "write", "faster disk", {"infer": 0.5, "write": 0.95}),
        ("cpu", "listing", "tar shards", {"decode": 0.1, "infer": 0.3, "write": 0.1}),
        ("cpu", "listing", "tar shards", {}),
        ("gpu", "infer", "--precision fp16", {"decode": 0.5, "infer": 0.95}),
        ("gpu", "decode", "more cores", {"read": 0.4, "decode": 0.5, "infer": 0.3}),
        ("gpu", "read", "--readers", {"read": 0.9, "decode": 0.05, "infer": 0.2}),
        ("gpu", "listing", "tar shards", {"decode": 0.2, "infer": 0.3}),
        ("cpu store", "read", "--readers", {"read": 0.95, "decode": 0.1, "infer": 0.3}),
        ("cpu store", "infer", "--precision int8", {"read": 0.95, "decode": 0.1, "infer": 0.8}),
        ("gpu store", "read", "--readers", {"read": 0.3, "decode": 0.6, "infer": 0.3}),
        ("gpu store", "decode", "more cores", {"read": 0.9, "decode": 0.9, "infer": 0.3}),
    ],
)
def test_the_stage_that_limits_a_run_has_its_advice(
    where: str, bound: str, advice: str, shares: dict[str, float]
) -> None:
    made = profile("cpu" in where, "store" in where, **shares)
    last = made.text().splitlines()[-1]
    assert made.bound() == bound
    assert last.startswith(f"bound by {bound}: ") and advice in last


def test_the_text_is_a_table() -> None:
    lines = profile(decode=0.25, infer=0.7, write=0.01).text().splitlines()
    assert lines[0] == "1000 images in 10.0 s, 100 images/s"
    assert lines[3].split() == ["decode", "2.50", "1", "25%"]
    assert [line.split()[0] for line in lines[2:6]] == ["read", "decode", "infer", "write"]
    nothing = dict.fromkeys(STAGES, 0)
    empty = Profile(0, 0.0, nothing, nothing, True, False)
    assert empty.text().startswith("0 images in 0.0 s")


def test_a_profiler_measures_from_its_construction(artifact: Path) -> None:
    with Scorer(artifact, "cpu", batch_size=8, threads=2, readers=7) as scorer:
        scorer.telemetry.spent("decode", 100.0)
        scorer.telemetry.ran(np.zeros(5, np.float32), 2)
        profiler = Profiler(scorer)
        scorer.telemetry.spent("decode", 0.5)
        scorer.telemetry.spent("read", 0.25)
        scorer.telemetry.ran(np.zeros(3, np.float32), 1)
        time.sleep(0.02)
        made = profiler.profile(remote=True)
    assert made.images == 4 and made.remote and made.on_host and made.seconds >= 0.02
    assert made.busy == {"read": 0.25, "decode": 0.5, "infer": 0, "write": 0}
    assert made.threads == {"read": 7, "decode": 2, "infer": 2, "write": 1}
    assert made.share("read") == pytest.approx(0.25 / (7 * made.seconds))


def test_the_command_prints_it(
    artifact: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "s")
    main(["score", str(artifact), str(photos), "-o", out, "--provider", "cpu", "--profile"])
    lines = capsys.readouterr().err
    assert "60 images in " in lines and "bound by " in lines
