"""``lloss export``: its refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lloss.cli.main import main


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("run -o m.onnx --precision=int8", "add --calibrate POOL"),
        ("run -o m.onnx --precision=auto", "add --calibrate POOL"),
        ("run -o m.onnx --precision=auto --reduce-range", "applies to --precision int8"),
        ("run -o m.onnx --calibrate=pool", "--calibrate: fp32 needs none"),
        ("run -o m.onnx --no-reduce-range", "applies to --precision int8, not to fp32"),
        ("run -o m.onnx --precision=fp16 --reduce-range", "applies to --precision int8"),
        ("run -o m.onnx --precision=fp16 --calibrate=nowhere", "nowhere"),
        ("run -o m.onnx --reference=nowhere", "nowhere"),
    ],
)
def test_mistakes_are_one_line(
    options: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["export", *options.split()])
    line = capsys.readouterr().err
    assert left.value.code == 2 and error in line and line.count("\n") == 1


def test_a_checkpoint_is_not_overwritten_by_its_export(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    before = (run / "checkpoint.pt").read_bytes()
    for given in (run, run / "checkpoint.pt"):
        with pytest.raises(SystemExit):
            main(["export", str(given), "-o", str(run / "checkpoint.pt")])
        assert "checkpoint.pt: is the checkpoint itself" in capsys.readouterr().err
    assert (run / "checkpoint.pt").read_bytes() == before
