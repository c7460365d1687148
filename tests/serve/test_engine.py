"""Which provider runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from lloss.serve import engine
from lloss.serve.engine import Engine

from lloss.errors import ArtifactError, EngineError


def test_auto_runs_on_what_there_is_and_says_so(artifact: Path) -> None:
    made = Engine(artifact)
    assert made.provider in ("tensorrt", "cuda", "cpu")
    found = made.run(np.zeros((3, 8, 8, 3), np.uint8))
    assert list(found) == list(made.manifest.outputs)
    assert found["loss"].shape == (3,) and found["embedding"].shape == (3, 128)


def test_a_provider_that_is_not_here_is_refused_and_not_replaced(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="cuda: is not in the installed onnxruntime"):
        Engine(artifact, "cuda")
    assert Engine(artifact, "auto").provider == "cpu"


def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(engine.ort, "get_available_providers", lambda: names)
    monkeypatch.setattr(
        engine, "_LIBRARIES", {"tensorrt": ("libnvinfer.so.none",), "cuda": ("libcuda.so.none",)}
    )
    with pytest.raises(EngineError, match=r"tensorrt: libnvinfer\.so\.none.*lloss\[trt\]"):
        Engine(artifact, "tensorrt")
    with pytest.raises(EngineError, match=r"cuda: libcuda\.so\.none.*lloss\[cuda\]"):
        Engine(artifact, "cuda")


def test_a_silent_fall_back_is_found_out(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_missing", lambda provider: None)
    monkeypatch.setattr(engine.ort, "preload_dlls", lambda: None)
    real = ort.InferenceSession

    def on_cpu(path: str, options: object, providers: list[str]) -> ort.InferenceSession:
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(engine.ort, "InferenceSession", on_cpu)
    with pytest.raises(EngineError, match="cuda: could not be started, CPUExecutionProvider ran"):
        Engine(artifact, "cuda")


def test_an_unknown_provider_names_the_known(artifact: Path) -> None:
    with pytest.raises(EngineError, match="'gpu': choose one of auto, tensorrt, cuda, cpu"):
        Engine(artifact, "gpu")


def test_no_artifact_no_engine(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        Engine(tmp_path / "model.onnx")


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers()
    or engine._missing("cuda") is not None,
    reason="needs an NVIDIA GPU and the CUDA provider",
)
def test_cuda_scores_as_the_cpu_does(artifact: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    on_gpu, on_cpu = (Engine(artifact, name).run(images)["loss"] for name in ("cuda", "cpu"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-2)
