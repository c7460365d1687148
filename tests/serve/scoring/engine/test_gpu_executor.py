"""The executor: every lane gets its own results, whatever the counts, the order and the errors."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from lloss.serve.scoring.engine import gpu_executor as device
from lloss.serve.scoring.engine.gpu_executor import DeviceExecutor

from lloss.errors import CaptureError, DeviceLostError, DeviceMemoryError, EngineError
from lloss.files import sha256_of
from lloss.manifest import Manifest, read_manifest
from lloss.runtime.cuda_driver import Driver
from lloss.runtime.graph_capture import DEVICES
from lloss.runtime.providers import Opened, kind_of, missing, open_session, setup_of

from ....waiting import PATIENCE
from ..fakes import FakeGpu, GraphSession, Spy

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
        assert executor.buckets == (1, 2, 4, 8, 16, 32)
        assert spy.sizes == [32, 16, 8, 4, 2, 1], "the largest first: its memory serves the others"
        for count in range(1, BATCH + 1):
            scored(executor, pictures(count))
    assert set(spy.sizes) == {1, 2, 4, 8, 16, 32}
    assert len(spy.threads) == 1, "the runtime is called in one thread only"


def test_outputs_stay_when_the_buffer_goes_on(executor: DeviceExecutor, session: Any) -> None:
    first, second = pictures(BATCH, 1), pictures(BATCH, 2)
    kept = scored(executor, first)
    for _ in range(4):  # more than there are buffers
        scored(executor, second)
    executor.close()
    assert_same(kept, expected(session, first))


@pytest.mark.parametrize("where", ["cpu", "fake gpu"])
def test_lanes_get_their_own_results(
    where: str, session: Any, manifest: Manifest, request: pytest.FixtureRequest
) -> None:
    memory = request.getfixturevalue("gpu") if where == "fake gpu" else None
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
    gc.collect()  # what earlier tests left
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
    assert got.wait(PATIENCE)
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
    waiting.join(PATIENCE)
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
        assert spy.entered.wait(PATIENCE)
        closing = pool.submit(executor.close)
        spy.gate.set()
        closing.result(PATIENCE)
        assert_same(running.result(PATIENCE), expected(session, images))


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


def test_tensorrt_runs_what_there_is(session: Any, manifest: Manifest) -> None:
    spy = Spy(session, "TensorrtExecutionProvider")
    with DeviceExecutor(spy, manifest, BATCH, device="cpu") as executor:
        assert spy.sizes == [BATCH, 1], "the ends of the engine's range"
        for count in (3, 17, 32, 3):
            images = pictures(count)
            assert_same(scored(executor, images), expected(session, images))
    assert spy.sizes[2:] == [3, 17, 32, 3]


def test_graphs_are_captured_per_buffer_and_bucket(session: Any, manifest: Manifest) -> None:
    graphs = GraphSession(session)
    with DeviceExecutor(graphs, manifest, BATCH, device="cpu") as executor:
        assert executor.graphs
        assert sorted(graphs.captured) == list(range(1, 3 * 6 + 1))
        before = graphs.plain
        for seed in range(9):
            images = pictures(1 + seed * 3, seed)
            assert_same(scored(executor, images), expected(session, images))
        assert graphs.plain == before, "after the warm-up there are replays only"


def test_nothing_else_uses_a_gpu_while_a_graph_is_captured(
    session: Any, manifest: Manifest
) -> None:
    """Another executor runs, and pinned memory of a third is freed, all the time."""
    with DeviceExecutor(Spy(session), manifest, BATCH, device="cpu") as other:
        spy, ended, inside = other._session, threading.Event(), []
        freed: list[bool] = []

        def score() -> None:
            while not ended.is_set():
                scored(other, pictures(3))

        def captured() -> None:
            before = len(spy.sizes)
            DEVICES.later(lambda: freed.append(True))  # as the finalizer of pinned memory does
            held = len(freed)
            ended.wait(0.005)
            inside.append((len(spy.sizes) - before, len(freed) - held))

        with ThreadPoolExecutor(1) as lane:
            running = lane.submit(score)
            try:
                graphs = GraphSession(session, on_capture=captured)
                with DeviceExecutor(graphs, manifest, BATCH, device="cpu") as executor:
                    images = pictures(9)
                    assert_same(scored(executor, images), expected(session, images))
            finally:
                ended.set()
                running.result(PATIENCE)
    assert len(inside) == 3 * 6 == len(freed)
    assert set(inside) == {(0, 0)}, "runs and frees during a capture"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("capture", "^operation not permitted when stream is capturing$"),
        ("replay", "^the replay of a batch of 32 gives another"),
    ],
)
def test_a_graph_that_cannot_be_used_is_an_error_of_its_own(
    session: Any, manifest: Manifest, broken: str, reason: str
) -> None:
    with pytest.raises(CaptureError, match=reason):
        DeviceExecutor(GraphSession(session, broken=broken), manifest, BATCH, device="cpu")


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    session: Any, manifest: Manifest
) -> None:
    spy, told = Spy(session), []
    with DeviceExecutor(spy, manifest, BATCH, device="cpu", tell=told.append) as executor:
        spy.most, spy.sizes = 10, []
        images = pictures(27)
        assert_same(scored(executor, images), expected(session, images))
        assert spy.sizes == [8, 8, 8, 4] and executor.limit == 8
        assert executor.batch_size == BATCH and not executor.trouble()
        assert told == [
            "cpu has too little memory for a run of 32 images: runs of 16 at most from now on",
            "cpu has too little memory for a run of 16 images: runs of 8 at most from now on",
        ]
        scored(executor, images)
        assert spy.sizes == [8, 8, 8, 4] * 2 and len(told) == 2, "it stays so"
        spy.most = 0
        with pytest.raises(DeviceMemoryError, match="Failed to allocate memory"):
            scored(executor, images)
        assert executor.limit == 1 and "Failed to allocate" in executor.trouble()


def test_lanes_that_run_out_of_memory_together_halve_once(session: Any, manifest: Manifest) -> None:
    spy, told, first = Spy(session), [], [True]
    jobs = [pictures(BATCH, seed) for seed in range(12)]

    def queued_behind() -> None:
        """The first run fails when the next one, as large, is in the runner's queue."""
        while first and executor._runner._work_queue.empty():
            time.sleep(0.001)
        first.clear()

    with (
        DeviceExecutor(spy, manifest, BATCH, device="cpu", tell=told.append) as executor,
        ThreadPoolExecutor(6) as lanes,
    ):
        spy.most, spy.before = 16, queued_behind
        results = list(lanes.map(lambda images: scored(executor, images), jobs))
        assert executor.limit == 16 and len(told) == 1
    for images, found in zip(jobs, results):
        assert_same(found, expected(session, images))


@pytest.mark.parametrize(
    "line",
    [
        "Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 9",
        "Available memory of 12 is smaller than requested bytes of 99",
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc(&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "the NVIDIA driver: cuMemAlloc_v2 failed with CUDA_ERROR_OUT_OF_MEMORY (2)",
    ],
)
def test_how_the_runtime_says_that_memory_is_out(line: str) -> None:
    assert kind_of(RuntimeError(f"Non-zero status code\n{line}")) is DeviceMemoryError
    assert kind_of(RuntimeError("CUDA failure 700: an illegal memory access")) is EngineError


@pytest.mark.parametrize("where", ["a kernel", "a copy"])
def test_a_lost_gpu_is_told_and_nothing_runs_on_it(
    where: str, session: Any, manifest: Manifest, gpu: FakeGpu
) -> None:
    spy, library = Spy(session), gpu._driver._library
    executor = DeviceExecutor(spy, manifest, BATCH, device="cpu", memory=gpu)
    assert not executor.trouble()
    try:
        if where == "a kernel":
            spy.before = lambda: library.fake_broken(700)
            spy.fail = RuntimeError("CUDA failure 700: illegal memory access\nat cuda.cc")
        else:
            library.fake_broken(700)
        with pytest.raises(DeviceLostError) as raised:
            scored(executor, pictures(3))
        told = str(raised.value)
        assert ("CUDA failure 700: illegal memory access; " in told) == (where == "a kernel")
        assert told.startswith("cpu was lost (") and "CUDA_ERROR_ILLEGAL_ADDRESS (700)" in told
        ran = len(spy.sizes)
        spy.fail, spy.before = None, lambda: None
        library.fake_broken(0)
        with pytest.raises(DeviceLostError):
            scored(executor, pictures(3))
        assert len(spy.sizes) == ran and executor.trouble() == told
        library.fake_broken(700)
        executor.close()
    finally:
        library.fake_broken(0)


def test_a_failed_run_counts_until_one_succeeds_or_time_passes(
    session: Any, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy, now = Spy(session), [1000.0]
    monkeypatch.setattr(device.time, "monotonic", lambda: now[0])
    with DeviceExecutor(spy, manifest, BATCH, device="cpu") as executor:
        spy.fail = RuntimeError("CUDNN_STATUS_INTERNAL_ERROR")
        for _ in range(2):
            with pytest.raises(EngineError):
                scored(executor, pictures(3))
            assert executor.trouble() == "failed on cpu: CUDNN_STATUS_INTERNAL_ERROR"
        now[0] += device.RECENT
        assert not executor.trouble(), "requests may try again"
        with pytest.raises(EngineError):
            scored(executor, pictures(3))
        spy.fail = None
        scored(executor, pictures(3))
        assert not executor.trouble()


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
