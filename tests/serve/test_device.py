"""The executor: every lane gets its own results, whatever the counts, the order and the errors."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from lloss.serve.device import DeviceExecutor
from lloss.serve.memory import CudaMemory

from lloss.artifact import Manifest, read_manifest
from lloss.errors import EngineError
from lloss.files import sha256_of
from lloss.runtime.cuda import Driver
from lloss.runtime.providers import Opened, missing, open_session, setup_of

BATCH = 32


@pytest.fixture(scope="module")
def manifest(artifact: Path) -> Manifest:
    return read_manifest(artifact)


@pytest.fixture(scope="module")
def session(artifact: Path, manifest: Manifest) -> Any:
    return open_session(artifact, setup_of(manifest, "cpu", BATCH), sha256_of(artifact)).session


@pytest.fixture
def executor(session: Any, manifest: Manifest) -> Iterator[DeviceExecutor]:
    with DeviceExecutor(session, manifest, BATCH, device="cpu") as made:
        yield made


class FakeGpu(CudaMemory):
    """Memory of the fake driver, which a session on the CPU can address."""

    name = "cpu"


@pytest.fixture
def gpu(fake_cuda: Path) -> FakeGpu:
    library = ctypes.CDLL(str(fake_cuda))
    library.fake_gpus(1)
    return FakeGpu(0, Driver(library))


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def expected(session: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images})))


def scored(executor: DeviceExecutor, images: np.ndarray) -> dict[str, np.ndarray]:
    buffer = executor.buffer()
    try:
        buffer.pixels[: len(images)] = images
        return executor.run(buffer, len(images))
    finally:
        executor.release(buffer)


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 31, 32])
def test_every_count_gives_its_rows_and_no_more(
    executor: DeviceExecutor, session: Any, count: int
) -> None:
    images = pictures(count, seed=count)
    found = scored(executor, images)
    assert_same(found, expected(session, images))
    assert found["embedding"].shape == (count, 128)


def test_only_buckets_are_run(session: Any, manifest: Manifest) -> None:
    spy = Spy(session)
    with DeviceExecutor(spy, manifest, BATCH, device="cpu") as executor:
        assert executor.buckets == (1, 2, 8, 32) == tuple(spy.sizes)
        for count in range(1, BATCH + 1):
            scored(executor, pictures(count))
    assert set(spy.sizes) == {1, 2, 8, 32}
    assert len(spy.threads) == 1, "the runtime is called in one thread only"


def test_outputs_stay_when_the_buffer_goes_on(executor: DeviceExecutor, session: Any) -> None:
    first, second = pictures(BATCH, 1), pictures(BATCH, 2)
    kept = scored(executor, first)
    for _ in range(4):  # more than there are buffers
        scored(executor, second)
    executor.close()
    assert_same(kept, expected(session, first))


@pytest.mark.parametrize("device", ["cpu", "fake gpu"])
def test_lanes_get_their_own_results(
    device: str, session: Any, manifest: Manifest, request: pytest.FixtureRequest
) -> None:
    memory = request.getfixturevalue("gpu") if device == "fake gpu" else None
    jobs = [pictures(1 + (seed * 7) % BATCH, seed) for seed in range(120)]
    with (
        DeviceExecutor(session, manifest, BATCH, device="cpu", memory=memory) as executor,
        ThreadPoolExecutor(6) as lanes,
    ):
        results = list(lanes.map(lambda images: scored(executor, images), jobs))
    for images, found in zip(jobs, results):
        assert_same(found, expected(session, images))


def test_nothing_of_the_gpu_is_left(session: Any, manifest: Manifest, gpu: FakeGpu) -> None:
    library = gpu._driver._library
    before = library.fake_live()
    executor = DeviceExecutor(session, manifest, BATCH, device="cpu", memory=gpu)
    assert library.fake_live() == before + 3 * 5  # two blocks on each side, and a stream
    scored(executor, pictures(5))
    executor.close()
    del executor
    assert library.fake_live() == before


def test_a_buffer_is_waited_for(executor: DeviceExecutor) -> None:
    held = [executor.buffer() for _ in range(3)]
    assert len({buffer.number for buffer in held}) == 3
    got = threading.Event()
    waiting = threading.Thread(target=lambda: (executor.buffer(), got.set()))
    waiting.start()
    assert not got.wait(0.1)
    executor.release(held[1])
    executor.release(held[1])  # twice is once
    assert got.wait(5)
    waiting.join()


def test_closing_frees_those_who_wait_and_refuses_the_rest(executor: DeviceExecutor) -> None:
    held = [executor.buffer() for _ in range(3)]
    errors: list[Exception] = []

    def wait() -> None:
        try:
            executor.buffer()
        except EngineError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    executor.close()
    executor.close()
    waiting.join(5)
    assert [str(error) for error in errors] == ["the executor was closed"]
    with pytest.raises(EngineError, match="closed"):
        executor.run(held[0], 1)
    held[0].pixels[:] = 1  # host memory is still the lane's
    executor.release(held[0])


def test_closing_waits_for_the_batch_that_runs(session: Any, manifest: Manifest) -> None:
    spy = Spy(session)
    executor = DeviceExecutor(spy, manifest, BATCH, device="cpu")
    spy.gate, spy.entered = threading.Event(), threading.Event()
    images = pictures(4)
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(scored, executor, images)
        assert spy.entered.wait(5)
        closing = pool.submit(executor.close)
        spy.gate.set()
        closing.result(5)
        assert_same(running.result(5), expected(session, images))


def test_errors_of_the_session_reach_the_lane_in_one_line(session: Any, manifest: Manifest) -> None:
    spy = Spy(session)
    with DeviceExecutor(spy, manifest, BATCH, device="cpu") as executor:
        spy.fail = RuntimeError("out of something\n  at kernel.cc:1")
        with pytest.raises(EngineError, match="^failed on cpu: out of something$"):
            scored(executor, pictures(3))
        spy.fail = None
        images = pictures(3)
        assert_same(scored(executor, images), expected(session, images))


def test_a_session_that_fails_at_once_is_told_at_construction(
    session: Any, manifest: Manifest
) -> None:
    spy = Spy(session)
    spy.fail = RuntimeError("no kernel image")
    with pytest.raises(EngineError, match="failed on cpu: no kernel image"):
        DeviceExecutor(spy, manifest, BATCH, device="cpu")


def test_wrong_calls_are_refused(executor: DeviceExecutor, session: Any, manifest: Any) -> None:
    buffer = executor.buffer()
    for count in (0, BATCH + 1):
        with pytest.raises(EngineError, match=f"{count} images in a batch: give 1 to 32"):
            executor.run(buffer, count)
    executor.release(buffer)
    with pytest.raises(EngineError, match="was given back"):
        executor.run(buffer, 1)
    with pytest.raises(EngineError, match="batch size 0"):
        DeviceExecutor(session, manifest, 0, device="cpu")
    with pytest.raises(EngineError, match="device 'tpu': choose cuda or cpu"):
        DeviceExecutor(session, manifest, 1, device="tpu")


def test_graphs_are_captured_per_buffer_and_bucket(session: Any, manifest: Manifest) -> None:
    graphs = GraphSession(session)
    with DeviceExecutor(graphs, manifest, BATCH, device="cpu") as executor:
        assert executor.graphs and not executor.note
        assert sorted(graphs.captured) == list(range(1, 3 * 4 + 1))
        before = graphs.plain
        for seed in range(9):
            images = pictures(1 + seed * 3, seed)
            assert_same(scored(executor, images), expected(session, images))
        assert graphs.plain == before, "after the warm-up there are replays only"


def test_a_graph_that_cannot_be_captured_is_done_without(session: Any, manifest: Manifest) -> None:
    graphs = GraphSession(session, broken="capture")
    with DeviceExecutor(graphs, manifest, BATCH, device="cpu") as executor:
        assert not executor.graphs
        assert executor.note == "no CUDA graphs: operation not permitted when stream is capturing"
        images = pictures(9)
        assert_same(scored(executor, images), expected(session, images))


def test_a_replay_that_is_wrong_is_found_out(session: Any, manifest: Manifest) -> None:
    graphs = GraphSession(session, broken="replay")
    with DeviceExecutor(graphs, manifest, BATCH, device="cpu") as executor:
        assert not executor.graphs
        assert "the replay of a batch of 1 gives another" in executor.note
        images = pictures(9)
        assert_same(scored(executor, images), expected(session, images))


def _on_gpu(artifact: Path, batch: int) -> Opened:
    problem = missing("cuda", ort.get_available_providers())
    if problem:
        pytest.skip(f"needs an NVIDIA GPU: cuda {problem}")
    made = setup_of(read_manifest(artifact), "cuda", batch)
    return open_session(artifact, made, sha256_of(artifact))


def test_a_gpu_scores_as_the_cpu_does(artifact: Path, manifest: Manifest, session: Any) -> None:
    opened = _on_gpu(artifact, BATCH)
    jobs = [pictures(1 + (seed * 7) % BATCH, seed) for seed in range(60)]
    with (
        DeviceExecutor(opened.session, manifest, BATCH) as executor,
        ThreadPoolExecutor(4) as lanes,
    ):
        results = list(lanes.map(lambda images: scored(executor, images), jobs))
    for images, found in zip(jobs, results):
        wanted = expected(session, images)
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-3, atol=1e-3)


class Spy:
    """A session that notes what it is asked, and fails or waits on demand."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.fail: Exception | None = None
        self.gate = self.entered = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.threads.add(threading.get_ident())
        if self.entered is not None:
            self.entered.set()
            self.gate.wait(5)
        if self.fail is not None:
            raise self.fail
        self._session.run_with_iobinding(binding, options)
        self.sizes.append(binding.get_outputs()[0].shape()[0])


class GraphSession(Spy):
    """A session that behaves as one with CUDA graphs: captures by id, then replays the binding."""

    def __init__(self, session: Any, broken: str = "") -> None:
        super().__init__(session)
        self.broken = broken
        self.captured: dict[int, Any] = {}
        self.plain = 0

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        id = int(options.get_run_config_entry("gpu_graph_id"))
        if id < 0:
            self.plain += 1
        elif self.broken == "capture":
            raise RuntimeError("operation not permitted when stream is capturing\nat cuda.cc:3")
        elif id in self.captured:
            assert self.captured[id] is binding, "a graph has the addresses it was captured with"
            if self.broken == "replay":
                return  # the outputs of before stay
        else:
            self.captured[id] = binding
        super().run_with_iobinding(binding, options)
