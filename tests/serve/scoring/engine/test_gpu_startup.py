"""An engine on a fake GPU: failures are retried, reported and counted, and never hidden."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.engine import engine as engine_module
from lloss.serve.scoring.engine import gpu_executor, gpu_startup
from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.scorer import Scorer

from lloss.errors import DeviceLostError, EngineError
from lloss.manifest import Manifest, read_manifest
from lloss.pools import ArrayPool
from lloss.runtime import cuda_driver, tf32
from lloss.runtime.providers import Opened, SessionSetup, open_session

from ..fakes import FakeGpu, GraphSession, Spy, fake_library, pictures


class Machine:
    """Two GPUs on which CUDA runs; ``make`` gives the next session."""

    def __init__(self, library: Any, manifest: Manifest) -> None:
        self.library, self.manifest = library, manifest
        self.driver = cuda_driver.Driver(library)
        self.make: Callable[[Any], Spy] = Spy
        self.setups: list[SessionSetup] = []
        self.sessions: list[weakref.ref[Spy]] = []
        self.alive: list[int] = []  # sessions, whenever another one is opened
        self.memories: list[FakeGpu] = []
        self.engines: list[Engine] = []

    def engine(self, *given: Any, **named: Any) -> Engine:
        """An engine that is closed with the machine."""
        self.engines.append(Engine(*given, **named))
        return self.engines[-1]

    def with_memory_for(self, images: int) -> None:
        def small(session: Any) -> Spy:
            spy = Spy(session)
            spy.most = images
            return spy

        self.make = small

    def why_unavailable(self, name: str, device_id: int = 0) -> str:
        if name == "tensorrt":
            return "no TensorRT"
        if name == "cuda":
            try:
                self.driver.check(device_id)
            except EngineError as error:
                return str(error)
        return ""

    def open_session(
        self, path: Path, setup: SessionSetup, sha256: str, options: Any = None
    ) -> Opened:
        self.alive.append(sum(1 for ref in self.sessions if ref() is not None))
        real = open_session(path, SessionSetup(self.manifest, "cpu", 1), sha256, options)
        if setup.provider == "cpu":
            return real
        self.setups.append(setup)
        session = self.make(real.session) if setup.graphs else Spy(real.session)
        self.sessions.append(weakref.ref(session))
        return Opened(session)

    def memory(self, device_id: int) -> FakeGpu:
        self.memories.append(FakeGpu(device_id, self.driver))
        return self.memories[-1]


@pytest.fixture
def machine(fake_cuda: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    library = fake_library(fake_cuda, gpus=2)
    made = Machine(library, read_manifest(artifact))
    monkeypatch.setattr(cuda_driver, "driver", lambda: made.driver)
    monkeypatch.setattr(engine_module, "why_unavailable", made.why_unavailable)
    for module in (engine_module, gpu_startup):
        monkeypatch.setattr(module, "open_session", made.open_session)
    monkeypatch.setattr(gpu_executor, "CudaMemory", made.memory)
    monkeypatch.setenv(tf32.VARIABLE, "0")
    yield made
    library.fake_broken(0)
    for engine in made.engines:
        engine.close()
    made.engines.clear()
    gc.collect()
    library.fake_gpus(1)


def assert_scores_as_the_cpu(engine: Engine, artifact: Path) -> None:
    images = pictures(40)
    wanted = Engine(artifact, "cpu").run(images)
    for name, values in engine.run(images).items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_gpu_is_chosen_by_its_number(machine: Machine, artifact: Path) -> None:
    engine = machine.engine(artifact, "cuda:1")
    assert (engine.provider, engine.device, engine.device_id) == ("cuda", "cuda:1", 1)
    assert machine.setups[0].device_id == 1 and machine.memories[0].device_id == 1
    assert_scores_as_the_cpu(engine, artifact)
    assert machine.engine(artifact, "auto").device == "cuda:0"
    with pytest.raises(EngineError, match="cuda: GPU 2: this machine shows 2, counted from 0"):
        Engine(artifact, "cuda:2")
    with Scorer(artifact, "cuda:1") as scorer:
        named = {"device": "cuda:1", "provider": "cuda", "precision": "fp32"}
        labels = {**named, "sha256": scorer.engine.sha256}
        assert scorer.telemetry.registry.get_sample_value("lloss_model_info", labels) == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("capture", "operation not permitted when stream is capturing"),
        ("replay", "the replay of a batch of 256 gives another"),
    ],
)
def test_after_a_failed_capture_a_new_session_runs_without_graphs(
    machine: Machine, artifact: Path, broken: str, reason: str
) -> None:
    machine.make = lambda session: GraphSession(session, broken=broken)
    engine = machine.engine(artifact, "cuda")
    assert [setup.graphs for setup in machine.setups] == [True, False]
    assert machine.alive == [0, 0], "the failed session is gone before the next one is opened"
    assert not engine.executor.graphs  # type: ignore[union-attr]
    assert f"no CUDA graphs: {reason}" in engine.note
    assert_scores_as_the_cpu(engine, artifact)


def test_a_full_gpu_is_used_in_smaller_runs(
    machine: Machine, artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.with_memory_for(20)
    with caplog.at_level(logging.WARNING), Scorer(artifact, "auto", batch_size=100) as scorer:
        assert scorer.engine.device == "cuda:0", "not replaced by the CPU"
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
    machine.with_memory_for(0)
    with pytest.raises(EngineError, match="cuda: failed on cuda:0: .*Failed to allocate memory"):
        Engine(artifact, "cuda", batch_size=2)


def test_free_memory_limits_a_run(machine: Machine, artifact: Path) -> None:
    image = 8 * 8 * 2048  # bytes of the estimate for one
    machine.library.fake_free(ctypes.c_size_t(2 * image * 50))
    engine = machine.engine(artifact, "cuda")
    assert engine.batch_size == 256 and engine.executor.limit == 32  # type: ignore[union-attr]
    assert engine.note == "runs of 32 images: 0.0 GiB are free on cuda:0"
    assert_scores_as_the_cpu(engine, artifact)
    asked = machine.engine(artifact, "cuda", batch_size=64)
    assert asked.executor.limit == 64 and not asked.note  # type: ignore[union-attr]


def test_a_run_whose_gpu_is_lost_stops_and_keeps_its_parts(
    machine: Machine, artifact: Path, tmp_path: Path
) -> None:
    sessions: list[Spy] = []
    machine.make = lambda session: sessions.append(Spy(session)) or sessions[-1]  # type: ignore[func-returns-value]
    with Scorer(artifact, "auto", batch_size=8) as scorer:
        (spy,) = sessions
        warm = len(spy.sizes)
        spy.before = lambda: len(spy.sizes) - warm < 4 or machine.library.fake_broken(719)
        pool = ArrayPool(pictures(64), "made up")
        with pytest.raises(DeviceLostError, match=r"^cuda:0 was lost \("):
            score_pool(scorer, pool, tmp_path / "scores", part_size=8)
        assert "cuda:0 was lost" in scorer.engine.failure()
        with pytest.raises(DeviceLostError):
            scorer.score(pictures(2))
    run = json.loads((tmp_path / "scores" / "run.json").read_text())
    assert (run["state"], run["provider"], run["tf32"]) == ("running", "cuda", "off")


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
    fidelity = {"fp32": measured} if measured else {}
    manifest = replace(machine.manifest, precision="fp16", fidelity=fidelity)
    monkeypatch.setattr(engine_module, "read_manifest", lambda path: manifest)
    found = machine.engine(artifact, provider, batch_size=8).note
    assert note in found if provider == "cpu" else found == note
