"""The provider that runs; on a fake GPU, failures are reported and counted, and never hidden."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.engine import engine as engine_module
from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import DeviceLostError, EngineError, ModelFileError
from lloss.manifest import read_manifest
from lloss.pools import ArrayPool
from lloss.runtime import cuda_driver, int8_support, tf32
from lloss.runtime.providers import SessionSetup, open_session

from ..fakes import FakeGpuSession, pictures


class Machine:
    """Two GPUs on which CUDA runs."""

    def __init__(self) -> None:
        self.problem: EngineError | None = None  # of CUDA
        self.memory: int | None = None  # images that it holds
        self.setups: list[SessionSetup] = []
        self.sessions: list[FakeGpuSession] = []

    def why_unavailable(self, name: str, device_id: int = 0) -> str:
        return "no TensorRT" if name == "tensorrt" else ""

    def open_session(self, path: Path, setup: SessionSetup, sha256: str) -> Any:
        session = open_session(path, replace(setup, provider="cpu"), sha256)
        if setup.provider == "cpu":
            return session
        if self.problem:
            raise self.problem
        self.setups.append(setup)
        self.sessions.append(FakeGpuSession(session))
        self.sessions[-1].most = self.memory
        return self.sessions[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(cuda_driver, "check_gpu", lambda number: None)
    monkeypatch.setattr(engine_module, "why_unavailable", made.why_unavailable)
    monkeypatch.setattr(engine_module, "open_session", made.open_session)
    monkeypatch.setenv(tf32.VARIABLE, "0")
    return made


@pytest.fixture
def claiming(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the exported model's manifest have some other fields."""

    def claim(**fields: Any) -> None:
        manifest = replace(read_manifest(onnx_file), **fields)
        monkeypatch.setattr(engine_module, "read_manifest", lambda path: manifest)

    return claim


def assert_scores_as_the_cpu(engine: Engine, onnx_file: Path) -> None:
    images = pictures(40)
    wanted = Engine(onnx_file, "cpu").run(images)
    for name, values in engine.run(images).items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_gpu_is_chosen_by_its_number(machine: Machine, onnx_file: Path) -> None:
    engine = Engine(onnx_file, "cuda:1")
    assert (engine.provider, engine.device, engine.device_id) == ("cuda", "cuda:1", 1)
    assert machine.setups[0].device_id == 1
    assert_scores_as_the_cpu(engine, onnx_file)
    chosen = Engine(onnx_file, "auto")
    assert chosen.device == "cuda:0" and chosen.note == "tensorrt: no TensorRT"
    with Scorer(onnx_file, "cuda:1") as scorer:
        named = {"device": "cuda:1", "provider": "cuda", "precision": "fp32"}
        labels = {**named, "sha256": scorer.engine.sha256}
        assert scorer.telemetry.registry.get_sample_value("lloss_model_info", labels) == 1


def test_a_provider_that_fails_is_skipped_by_auto_and_refused_by_name(
    machine: Machine, onnx_file: Path
) -> None:
    machine.problem = EngineError(f"{onnx_file}: no kernel image")
    chosen = Engine(onnx_file)
    assert chosen.provider == "cpu" and chosen.note.endswith("cuda: no kernel image")
    with pytest.raises(EngineError, match=r"model\.onnx: cannot be run: cuda: no kernel image$"):
        Engine(onnx_file, "cuda")


def test_a_full_gpu_is_used_in_smaller_runs(
    machine: Machine, onnx_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.memory = 20
    with caplog.at_level(logging.WARNING), Scorer(onnx_file, "auto", batch_size=100) as scorer:
        assert scorer.engine.device == "cuda:0", "not replaced by the CPU"
        assert scorer.batch_size == 100, "a run can be resumed, however much is free then"
        assert_scores_as_the_cpu(scorer.engine, onnx_file)
        count = scorer.telemetry.registry.get_sample_value("lloss_batch_halvings_total")
    assert count == 3 == len(caplog.messages)
    assert caplog.messages[0] == (
        "cuda:0 has too little memory for runs of 100 images: runs of 64 at most"
    )


def test_a_run_whose_gpu_is_lost_stops_and_keeps_its_parts(
    machine: Machine, onnx_file: Path, tmp_path: Path
) -> None:
    with Scorer(onnx_file, "auto", batch_size=8) as scorer:
        (session,) = machine.sessions
        enough, lost = len(session.sizes) + 4, RuntimeError("CUDA failure 719: launch failure")
        session.before = lambda: len(session.sizes) >= enough and session.errors.append(lost)
        pool = ArrayPool(pictures(64), "made up")
        with pytest.raises(DeviceLostError, match=r"^cuda:0 was lost \("):
            score_pool(scorer, pool, tmp_path / "scores", part_size=8)
        assert "cuda:0 was lost" in scorer.engine.failure()
    run = json.loads((tmp_path / "scores" / "run.json").read_text())
    assert (run["state"], run["provider"], run["tf32"]) == ("running", "cuda", "off")


def test_batches_and_threads_change_no_output(onnx_file: Path) -> None:
    images = pictures(23)
    small, large = Engine(onnx_file, "cpu", batch_size=4), Engine(onnx_file, "cpu", batch_size=64)
    threads = Engine(onnx_file, "cpu", threads=4, batch_size=4)
    outputs = small.run(images)
    assert outputs["loss"].shape == (23,) and outputs["embedding"].shape == (23, 128)
    assert small.run(images[:0])["embedding"].shape == (0, 128)
    assert list(outputs) == list(small.manifest.outputs)
    for name, values in outputs.items():
        np.testing.assert_allclose(values, large.run(images)[name], rtol=1e-4, atol=1e-5)
        assert np.array_equal(values, threads.run(images)[name])


def test_wrong_engines_are_refused(
    onnx_file: Path, tmp_path: Path, claiming: Callable[..., None]
) -> None:
    with pytest.raises(EngineError, match="'gpu': choose one of auto, tensorrt, cuda, cpu"):
        Engine(onnx_file, "gpu")
    with pytest.raises(EngineError, match="no memory for 2 batches of 999999999999 images"):
        Engine(onnx_file, "cpu", threads=2, batch_size=999999999999)
    with pytest.raises(ModelFileError, match="no such file"):
        Engine(tmp_path / "model.onnx")
    engine = Engine(onnx_file, "cpu")
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(pictures(1))
    claiming(precision="int8")
    with pytest.raises(EngineError, match="int8 is for CPUs; for TensorRT export with .* fp16"):
        Engine(onnx_file, "tensorrt")


def test_a_fidelity_measured_on_the_cpu_is_noted_on_a_gpu(
    machine: Machine, onnx_file: Path, claiming: Callable[..., None]
) -> None:
    claiming(precision="fp16", fidelity={"fp32": {"spearman": 0.9995}})
    assert Engine(onnx_file, "cuda", batch_size=8).note == (
        "the fidelity of fp16 (Spearman 0.99950) was measured on cpu, not on cuda"
    )
    assert Engine(onnx_file, "cpu").note.startswith("a CPU computes fp16 slower")


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
def test_an_int8_model_on_a_lesser_cpu_is_exact_and_says_so(
    precision: str,
    recipe: dict[str, object],
    saturates: bool,
    warned: bool,
    onnx_file: Path,
    claiming: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (engine_module, int8_support):
        monkeypatch.setattr(module, "saturates", lambda: saturates)
    claiming(precision=precision, recipe=recipe)
    engine = Engine(onnx_file, "cpu")
    assert ("made for CPUs with VNNI" in engine.note and "--reduce-range" in engine.note) is warned
    options = engine.executor._session.get_session_options()
    with nullcontext() if warned else pytest.raises(RuntimeError, match="not have configuration"):
        assert options.get_session_config_entry("session.x64quantprecision") == "1"


def test_without_onnxruntime_the_error_names_both_extras(onnx_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from lloss.cli.main import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "score", str(onnx_file), str(tmp_path), "-o", "s"]
    (tmp_path / "a.png").touch()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "lloss: running a model needs the package 'onnxruntime', which is not installed: "
        "pip install 'lloss[cpu]', or 'lloss[gpu]' for an NVIDIA GPU\n"
    )
