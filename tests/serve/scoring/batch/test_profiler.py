"""The stage that limits a run, and the advice for it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.batch.profiler import Profiler

from lloss import Scorer
from lloss.cli.main import main


@pytest.mark.parametrize(
    ("bound", "advice", "shares", "remote"),
    [
        ("infer", "--precision int8", {"decode": 0.2, "infer": 0.75}, False),
        ("decode", "more cores", {"read": 0.1, "decode": 0.5, "infer": 0.3}, False),
        ("read", "--readers", {"read": 0.6, "decode": 0.2, "infer": 0.1}, True),
        ("write", "faster disk", {"infer": 0.5, "write": 0.95}, False),
        ("listing", "tar shards", {"decode": 0.1, "infer": 0.3, "write": 0.1}, False),
    ],
)
def test_the_stage_that_limits_a_run_has_its_advice(
    onnx_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    advice: str,
    shares: dict[str, float],
    remote: bool,
) -> None:
    with Scorer(onnx_file, "cpu", batch_size=8, threads=2, readers=5) as scorer:
        scorer.telemetry.spent("decode", 100.0)  # before the run
        now = time.perf_counter()
        monkeypatch.setattr(time, "perf_counter", lambda: now)
        profiler = Profiler(scorer)
        threads = {"read": 5 if remote else 2, "decode": 2, "infer": 2, "write": 1}
        for stage, share in shares.items():
            scorer.telemetry.spent(stage, share * 10 * threads[stage])
        scorer.telemetry.ran(np.zeros(990, np.float32), 10)
        monkeypatch.setattr(time, "perf_counter", lambda: now + 10)
        lines = profiler.text(remote).splitlines()
    assert lines[0] == "1000 images in 10.0 s, 100 images/s"
    for line, stage in zip(lines[2:], threads, strict=False):
        share = shares.get(stage, 0)
        seconds = share * 10 * threads[stage]
        assert line.split() == [stage, f"{seconds:.2f}", str(threads[stage]), f"{share:.0%}"]
    assert lines[-1].startswith(f"bound by {bound}: ") and advice in lines[-1]


def test_the_command_prints_it(
    onnx_file: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "s")
    main(["score", str(onnx_file), str(photos), "-o", out, "--provider", "cpu", "--profile"])
    lines = capsys.readouterr().err
    assert "60 images in " in lines and "bound by " in lines
