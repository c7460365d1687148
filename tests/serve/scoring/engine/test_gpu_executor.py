"""The GPU executor: every thread gets its own results, whatever the counts and the errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.engine import gpu_executor
from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.engine.gpu_executor import GpuExecutor

from lloss.errors import DeviceLostError, DeviceMemoryError, EngineError
from lloss.manifest import read_manifest
from lloss.runtime import tf32
from lloss.runtime.providers import SessionSetup, open_session, why_unavailable

from ....waiting import PATIENCE
from ..fakes import FakeGpuSession, pictures

BATCH = 32
SIZES = [32, 16, 8, 4, 2, 1]


@pytest.fixture(scope="module")
def session(onnx_file: Path) -> Any:
    return open_session(onnx_file, SessionSetup(read_manifest(onnx_file), "cpu", BATCH), "")


@pytest.fixture
def gpu(session: Any) -> FakeGpuSession:
    return FakeGpuSession(session)


Make = Callable[..., GpuExecutor]


@pytest.fixture
def make(onnx_file: Path, gpu: FakeGpuSession) -> Iterator[Make]:
    made: list[GpuExecutor] = []

    def executor(**options: Any) -> GpuExecutor:
        made.append(GpuExecutor(gpu, read_manifest(onnx_file), BATCH, **options))
        return made[-1]

    yield executor
    for one in made:
        one.close()


@pytest.fixture
def executor(make: Make) -> GpuExecutor:
    return make()


def scored(executor: GpuExecutor, images: np.ndarray) -> dict[str, np.ndarray]:
    buffer = executor.buffer()
    try:
        buffer.pixels[: len(images)] = images
        return executor.run(buffer, len(images))
    finally:
        executor.release(buffer)


def assert_scores(executor: GpuExecutor, session: Any, images: np.ndarray) -> None:
    outputs, names = scored(executor, images), [output.name for output in session.get_outputs()]
    assert list(outputs) == names
    for name, wanted in zip(names, session.run(names, {"images": images})):
        assert outputs[name].dtype == np.float32 and outputs[name].shape == wanted.shape
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)


def test_every_count_gives_its_rows_in_a_padded_run(
    executor: GpuExecutor, session: Any, gpu: FakeGpuSession
) -> None:
    assert gpu.sizes == SIZES, "the largest first: its memory serves the others"
    for count in range(1, BATCH + 1):
        assert_scores(executor, session, pictures(count, count))
    assert set(gpu.sizes) == set(SIZES)


def test_threads_score_at_once_and_none_becomes_the_runtimes(
    executor: GpuExecutor, session: Any, gpu: FakeGpuSession
) -> None:
    """onnxruntime changes the current GPU of a thread that calls it."""
    jobs = [pictures(1 + seed % BATCH, seed) for seed in range(40)]
    callers: set[int] = set()

    def score(images: np.ndarray) -> None:
        callers.add(threading.get_ident())
        assert_scores(executor, session, images)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(score, jobs))
    assert len(gpu.threads) <= gpu_executor.RUNS and not gpu.threads & callers


def test_live_requests_have_buffers_of_their_own(executor: GpuExecutor) -> None:
    taken = [executor.buffer() for _ in range(gpu_executor.RUNS + 1)]
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(executor.buffer)
        executor.release(executor.buffer(urgent=True))
        assert not waiting.done()
        executor.release(taken[1])
        assert waiting.result(PATIENCE) is taken[1]


def test_closing_waits_for_the_running_batch_and_refuses_the_next(
    executor: GpuExecutor, session: Any, gpu: FakeGpuSession
) -> None:
    entered, opened = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert opened.wait(PATIENCE)

    gpu.before = wait
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(assert_scores, executor, session, pictures(4))
        assert entered.wait(PATIENCE)
        closing = pool.submit(executor.close)
        opened.set()
        closing.result(PATIENCE)
        running.result(PATIENCE)
    executor.close()
    with pytest.raises(EngineError, match="^the executor was closed$"):
        scored(executor, pictures(1))


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    make: Make, session: Any, gpu: FakeGpuSession
) -> None:
    halvings: list[tuple[int, int]] = []
    executor = make(on_halving=lambda *halving: halvings.append(halving))
    gpu.most, gpu.sizes = 10, []
    assert_scores(executor, session, pictures(27))
    assert gpu.sizes == [8, 8, 8, 4] and executor.limit == 8 and not executor.failure()
    assert halvings == [(27, 16), (16, 8)]
    scored(executor, pictures(27))
    assert gpu.sizes == [8, 8, 8, 4] * 2 and len(halvings) == 2, "the limit stays"
    gpu.most = 0
    with pytest.raises(DeviceMemoryError, match="Failed to allocate memory"):
        scored(executor, pictures(27))
    assert executor.limit == 1 and "Failed to allocate" in executor.failure()
    with pytest.raises(DeviceMemoryError):
        make()


def test_threads_that_run_out_of_memory_together_halve_once(
    make: Make, session: Any, gpu: FakeGpuSession
) -> None:
    halvings: list[tuple[int, int]] = []
    executor = make(on_halving=lambda *halving: halvings.append(halving))
    gpu.most, both = 16, threading.Barrier(2)
    first = threading.local()

    def together() -> None:
        if not getattr(first, "ran", False):
            first.ran = True
            both.wait(PATIENCE)

    gpu.before = together
    with ThreadPoolExecutor(2) as threads:
        jobs = [pictures(BATCH, seed) for seed in range(2)]
        list(threads.map(lambda images: assert_scores(executor, session, images), jobs))
    assert executor.limit == 16 and halvings == [(32, 16)]


def test_a_session_that_never_ran_has_lost_no_gpu(make: Make, gpu: FakeGpuSession) -> None:
    gpu.errors = [RuntimeError("no kernel image\nat cuda.cc")] * 9
    with pytest.raises(EngineError, match="^failed on cuda:0: no kernel image$"):
        make()


def test_nothing_runs_on_a_lost_gpu(executor: GpuExecutor, gpu: FakeGpuSession) -> None:
    assert not executor.failure()
    gpu.errors = [RuntimeError("CUDA failure 700: illegal memory access\nat cuda.cc")] * 2
    with pytest.raises(DeviceLostError) as raised:
        scored(executor, pictures(3))
    reason, runs = str(raised.value), len(gpu.sizes)
    assert reason.startswith("cuda:0 was lost (failed on cuda:0: CUDA failure 700: illegal memory")
    assert "\n" not in reason
    with pytest.raises(DeviceLostError):
        scored(executor, pictures(3))
    assert len(gpu.sizes) == runs and executor.failure() == reason


def test_a_failed_run_counts_until_one_succeeds_or_time_passes(
    executor: GpuExecutor, gpu: FakeGpuSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(gpu_executor.time, "monotonic", lambda: now[0])

    def fail() -> None:
        gpu.errors = [RuntimeError("CUDNN_STATUS_INTERNAL\nmore")]
        with pytest.raises(EngineError, match="^failed on cuda:0: CUDNN_STATUS_INTERNAL$"):
            scored(executor, pictures(3))
        assert executor.failure() == "failed on cuda:0: CUDNN_STATUS_INTERNAL"

    fail()
    now[0] += gpu_executor.RECENT
    assert not executor.failure(), "requests may try again"
    fail()
    scored(executor, pictures(3))
    assert not executor.failure()


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_real_gpu_scores_as_the_cpu_does(
    provider: str,
    onnx_file: Path,
    session: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(tf32.VARIABLE, "0")
    if problem := why_unavailable(provider):
        pytest.skip(f"needs an NVIDIA GPU: {provider} {problem}")
    engine = Engine(onnx_file, provider, batch_size=BATCH)
    jobs = [pictures(1 + (seed * 7) % BATCH, seed) for seed in range(60)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(engine.run, jobs))
    engine.close()
    for images, outputs in zip(jobs, results):
        (wanted,) = session.run(["loss"], {"images": images})
        np.testing.assert_allclose(outputs["loss"], wanted, rtol=1e-3, atol=1e-3)
