"""Which provider runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from lloss.serve.scoring.engine import gpu_startup as opening
from lloss.serve.scoring.engine import session as engine
from lloss.serve.scoring.engine.session import Engine

from lloss.errors import ArtifactError, EngineError
from lloss.runtime.providers import Opened, Setup, missing


def test_auto_runs_on_what_there_is_and_says_so(artifact: Path) -> None:
    made = Engine(artifact)
    assert made.provider in ("tensorrt", "cuda", "cpu")
    found = made.run(np.zeros((3, 8, 8, 3), np.uint8))
    assert list(found) == list(made.manifest.outputs)
    assert found["loss"].shape == (3,) and found["embedding"].shape == (3, 128)


def test_a_provider_that_fails_is_passed_over_by_auto_and_refused_by_name(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.open_session

    def no_cuda(path: Path, setup: Setup, *rest: object) -> Opened:
        if setup.provider == "cuda":
            raise EngineError(f"{path}: no kernel image")
        return real(path, setup, *rest)

    monkeypatch.setattr(
        engine, "missing", lambda name, *_: "no TensorRT" if name[0] == "t" else None
    )
    monkeypatch.setattr(Engine, "_limit", lambda self: self.batch_size)
    monkeypatch.setattr(opening, "open_session", no_cuda)
    assert Engine(artifact).provider == "cpu"
    with pytest.raises(EngineError, match=r"model\.onnx: cannot be run: cuda: no kernel image$"):
        Engine(artifact, "cuda")


def test_any_number_of_images_in_batches_of_the_engine(artifact: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), np.uint8)
    small, large = Engine(artifact, "cpu", batch_size=4), Engine(artifact, "cpu", batch_size=64)
    assert len(small.run(images[:0])["embedding"]) == 0
    for name, values in small.run(images).items():
        np.testing.assert_allclose(values, large.run(images)[name], rtol=1e-4, atol=1e-5)


def test_what_is_computed_does_not_depend_on_the_threads(artifact: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    one, four = (Engine(artifact, "cpu", threads, 8).run(images) for threads in (1, 4))
    assert all(np.array_equal(one[name], four[name]) for name in one)


def test_a_closed_engine_says_so(artifact: Path) -> None:
    made = Engine(artifact, "cpu")
    made.close()
    with pytest.raises(EngineError, match="closed"):
        made.run(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_provider_that_is_not_here_is_refused_and_not_replaced(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="cuda: is not in the installed onnxruntime"):
        Engine(artifact, "cuda")
    assert Engine(artifact, "auto").provider == "cpu"


def test_an_unknown_provider_names_the_known(artifact: Path) -> None:
    with pytest.raises(EngineError, match="'gpu': choose one of auto, tensorrt, cuda, cpu"):
        Engine(artifact, "gpu")


def test_no_artifact_no_engine(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        Engine(tmp_path / "model.onnx")


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers()
    or missing("cuda", ort.get_available_providers()) is not None,
    reason="needs an NVIDIA GPU and the CUDA provider",
)
def test_cuda_scores_as_the_cpu_does(artifact: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    on_gpu, on_cpu = (Engine(artifact, name).run(images)["loss"] for name in ("cuda", "cpu"))
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-2)
