"""An engine on a GPU that is made up: what fails is made again, told, counted, never replaced."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.engine import gpu_executor as device
from lloss.serve.scoring.engine import gpu_startup as opening
from lloss.serve.scoring.engine import session as engine
from lloss.serve.scoring.engine.session import Engine
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import DeviceLostError, EngineError
from lloss.manifest import Manifest
from lloss.pools import ArrayPool
from lloss.runtime import cuda_driver as cuda
from lloss.runtime import tf32
from lloss.runtime.providers import Opened, Setup, setup_of

from ..fakes import FakeGpu, GraphSession, Spy


class Machine:
    """Two GPUs, of which CUDA runs; ``make`` gives the session that is opened next."""

    def __init__(self, driver: cuda.Driver, library: Any) -> None:
        self.driver, self.library = driver, library
        self.make: Callable[[Any], Spy] = lambda real: Spy(real, "CUDAExecutionProvider")
        self.setups: list[Setup] = []
        self.sessions: list[weakref.ref[Spy]] = []
        self.alive: list[int] = []
        self.memories: list[FakeGpu] = []
        self.engines: list[Engine] = []

    def engine(self, *given: Any, **named: Any) -> Engine:
        """One that is closed with the machine."""
        self.engines.append(Engine(*given, **named))
        return self.engines[-1]

    def missing(self, name: str, available: Any, device_id: int = 0) -> str | None:
        if name == "tensorrt":
            return "no TensorRT"
        if name == "cuda":
            try:
                self.driver.check(device_id)
            except EngineError as error:
                return str(error)
        return None

    def open_session(self, path: Path, setup: Setup, sha256: str, options: Any = None) -> Opened:
        self.alive.append(sum(1 for ref in self.sessions if ref() is not None))
        real = self.real(path, setup_of(self.manifest, "cpu", 1), sha256, options)
        if setup.provider == "cpu":
            return real
        self.setups.append(setup)
        made = self.make(real.session)
        if not setup.graphs:
            made = Spy(real.session, "CUDAExecutionProvider")
        self.sessions.append(weakref.ref(made))
        return Opened(made, setup.provider, setup.graphs, {"cuda": 9})

    def memory(self, name: str, device_id: int) -> FakeGpu:
        self.memories.append(FakeGpu(device_id, self.driver))
        return self.memories[-1]


@pytest.fixture
def machine(fake_cuda: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    library = ctypes.CDLL(str(fake_cuda))
    library.fake_gpus(2)
    library.fake_free(ctypes.c_size_t(8 << 30))
    made = Machine(cuda.Driver(library), library)
    made.real, made.manifest = opening.open_session, engine.read_manifest(artifact)
    monkeypatch.setattr(cuda, "driver", lambda: made.driver)
    monkeypatch.setattr(engine, "missing", made.missing)
    monkeypatch.setattr(engine, "open_session", made.open_session)
    monkeypatch.setattr(opening, "open_session", made.open_session)
    monkeypatch.setattr(device, "_memory", made.memory)
    monkeypatch.setenv(tf32.VARIABLE, "0")
    yield made
    library.fake_broken(0)
    for each in made.engines:
        each.close()
    made.engines.clear()
    gc.collect()
    library.fake_gpus(1)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)


def assert_scores_as_the_cpu(made: Engine, artifact: Path) -> None:
    images = pictures(40)
    wanted = Engine(artifact, "cpu").run(images)
    for name, values in made.run(images).items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_gpu_is_chosen_by_its_number(machine: Machine, artifact: Path) -> None:
    made = machine.engine(artifact, "cuda:1")
    assert (made.provider, made.device, made.device_id) == ("cuda", "cuda:1", 1)
    assert machine.setups[0].device_id == 1 and machine.memories[0].device_id == 1
    assert_scores_as_the_cpu(made, artifact)
    made.close()
    assert machine.engine(artifact, "auto").device == "cuda:0"
    with pytest.raises(EngineError, match="cuda: GPU 2: this machine shows 2, counted from 0"):
        Engine(artifact, "cuda:2")
    with Scorer(artifact, "cuda:1") as scorer:
        named = {"device": "cuda:1", "provider": "cuda", "precision": "fp32"}
        labels = {**named, "sha256": scorer.engine.sha256}
        assert scorer.telemetry.registry.get_sample_value("lloss_model_info", labels) == 1


@pytest.mark.parametrize("broken", ["capture", "replay"])
def test_after_a_failed_capture_a_new_session_goes_on_without_graphs(
    machine: Machine, artifact: Path, broken: str
) -> None:
    machine.make = lambda real: GraphSession(real, broken=broken)
    made = machine.engine(artifact, "cuda")
    assert [setup.graphs for setup in machine.setups] == [True, False]
    assert machine.alive == [0, 0], "the one that failed is gone before the next is made"
    assert not made.executor.graphs and "no CUDA graphs: " in made.note
    assert ("when stream is capturing" in made.note) == (broken == "capture")
    assert_scores_as_the_cpu(made, artifact)


def test_a_gpu_that_is_full_is_used_in_smaller_runs_and_not_replaced_by_the_cpu(
    machine: Machine, artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def small(real: Any) -> Spy:
        spy = Spy(real, "CUDAExecutionProvider")
        spy.most = 20
        return spy

    machine.make = small
    with caplog.at_level(logging.WARNING), Scorer(artifact, "auto", batch_size=100) as scorer:
        assert scorer.engine.device == "cuda:0"
        assert scorer.batch_size == 100, "a run can be resumed, however much is free then"
        assert [setup.batch_size for setup in machine.setups] == [100, 64, 32, 16]
        assert set(machine.alive) == {0}
        assert_scores_as_the_cpu(scorer.engine, artifact)
        count = scorer.telemetry.registry.get_sample_value("lloss_batch_halvings_total")
    assert count == 3 == len(caplog.messages)
    assert caplog.messages[0] == (
        "cuda:0 has too little memory for runs of 100 images: runs of 64 at most"
    )


def test_a_gpu_without_memory_for_one_image_is_an_error(machine: Machine, artifact: Path) -> None:
    def none(real: Any) -> Spy:
        spy = Spy(real, "CUDAExecutionProvider")
        spy.most = 0
        return spy

    machine.make = none
    with pytest.raises(EngineError, match="cuda: failed on cuda:0: .*Failed to allocate memory"):
        Engine(artifact, "cuda")


def test_free_memory_decides_how_many_go_at_a_time(machine: Machine, artifact: Path) -> None:
    image = 8 * 8 * 2048  # bytes that are reckoned for one
    machine.library.fake_free(ctypes.c_size_t(2 * image * 50))
    made = machine.engine(artifact, "cuda")
    assert made.batch_size == 256 and made.executor.limit == 32
    assert made.note == "runs of 32 images: 0.0 GiB are free on cuda:0"
    assert_scores_as_the_cpu(made, artifact)
    asked = machine.engine(artifact, "cuda", batch_size=64)
    assert asked.executor.limit == 64 and not asked.note, "a number that was asked for is tried"


def test_a_run_whose_gpu_is_lost_stops_and_keeps_its_parts(
    machine: Machine, artifact: Path, tmp_path: Path
) -> None:
    pool = ArrayPool(pictures(64), "made up")
    sessions: list[Spy] = []

    def noted(real: Any) -> Spy:
        sessions.append(Spy(real, "CUDAExecutionProvider"))
        return sessions[-1]

    machine.make = noted
    with Scorer(artifact, "auto", batch_size=8) as scorer:
        spy = sessions[0]
        warm = len(spy.sizes)
        spy.before = lambda: len(spy.sizes) - warm < 4 or machine.library.fake_broken(719)
        with pytest.raises(DeviceLostError, match=r"^cuda:0 was lost \("):
            score_pool(scorer, pool, tmp_path / "scores", part_size=8)
        assert "cuda:0 was lost" in scorer.engine.trouble()
        with pytest.raises(DeviceLostError):
            scorer.score(pictures(2))
    run = json.loads((tmp_path / "scores" / "run.json").read_text())
    assert run["state"] == "running"
    assert (run["provider"], run["tf32"]) == ("cuda", "off")


@pytest.mark.parametrize(
    ("measured", "provider", "note"),
    [
        ({"spearman": 0.9995}, "cuda", "the fidelity of fp16 (Spearman 0.99950) was measured on cpu"
         ", not on cuda"),
        ({"spearman": 0.9995, "provider": "cuda"}, "cuda", ""),
        ({"spearman": 0.9995, "provider": "cuda"}, "cpu", "measured on cuda, not on cpu"),
        ({}, "cuda", ""),
    ],
)  # fmt: skip
def test_a_fidelity_of_another_provider_is_noted(
    machine: Machine,
    artifact: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: dict[str, Any],
    provider: str,
    note: str,
) -> None:
    from dataclasses import replace

    def read(path: Path) -> Manifest:
        fidelity = {**machine.manifest.fidelity, **({"fp32": measured} if measured else {})}
        return replace(machine.manifest, precision="fp16", fidelity=fidelity)

    monkeypatch.setattr(engine, "read_manifest", read)
    found = machine.engine(artifact, provider).note
    assert note in found if provider == "cpu" else found == note
