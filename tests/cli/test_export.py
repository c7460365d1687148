"""``lloss export``: its refusals, and TensorRT engines."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lloss.serve.scoring.engine import engine as engine_module

from lloss.cli import export
from lloss.cli.main import main
from lloss.runtime import tf32
from lloss.runtime.providers import why_unavailable


def test_without_a_gpu_or_torch_it_is_one_line(artifact: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None\n"
        "from lloss.runtime import cuda_driver; cuda_driver.LIBRARY = 'libcuda.so.none'\n"
        f"from lloss.cli.main import main; main(['export', {str(artifact)!r}, '--tensorrt'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1
    assert "no TensorRT engine can be built here: " in done.stderr


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("run", "name the file to write"),
        ("run -o model.onnx --device-id=1", "--device-id 1: applies to --tensorrt"),
        ("m.onnx --tensorrt --precision=int8 --calibrate=pool", "choose the precision when"),
        ("m.onnx --tensorrt --reference=pool", "give --reference when exporting a RUN"),
        ("run -o m.onnx --precision=int8", "add --calibrate POOL"),
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


def test_a_checkpoint_is_not_overwritten_by_its_artifact(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    before = (run / "checkpoint.pt").read_bytes()
    for given in (run, run / "checkpoint.pt"):
        with pytest.raises(SystemExit):
            main(["export", str(given), "-o", str(run / "checkpoint.pt")])
        assert "checkpoint.pt: is the checkpoint itself" in capsys.readouterr().err
    assert (run / "checkpoint.pt").read_bytes() == before


def test_the_scorers_engine_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[Any] = []

    def engine(*given: object, **named: object) -> Any:
        started.append((*given, named))
        return SimpleNamespace(batch_size=32, close=lambda: started.append("closed"))

    monkeypatch.setattr(export, "why_unavailable", lambda *_: "")
    monkeypatch.setattr(engine_module, "Engine", engine)
    main(["export", "model.onnx", "--tensorrt", "--batch-size=32", "--device-id=1"])
    assert started == [(Path("model.onnx"), "tensorrt:1", {"batch_size": 32}), "closed"]
    assert "model.onnx: TensorRT engine for batches of 1 to 32, ready in" in capsys.readouterr().out


def test_a_real_engine(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tf32.VARIABLE, "0")
    if problem := why_unavailable("tensorrt"):
        pytest.skip(f"needs TensorRT 10 and an NVIDIA GPU: {problem}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    main(["export", str(artifact), "--tensorrt", "--batch-size=16"])
    assert list(tmp_path.rglob("*.engine"))
