"""Engines built ahead; without a GPU, one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lloss.export import tensorrt
from lloss.export.tensorrt import build_engine

from lloss.cli.main import main
from lloss.errors import ArtifactError, EngineError
from lloss.manifest import read_manifest
from lloss.runtime.batch_size import device_batch
from lloss.runtime.engine_cache import EngineCache
from lloss.runtime.providers import Opened, why_unavailable


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
        (["run"], "name the file to write"),
        (["run", "-o", "model.onnx", "--device-id=1"], "--device-id 1: applies to --tensorrt"),
        (["model.onnx", "--tensorrt", "--precision=int8", "--calibrate=pool"],
         "already exported; choose the precision"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(
    options: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["export", *options])
    line = capsys.readouterr().err
    assert error in line and line.count("\n") == 1


def test_only_an_artifact_is_built(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        build_engine(tmp_path / "model.onnx")


class FakeSession:
    """Takes batches and leaves an engine, as TensorRT does."""

    def __init__(self, folder: Path, leaves: bool = True) -> None:
        self.folder, self.leaves, self.shapes = folder, leaves, []

    def run(self, names: Any, feed: dict[str, Any]) -> list[Any]:
        (images,) = feed.values()
        self.shapes.append(images.shape)
        if self.leaves:
            (self.folder / "model_sm90.engine").write_bytes(b"12345")
        return []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSession:
    """One that has TensorRT."""
    cache = EngineCache.of({"gpu": "a"}, {"sha256": "b"}, tmp_path / "lloss" / "tensorrt")
    session = FakeSession(cache.engines)
    monkeypatch.setattr(tensorrt, "why_unavailable", lambda *_: "")
    monkeypatch.setattr(tensorrt, "engine_cache", lambda *_: cache)
    opened = Opened(session)
    monkeypatch.setattr(tensorrt, "open_session", lambda *_: opened)
    return session


def test_the_ends_of_its_range_are_run(artifact: Path, machine: FakeSession) -> None:
    built = build_engine(artifact, batch_size=32)
    assert machine.shapes == [(1, 8, 8, 3), (32, 8, 8, 3)] and built.batches == (1, 32)
    assert [file.name for file in built.files] == ["model_sm90.engine"]


def test_it_is_built_for_the_batch_and_the_gpu_of_the_scorer(
    artifact: Path, machine: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, asked = [], []
    monkeypatch.setattr(tensorrt, "why_unavailable", lambda *given: asked.append(given[1]))
    opened = tensorrt.open_session
    monkeypatch.setattr(
        tensorrt, "open_session", lambda *given: (made.append(given[1]), opened(*given))[1]
    )
    build_engine(artifact, device_id=1)
    image = read_manifest(artifact).image
    assert [(s.batch_size, s.device_id) for s in made] == [(device_batch(image), 1)]
    assert asked == [1]


def test_int8_is_not_for_tensorrt(
    artifact: Path, machine: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = replace(read_manifest(artifact), precision="int8")
    monkeypatch.setattr(tensorrt, "read_manifest", lambda path: manifest)
    with pytest.raises(EngineError, match="is int8, which is for CPUs.*--precision fp16"):
        build_engine(artifact)


def test_no_engine_is_not_a_success(artifact: Path, machine: FakeSession) -> None:
    machine.leaves = False
    with pytest.raises(EngineError, match="left no engine"):
        build_engine(artifact)


def test_a_failing_run_is_one_line(artifact: Path, machine: FakeSession) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shape out of range\nat line 3")

    machine.run = fail  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="failed on TensorRT in a batch of 1: shape out of range"):
        build_engine(artifact)


def test_a_real_engine(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = why_unavailable("tensorrt")
    if problem:
        pytest.skip(f"needs TensorRT 10 and an NVIDIA GPU: {problem}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, again = build_engine(artifact, 16), build_engine(artifact, 16)
    assert first.files == again.files and again.seconds < first.seconds
