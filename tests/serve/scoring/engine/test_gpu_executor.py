"""The GPU executor: every thread gets its own results, whatever the counts and the errors."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.engine import gpu_executor
from lloss.serve.scoring.engine.gpu_executor import GpuExecutor

from lloss.errors import DeviceLostError, DeviceMemoryError, EngineError
from lloss.files import sha256_of
from lloss.manifest import Manifest, read_manifest
from lloss.runtime.cuda_driver import Driver
from lloss.runtime.graph_capture import CAPTURE_LOCK
from lloss.runtime.providers import SessionSetup, open_session, why_unavailable

from ....waiting import PATIENCE, until
from ..fakes import FakeGpu, Gate, GraphSession, Spy, fake_library, pictures

BATCH = 32


@pytest.fixture(scope="module")
def manifest(artifact: Path) -> Manifest:
    return read_manifest(artifact)


@pytest.fixture(scope="module")
def session(artifact: Path, manifest: Manifest) -> Any:
    return open_session(artifact, SessionSetup(manifest, "cpu", BATCH), "").session


@pytest.fixture
def library(fake_cuda: Path) -> Any:
    return fake_library(fake_cuda)


class Executors:
    """Makes executors on the fake GPU, and closes them."""

    def __init__(self, manifest: Manifest, library: Any) -> None:
        self.manifest, self.library = manifest, library
        self.made: list[GpuExecutor] = []

    def __call__(self, session: Any, **options: Any) -> GpuExecutor:
        memory = FakeGpu(0, Driver(self.library))
        self.made.append(GpuExecutor(session, self.manifest, BATCH, memory=memory, **options))
        return self.made[-1]


@pytest.fixture
def make(manifest: Manifest, library: Any) -> Iterator[Executors]:
    executors = Executors(manifest, library)
    yield executors
    for executor in executors.made:
        executor.close()


@pytest.fixture
def spy(session: Any) -> Spy:
    return Spy(session)


@pytest.fixture
def executor(make: Executors, spy: Spy) -> GpuExecutor:
    return make(spy)


def expected(session: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images})))


def scored(executor: GpuExecutor, images: np.ndarray) -> dict[str, np.ndarray]:
    buffer = executor.buffer()
    try:
        buffer.pixels[: len(images)] = images
        return executor.run(buffer, len(images))
    finally:
        executor.release(buffer)


def assert_scores(executor: GpuExecutor, session: Any, images: np.ndarray) -> None:
    outputs, wanted = scored(executor, images), expected(session, images)
    assert list(outputs) == list(wanted)
    for name, values in wanted.items():
        assert outputs[name].dtype == np.float32 and outputs[name].shape == values.shape
        np.testing.assert_allclose(outputs[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


def test_every_count_gives_its_rows_in_a_padded_run(
    executor: GpuExecutor, session: Any, spy: Spy
) -> None:
    assert executor.sizes == (1, 2, 4, 8, 16, 32)
    assert spy.sizes == [32, 16, 8, 4, 2, 1], "the largest first: its memory serves the others"
    for count in range(1, BATCH + 1):
        assert_scores(executor, session, pictures(count, count))
    assert set(spy.sizes) == {1, 2, 4, 8, 16, 32}
    assert len(spy.threads) == 1, "one thread calls the runtime"


def test_tensorrt_runs_any_count(make: Executors, session: Any) -> None:
    spy = Spy(session, "TensorrtExecutionProvider")
    executor = make(spy)
    assert spy.sizes == [BATCH, 1], "the ends of the engine's range"
    for count in (3, 17, 32, 3):
        assert_scores(executor, session, pictures(count))
    assert spy.sizes[2:] == [3, 17, 32, 3]


def test_outputs_stay_when_the_buffer_is_used_again(executor: GpuExecutor) -> None:
    outputs = scored(executor, pictures(BATCH, 1))
    before = {name: values.copy() for name, values in outputs.items()}
    for _ in range(4):  # more than there are buffers
        scored(executor, pictures(BATCH, 2))
    executor.close()
    assert all(np.array_equal(outputs[name], before[name]) for name in before)


def test_nothing_of_the_gpu_is_left(make: Executors, spy: Spy, library: Any) -> None:
    gc.collect()  # what earlier tests left
    before = library.fake_live()
    executor = make(spy)
    assert library.fake_live() == before + 3 * 5  # two blocks on each side, and a stream
    scored(executor, pictures(5))
    executor.close()
    make.made.clear()
    del executor
    gc.collect()
    assert library.fake_live() == before


def test_callers_wait_for_a_buffer(executor: GpuExecutor) -> None:
    taken = [executor.buffer() for _ in range(3)]
    assert len({buffer.number for buffer in taken}) == 3
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(executor.buffer)
        assert not waiting.done()
        executor.release(taken[1])
        executor.release(taken[1])  # a second time does nothing
        assert waiting.result(PATIENCE).number == taken[1].number


def test_closing_wakes_those_who_wait_and_refuses_the_rest(executor: GpuExecutor) -> None:
    taken = [executor.buffer() for _ in range(3)]
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(executor.buffer)
        executor.close()
        executor.close()
        with pytest.raises(EngineError, match="^the executor was closed$"):
            waiting.result(PATIENCE)
    with pytest.raises(EngineError, match="closed"):
        executor.run(taken[0], 1)
    taken[0].pixels[:] = 1  # host memory still belongs to the caller
    executor.release(taken[0])


def test_closing_waits_for_the_running_batch(executor: GpuExecutor, session: Any, spy: Spy) -> None:
    spy.before = gate = Gate()
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(assert_scores, executor, session, pictures(4))
        assert gate.entered.wait(PATIENCE)
        closing = pool.submit(executor.close)
        gate.opened.set()
        closing.result(PATIENCE)
        running.result(PATIENCE)


def test_an_error_of_the_session_is_one_line(
    executor: GpuExecutor, make: Executors, session: Any, spy: Spy
) -> None:
    spy.error = RuntimeError("out of something\n  at kernel.cc:1")
    with pytest.raises(EngineError, match="^failed on cuda:0: out of something$"):
        scored(executor, pictures(3))
    with pytest.raises(EngineError, match="^failed on cuda:0: out of something$"):
        make(spy)
    spy.error = None
    assert_scores(executor, session, pictures(3))


def test_graphs_are_captured_for_each_buffer_and_size(make: Executors, session: Any) -> None:
    graphs = GraphSession(session)
    executor = make(graphs)
    assert executor.graphs and sorted(graphs.captured) == list(range(1, 3 * 6 + 1))
    before = graphs.plain
    for seed in range(9):
        assert_scores(executor, session, pictures(1 + seed * 3, seed))
    assert graphs.plain == before, "after the warm-up there are replays only"


def test_nothing_else_uses_a_gpu_during_a_capture(
    make: Executors, executor: GpuExecutor, session: Any, spy: Spy
) -> None:
    """Another executor runs, and pinned memory of a third is freed, all the time."""
    ended, during, freed = threading.Event(), [], []

    def score() -> None:
        while not ended.is_set():
            scored(executor, pictures(3))

    def captured() -> None:
        runs = len(spy.sizes)
        CAPTURE_LOCK.later(lambda: freed.append(True))  # as the finalizer of pinned memory does
        frees = len(freed)
        ended.wait(0.005)
        during.append((len(spy.sizes) - runs, len(freed) - frees))

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(score)
        try:
            assert_scores(make(GraphSession(session, on_capture=captured)), session, pictures(9))
        finally:
            ended.set()
            running.result(PATIENCE)
    assert len(during) == 3 * 6 == len(freed)
    assert set(during) == {(0, 0)}, "runs and frees during a capture"


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    make: Executors, session: Any, spy: Spy
) -> None:
    sizes: list[tuple[int, int]] = []
    executor = make(spy, on_halving=lambda *halving: sizes.append(halving))
    spy.most, spy.sizes = 10, []
    assert_scores(executor, session, pictures(27))
    assert spy.sizes == [8, 8, 8, 4] and executor.limit == 8 and not executor.failure()
    assert sizes == [(32, 16), (16, 8)]
    scored(executor, pictures(27))
    assert spy.sizes == [8, 8, 8, 4] * 2 and len(sizes) == 2, "the limit stays"
    spy.most = 0
    with pytest.raises(DeviceMemoryError, match="Failed to allocate memory"):
        scored(executor, pictures(27))
    assert executor.limit == 1 and "Failed to allocate" in executor.failure()


def test_threads_that_run_out_of_memory_together_halve_once(
    make: Executors, session: Any, spy: Spy
) -> None:
    sizes: list[tuple[int, int]] = []
    executor, first = make(spy, on_halving=lambda *halving: sizes.append(halving)), [True]

    def queued_behind() -> None:
        """The first run fails when the next one, as large, is in the runner's queue."""
        if first:
            until(lambda: not executor._runner._work_queue.empty())
        first.clear()

    spy.most, spy.before = 16, queued_behind
    jobs = [pictures(BATCH, seed) for seed in range(12)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda images: assert_scores(executor, session, images), jobs))
    assert executor.limit == 16 and len(sizes) == 1


@pytest.mark.parametrize("where", ["a kernel", "a copy"])
def test_nothing_runs_on_a_lost_gpu(
    where: str, executor: GpuExecutor, spy: Spy, library: Any
) -> None:
    assert not executor.failure()
    try:
        if where == "a kernel":
            spy.before = lambda: library.fake_broken(700)
            spy.error = RuntimeError("CUDA failure 700: illegal memory access\nat cuda.cc")
        else:
            library.fake_broken(700)
        with pytest.raises(DeviceLostError) as raised:
            scored(executor, pictures(3))
        reason = str(raised.value)
        assert ("CUDA failure 700: illegal memory access; " in reason) == (where == "a kernel")
        assert reason.startswith("cuda:0 was lost (") and "CUDA_ERROR_ILLEGAL_ADDRESS" in reason
        runs = len(spy.sizes)
        spy.error, spy.before = None, lambda: None
        library.fake_broken(0)
        with pytest.raises(DeviceLostError):
            scored(executor, pictures(3))
        assert len(spy.sizes) == runs and executor.failure() == reason
        library.fake_broken(700)
        executor.close()
    finally:
        library.fake_broken(0)


def test_a_failed_run_counts_until_one_succeeds_or_time_passes(
    executor: GpuExecutor, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(gpu_executor.time, "monotonic", lambda: now[0])

    def fail() -> None:
        spy.error = RuntimeError("CUDNN_STATUS_INTERNAL_ERROR")
        with pytest.raises(EngineError):
            scored(executor, pictures(3))
        assert executor.failure() == "failed on cuda:0: CUDNN_STATUS_INTERNAL_ERROR"

    fail()
    now[0] += gpu_executor.RECENT
    assert not executor.failure(), "requests may try again"
    fail()
    spy.error = None
    scored(executor, pictures(3))
    assert not executor.failure()


def test_a_real_gpu_scores_as_the_cpu_does(
    artifact: Path, manifest: Manifest, session: Any
) -> None:
    problem = why_unavailable("cuda")
    if problem:
        pytest.skip(f"needs an NVIDIA GPU: cuda {problem}")
    opened = open_session(artifact, SessionSetup(manifest, "cuda", BATCH), sha256_of(artifact))
    jobs = [pictures(1 + (seed * 7) % BATCH, seed) for seed in range(60)]
    with (
        GpuExecutor(opened.session, manifest, BATCH) as executor,
        ThreadPoolExecutor(4) as threads,
    ):
        results = list(threads.map(lambda images: scored(executor, images), jobs))
    for images, outputs in zip(jobs, results):
        wanted = expected(session, images)
        np.testing.assert_allclose(outputs["loss"], wanted["loss"], rtol=1e-3, atol=1e-3)
