"""Requests of few images form batches, and each gets its own rows, in time or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.batcher import Batcher, ClosedError
from lloss.serve.daemon.services.request_queue import Answer
from lloss.serve.daemon.settings import Limits

from lloss import Scorer
from lloss.errors import EngineError

from ....waiting import PATIENCE
from ...scoring.fakes import hold_all, pictures

BATCH = 8


class Metrics:
    """Stands for the daemon's metrics."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, int]] = []
        self.losses: list[float] = []
        self.waits: list[float] = []
        self.waiting = 0

    def refused(self, reason: str, images: int = 1) -> None:
        self.refusals.append((reason, images))

    def queued(self, images: int) -> None:
        self.waiting = images

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def served(self, losses: Any, sha256: str) -> None:
        self.losses.extend(losses.tolist())


class Bench:
    """A batcher; ``sizes`` are those of the batches that ran, ``pause`` is seconds an image."""

    def __init__(self, onnx_file: Path, threads: int = 2, **limits: Any) -> None:
        self.scorer = Scorer(onnx_file, "cpu", batch_size=BATCH, threads=threads)
        self.metrics: Any = Metrics()
        self.batcher = Batcher(self.scorer, Limits(**limits), self.metrics)
        self.sizes: list[int] = []
        self.failing, self.pause = False, 0.0
        self._executor: Any = self.scorer.engine.executor
        self._run, self._executor.run = self._executor.run, self._watched

    def _watched(self, buffer: Any, count: int) -> Any:
        self.sizes.append(count)
        time.sleep(self.pause * count)
        if self.failing:
            raise EngineError("out of luck")
        return self._run(buffer, count)

    def busy(self, lanes: int = 0) -> contextlib.ExitStack:
        """Some or all lanes are busy while the block runs."""
        return hold_all(self.scorer._started().slots.cores, lanes)

    def score(self, images: Any, seconds: float = PATIENCE) -> asyncio.Task[Answer]:
        return asyncio.ensure_future(self.batcher.score(images, seconds))

    def losses(self, images: np.ndarray) -> np.ndarray:
        """Image by image, by the engine itself."""
        buffer, losses = self._executor.buffer(), []
        for image in images:
            buffer.pixels[0] = image
            losses.append(self._run(buffer, 1)["loss"][0])
        self._executor.release(buffer)
        return np.array(losses)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(work(), 20)

        return asyncio.run(bounded())


Make = Callable[..., Bench]


@pytest.fixture
def make(onnx_file: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def bench(**given: Any) -> Bench:
        made.append(Bench(onnx_file, **given))
        return made[-1]

    yield bench
    for one in made:
        one.scorer.close()


def losses_of(answers: list[Answer]) -> np.ndarray:
    return np.concatenate([answer.columns["loss"] for answer in answers])


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_many_requests_form_few_batches_and_get_their_rows(make: Make) -> None:
    bench, images = make(), pictures(48)

    async def work() -> list[Answer]:
        with bench.busy():
            asked = [bench.score(images[n : n + 1]) for n in range(48)]
            await asyncio.sleep(0)
            assert bench.metrics.waiting == 48
        return await asyncio.gather(*asked)

    answers = bench.run(work)
    assert_close(losses_of(answers), bench.losses(images))
    assert len(bench.sizes) <= 10 and sum(bench.sizes) == 48
    assert answers[0].columns["embedding"].shape == (1, 128) and not answers[0].errors
    assert bench.metrics.waiting == 0 and len(bench.metrics.losses) == 48
    assert len(bench.metrics.waits) == 48 and min(bench.metrics.waits) > 0


def test_any_mixture_of_requests(make: Make, encoded: Callable[..., bytes]) -> None:
    bench, chance, images = make(threads=3), random.Random(0), pictures(400)
    expected = bench.losses(images)

    async def one(start: int, count: int) -> None:
        await asyncio.sleep(chance.random() * 0.05)
        rows = slice(start, start + count)
        given: Any = images[rows]
        bad: list[int] = []
        kind = chance.randrange(4)
        if kind == 1:
            given = [encoded(image) for image in given]
        if kind == 2:
            bad = list(range(1, count, 3))
            given = [b"x" if row in bad else image for row, image in enumerate(given)]
        answer = await bench.score(given)
        losses = answer.columns["loss"]
        assert list(answer.errors) == bad and np.isnan(losses[bad]).all()
        assert_close(np.delete(losses, bad), np.delete(expected[rows], bad))

    async def work() -> None:
        asked, start = [], 0
        while start < 380:
            count = chance.choice([1, 1, 1, 2, 5, 20])
            asked.append(one(start, count))
            start += count
        await asyncio.gather(*asked)

    bench.run(work)
    bench.batcher.close()
    assert not bench.batcher._queue and not bench.batcher._queue.images


def test_pixels_of_another_size_and_none_at_all(make: Make) -> None:
    bench, images = make(), pictures(3, size=20)
    answer = bench.run(lambda: bench.score(images[:0]))
    assert answer.columns["embedding"].shape == (0, 128) and not bench.sizes
    answer = bench.run(lambda: bench.score(images))
    assert_close(answer.columns["loss"], bench.scorer.score(images).loss)


@pytest.mark.parametrize(
    ("busy", "rate", "on_host", "sizes"),
    [
        (0, None, True, [BATCH // 2, BATCH // 2]),
        (0, 1e6, True, [BATCH]),
        (1, None, True, [BATCH // 2, BATCH // 4, 1, 1]),  # the busy lane keeps its share
        (1, None, False, [BATCH]),
    ],
)
def test_lanes_share_what_waits(
    make: Make, busy: int, rate: float | None, on_host: bool, sizes: list[int]
) -> None:
    bench = make(threads=2)
    bench.pause = 0.0 if rate else 0.01
    bench.batcher._on_host = on_host

    async def work() -> None:
        await bench.score(pictures(1))
        bench.sizes.clear()
        bench.batcher._rate = rate or bench.batcher._rate
        with bench.busy(busy) if busy else contextlib.nullcontext():
            await bench.score(pictures(BATCH))

    bench.run(work)
    assert sum(bench.sizes) == BATCH and max(bench.sizes) == sizes[0]
    assert not busy or bench.sizes == sizes


@pytest.mark.parametrize(
    ("counts", "order"),
    [
        ([80, 1, 1, 1, 1, 1, 1], "1 2 3 4 5 6 0"),  # small ones do not wait for a large one
        ([16, 16, *[BATCH] * 8], "2 3 0 4 5 1 6 7 8 9"),  # nor large ones for all small ones
    ],
)
def test_small_and_large_requests_take_turns(make: Make, counts: list[int], order: str) -> None:
    bench, ended = make(threads=1), list[str]()
    images = [pictures(count, number) for number, count in enumerate(counts)]

    async def score(number: int) -> Answer:
        answer = await bench.score(images[number])
        ended.append(str(number))
        return answer

    async def work() -> list[Answer]:
        with bench.busy():
            asked = [asyncio.ensure_future(score(number)) for number in range(len(counts))]
            await asyncio.sleep(0.01)
        return await asyncio.gather(*asked)

    answers = bench.run(work)
    assert " ".join(ended) == order
    assert_close(losses_of(answers), bench.losses(np.concatenate(images)))


def test_a_full_queue_refuses_with_the_time_to_wait(make: Make) -> None:
    bench = make(queue_images=10)

    async def work() -> None:
        await bench.score(pictures(8))  # measures the rate
        with bench.busy():
            asked = [bench.score(pictures(8))]
            await asyncio.sleep(0)
            with pytest.raises(RequestError, match="8 of at most 10 images wait") as full:
                await bench.score(pictures(3))
            assert full.value.status == 429 and 1 <= (full.value.retry_after or 0) <= 60
            asked.append(bench.score(pictures(2)))
            await asyncio.sleep(0)
        await asyncio.gather(*asked)
        with pytest.raises(RequestError, match="give at most 10") as large:
            await bench.score(pictures(11))
        assert large.value.status == 413

    bench.run(work)
    assert bench.metrics.refusals == [("queue_full", 3)]


def test_an_expired_request_is_not_computed(make: Make) -> None:
    bench = make(threads=1)

    async def work() -> None:
        with bench.busy():
            late, good = bench.score(pictures(5), 0.03), bench.score(pictures(2))
            await asyncio.wait([late])
            assert bench.metrics.waiting == 2
        with pytest.raises(RequestError, match=r"within 0\.03 s") as refused:
            await late
        assert refused.value.status == 504
        await good

    bench.run(work)
    assert sum(bench.sizes) == 2 and bench.metrics.refusals == [("deadline", 5)]


def test_a_cancelled_request_is_not_computed(make: Make) -> None:
    bench = make()

    async def work() -> None:
        with bench.busy():
            gone = bench.score(pictures(5))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            assert bench.metrics.waiting == 0
        await asyncio.get_running_loop().run_in_executor(None, bench.batcher.close)

    bench.run(work)
    assert not bench.sizes and bench.metrics.refusals == [("cancelled", 5)]


def test_a_failing_engine_fails_the_requests_of_its_batch(make: Make) -> None:
    bench, images = make(threads=1), pictures(20)

    async def work() -> None:
        bench.failing = True
        asked = [bench.score(images[n : n + 4]) for n in range(0, 20, 4)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["out of luck"] * 5
        bench.sizes.clear()
        with pytest.raises(EngineError, match="out of luck"):
            await bench.score(pictures(10 * BATCH))
        assert len(bench.sizes) <= 2, "one failed part ends a large request"
        bench.failing = False
        assert_close((await bench.score(images)).columns["loss"], bench.losses(images))

    bench.run(work)
    bench.batcher.close()


def test_closing_finishes_what_waits_and_refuses_more(make: Make) -> None:
    bench = make()

    async def work() -> None:
        with bench.busy():
            asked = [bench.score(pictures(4)) for _ in range(5)]
            await asyncio.sleep(0)
            closing = asyncio.get_running_loop().run_in_executor(None, bench.batcher.close)
            while not bench.batcher._closed:
                await asyncio.sleep(0.001)
            with pytest.raises(ClosedError) as refused:
                await bench.score(pictures(1))
            assert refused.value.status == 503 and refused.value.retry_after
            assert not closing.done()
        assert len(losses_of(await asyncio.gather(*asked))) == 20
        await closing

    bench.run(work)
    bench.batcher.close()


def test_a_closed_scorer_fails_what_waits(make: Make) -> None:
    bench = make()

    async def work() -> None:
        with bench.busy():
            waiting = [bench.score(pictures(1)) for _ in range(3)]
            await asyncio.sleep(0)
            closing = asyncio.get_running_loop().run_in_executor(None, bench.scorer.close)
            while not bench.scorer._closed:
                await asyncio.sleep(0.001)
        for request in [*waiting, bench.score(pictures(1))]:
            with pytest.raises(EngineError, match="closed"):
                await request
        await closing

    bench.run(work)
    bench.batcher.close()
