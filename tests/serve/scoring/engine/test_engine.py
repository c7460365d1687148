"""The provider that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from lloss.serve.scoring.engine import engine as engine_module
from lloss.serve.scoring.engine.cpu_executor import single_thread_options
from lloss.serve.scoring.engine.engine import Engine, _cpu_note
from lloss.serve.scoring.engine.gpu_startup import open_gpu

from lloss.errors import ArtifactError, EngineError
from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest
from lloss.runtime import int8_support

from ..fakes import pictures


def test_a_provider_that_fails_is_skipped_by_auto_and_refused_by_name(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_cuda(path: Path, *_: object, **__: object) -> None:
        raise EngineError(f"{path}: no kernel image")

    def why_unavailable(name: str, *_: object) -> str:
        return "no TensorRT" if name == "tensorrt" else ""

    monkeypatch.setattr(engine_module, "why_unavailable", why_unavailable)
    monkeypatch.setattr(engine_module, open_gpu.__name__, no_cuda)
    assert Engine(artifact).provider == "cpu"
    with pytest.raises(EngineError, match=r"model\.onnx: cannot be run: cuda: no kernel image$"):
        Engine(artifact, "cuda")


def test_a_provider_that_is_not_installed_is_refused_and_not_replaced(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="cuda: is not in the installed onnxruntime"):
        Engine(artifact, "cuda")
    assert Engine(artifact, "auto").provider == "cpu"


def test_batches_and_threads_change_no_output(artifact: Path) -> None:
    images = pictures(23)
    small, large = Engine(artifact, "cpu", batch_size=4), Engine(artifact, "cpu", batch_size=64)
    threads = Engine(artifact, "cpu", threads=4, batch_size=4)
    outputs = small.run(images)
    assert outputs["loss"].shape == (23,) and outputs["embedding"].shape == (23, 128)
    assert small.run(images[:0])["embedding"].shape == (0, 128)
    assert list(outputs) == list(small.manifest.outputs)
    for name, values in outputs.items():
        np.testing.assert_allclose(values, large.run(images)[name], rtol=1e-4, atol=1e-5)
        assert np.array_equal(values, threads.run(images)[name])


def test_wrong_engines_are_refused(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="'gpu': choose one of auto, tensorrt, cuda, cpu"):
        Engine(artifact, "gpu")
    with pytest.raises(ArtifactError, match="no such file"):
        Engine(tmp_path / "model.onnx")
    engine = Engine(artifact, "cpu")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(pictures(1))


def manifest(precision: str, recipe: dict[str, object]) -> Manifest:
    return Manifest(
        task="classification", model="m", classes=("a", "b"), image=ImageSpec(8, 8),
        mean=(0, 0, 0), std=(1, 1, 1), outputs={"loss": ()}, precision=precision, recipe=recipe,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "recipe", "saturates", "warned"),
    [
        ("int8", {"weight_bits": 8}, True, True),
        ("int8", {}, True, True),  # unknown
        ("int8", {"weight_bits": 7}, True, False),
        ("int8", {"weight_bits": 8}, False, False),
        ("fp32", {}, True, False),
    ],
)
def test_an_int8_artifact_on_a_lesser_cpu_is_exact_and_says_so(
    precision: str,
    recipe: dict[str, object],
    saturates: bool,
    warned: bool,
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (engine_module, int8_support):
        monkeypatch.setattr(module, "saturates", lambda: saturates)
    made = manifest(precision, recipe)
    note, options = _cpu_note(made), single_thread_options(made)
    assert ("made for CPUs with VNNI" in note and "--reduce-range" in note) is warned
    exact = "session.x64quantprecision"
    if warned:
        assert options.get_session_config_entry(exact) == "1"
        monkeypatch.setattr(engine_module, "_cpu_note", lambda _: note)
        assert Engine(artifact, "cpu").note == note
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(exact)


def test_without_onnxruntime_the_error_names_both_extras(artifact: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from lloss.cli.main import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "score", str(artifact), str(tmp_path), "-o", "s"]
    (tmp_path / "a.png").touch()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "lloss: running a model needs the package 'onnxruntime', which is not installed: "
        "pip install 'lloss[cpu]', or 'lloss[gpu]' for an NVIDIA GPU\n"
    )
