"""Requests of few images become batches, and each gets its own rows, in time or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
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
from lloss.serve.scoring.batch import pipeline

from lloss import Scorer
from lloss.errors import EngineError

from ....waiting import PATIENCE

BATCH = 8


class Counted:
    """Stands for the daemon's metrics."""

    def __init__(self) -> None:
        self.dropped: list[tuple[str, int]] = []
        self.losses: list[float] = []
        self.waits: list[float] = []
        self.waiting = 0

    def refused(self, reason: str, images: int = 1) -> None:
        self.dropped.append((reason, images))

    def queued(self, images: int) -> None:
        self.waiting = images

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def served(self, losses: Any, sha256: str) -> None:
        self.losses.extend(losses.tolist())


class Bench:
    """A batcher, and what ran."""

    def __init__(self, artifact: Path, threads: int = 2, **limits: Any) -> None:
        self.scorer = Scorer(artifact, "cpu", batch_size=BATCH, threads=threads)
        self.metrics: Any = Counted()
        self.batcher = Batcher(self.scorer, Limits(**limits), self.metrics)
        self.sizes: list[int] = []
        self.failing = False
        self.pause = 0.0  # seconds an image
        run = self.scorer.engine.executor.run

        def watched(buffer: Any, count: int) -> Any:
            self.sizes.append(count)
            time.sleep(self.pause * count)
            if self.failing:
                raise EngineError("out of luck")
            return run(buffer, count)

        self.scorer.engine.executor.run = watched  # type: ignore[method-assign]
        self.want = lambda images: run_alone(run, self.scorer, images)

    @contextlib.contextmanager
    def held(self, lanes: int = 0) -> Iterator[None]:
        """Some or all lanes are busy while the block runs."""
        free, workers = threading.Event(), self.scorer._started().workers
        lanes = lanes or workers.count
        for _ in range(lanes):
            workers.submit(lambda: free.wait(PATIENCE), -1)
        while workers.idle > workers.count - lanes:
            time.sleep(0.001)
        try:
            yield
        finally:
            free.set()

    def score(self, images: Any, seconds: float = PATIENCE) -> Awaitable[Answer]:
        return asyncio.ensure_future(self.batcher.score(images, seconds))


def run_alone(run: Any, scorer: Scorer, images: np.ndarray) -> np.ndarray:
    buffer = scorer.engine.executor.buffer()
    try:
        losses = []
        for image in images:
            buffer.pixels[0] = image
            losses.append(run(buffer, 1)["loss"][0])
        return np.array(losses)
    finally:
        scorer.engine.executor.release(buffer)


Make = Callable[..., Bench]


@pytest.fixture
def make(artifact: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def bench(**given: Any) -> Bench:
        made.append(Bench(artifact, **given))
        return made[-1]

    yield bench
    for one in made:
        one.scorer.close()


def pictures(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(work(), 20)

    return asyncio.run(bounded())


def close_to(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_many_requests_become_few_batches_and_get_their_rows(make: Make) -> None:
    bench, images = make(), pictures(48)

    async def work() -> list[Answer]:
        with bench.held():
            asked = [bench.score(images[n : n + 1]) for n in range(48)]
            await asyncio.sleep(0)
            assert bench.metrics.waiting == 48
        return await asyncio.gather(*asked)

    answers = run(work)
    close_to(np.concatenate([a.columns["loss"] for a in answers]), bench.want(images))
    assert len(bench.sizes) <= 8 and sum(bench.sizes) == 48
    assert answers[0].columns["embedding"].shape == (1, 128) and not answers[0].errors
    assert bench.metrics.waiting == 0 and len(bench.metrics.losses) == 48


def test_a_request_waits_from_its_arrival_to_its_first_images(make: Make) -> None:
    bench = make(threads=1)

    async def work() -> None:
        with bench.held():
            asked = [bench.score(pictures(3 * BATCH)), bench.score(pictures(1))]
            late = bench.score(pictures(2), 0.01)
            await asyncio.sleep(0.05)
            asked.append(bench.score(pictures(1)))
            await asyncio.sleep(0.05)
        await asyncio.gather(*asked)
        with pytest.raises(RequestError):
            await late

    run(work)
    shortest, *others = sorted(bench.metrics.waits)
    assert len(others) == 2 and min(others) > 0.099 and shortest > 0.049


def test_what_is_queued_is_shared_between_lanes(make: Make) -> None:
    bench = make(threads=2)
    bench.pause = 0.03

    async def work() -> None:
        await bench.score(pictures(1))
        bench.sizes.clear()
        await bench.score(pictures(BATCH))

    run(work)
    assert max(bench.sizes) == BATCH // 2 and sum(bench.sizes) == BATCH


def test_what_takes_no_time_is_not_shared(make: Make) -> None:
    bench = make(threads=2)

    async def work() -> None:
        await bench.score(pictures(1))
        bench.sizes.clear()
        bench.batcher._rate = 1e6
        await bench.score(pictures(BATCH))

    run(work)
    assert bench.sizes == [BATCH]


def one_of_two(bench: Bench) -> list[int]:
    """Batches that a lane makes of a whole one while the other is busy."""
    bench.pause = 0.01

    async def work() -> None:
        await bench.score(pictures(1))
        bench.sizes.clear()
        with bench.held(lanes=1):
            await bench.score(pictures(BATCH))

    run(work)
    return bench.sizes


def test_on_a_cpu_a_busy_lane_keeps_its_share(make: Make) -> None:
    assert one_of_two(make(threads=2)) == [BATCH // 2, BATCH // 4, 1, 1]


def test_elsewhere_a_busy_lane_leaves_all_to_the_other(make: Make) -> None:
    bench = make(threads=2)
    bench.batcher._on_host = False
    assert one_of_two(bench) == [BATCH]


def test_small_requests_do_not_wait_for_a_large_one(make: Make) -> None:
    bench, order = make(threads=1), list[str]()
    large, small = pictures(10 * BATCH, 1), pictures(6, 2)

    async def named(name: str, images: np.ndarray) -> Answer:
        answer = await bench.score(images)
        order.append(name)
        return answer

    async def work() -> list[Answer]:
        with bench.held():
            asked = [asyncio.ensure_future(named("large", large))]
            asked += [asyncio.ensure_future(named("small", small[n : n + 1])) for n in range(6)]
            await asyncio.sleep(0.01)
        return await asyncio.gather(*asked)

    whole, *rest = run(work)
    assert order == ["small"] * 6 + ["large"]
    assert bench.sizes == [BATCH] * 10 + [6]
    close_to(whole.columns["loss"], bench.want(large))
    close_to(np.concatenate([a.columns["loss"] for a in rest]), bench.want(small))


def test_large_ones_do_not_share_and_are_not_starved(make: Make) -> None:
    bench, order = make(threads=1), list[str]()

    async def named(name: str, count: int) -> None:
        await bench.score(pictures(count))
        order.append(name)

    async def work() -> None:
        with bench.held():
            asked = [asyncio.ensure_future(named(f"large {n}", 2 * BATCH)) for n in range(2)]
            asked += [asyncio.ensure_future(named(f"small {n}", BATCH)) for n in range(8)]
            await asyncio.sleep(0.01)
        await asyncio.gather(*asked)

    run(work)
    small = iter(f"small {n}" for n in range(8))
    wanted = [next(small), next(small), "large 0", next(small), next(small), "large 1", *small]
    assert order == wanted


def test_any_mixture_of_requests(make: Make, encoded: Callable[..., bytes]) -> None:
    bench, chance = make(threads=3), random.Random(0)
    images = pictures(400)

    async def one(start: int, count: int) -> None:
        await asyncio.sleep(chance.random() * 0.05)
        mine = images[start : start + count]
        kind = chance.randrange(4)
        given: Any = mine
        bad: list[int] = []
        if kind == 1:
            given = [encoded(image) for image in mine]
        if kind == 2:
            bad = [row for row in range(count) if row % 3 == 1]
            given = [b"x" if row in bad else image for row, image in enumerate(mine)]
        answer = await bench.score(given)
        assert list(answer.errors) == bad
        losses = answer.columns["loss"]
        assert losses.shape == (count,) and np.isnan(losses[bad]).all()
        good = [row for row in range(count) if row not in bad]
        close_to(losses[good], wanted[start : start + count][good])

    wanted = bench.want(images)

    async def work() -> None:
        asked = []
        start = 0
        while start < 380:
            count = chance.choice([1, 1, 1, 2, 5, 20])
            asked.append(one(start, count))
            start += count
        await asyncio.gather(*asked)

    run(work)
    bench.batcher.close()
    assert not bench.batcher._queue and not bench.batcher._queue.images


def test_pixels_of_another_size_are_resized_as_the_scorer_does(make: Make) -> None:
    bench, images = make(), pictures(3, size=20)
    answer = run(lambda: bench.score(images))
    close_to(answer.columns["loss"], bench.scorer.score(images).loss)


def test_no_images_give_an_answer(make: Make) -> None:
    bench = make()
    answer = run(lambda: bench.score(np.zeros((0, 8, 8, 3), np.uint8)))
    assert answer.columns["embedding"].shape == (0, 128) and not bench.sizes


def test_a_full_queue_refuses_and_tells_when_to_come_again(make: Make) -> None:
    bench = make(queue_images=10)

    async def work() -> None:
        await bench.score(pictures(8))  # the rate is measured
        with bench.held():
            first = bench.score(pictures(8))
            await asyncio.sleep(0)
            with pytest.raises(RequestError, match="8 images wait, of at most 10") as full:
                await bench.score(pictures(3))
            assert full.value.status == 429 and 1 <= (full.value.retry_after or 0) <= 60
            second = bench.score(pictures(2))
            await asyncio.sleep(0)
        await asyncio.gather(first, second)
        with pytest.raises(RequestError, match="give at most 10") as large:
            await bench.score(pictures(11))
        assert large.value.status == 413

    run(work)
    assert bench.metrics.dropped == [("queue_full", 3)]


def test_how_long_to_wait_follows_the_measured_rate(make: Make) -> None:
    bench = make(queue_images=1000)
    bench.batcher._rate, bench.batcher._queue.images = 10.0, 200
    assert bench.batcher._wait() == pytest.approx(200 / (10 * 2))
    bench.batcher._queue.images = 10**6
    assert bench.batcher._wait() == 60


def test_a_request_whose_time_is_over_is_not_computed(make: Make) -> None:
    bench = make()

    async def work() -> None:
        with bench.held():
            late = bench.score(pictures(5), 0.05)
            good = bench.score(pictures(2))
            with pytest.raises(RequestError, match=r"within 0\.05 s") as refused:
                await late
            assert refused.value.status == 504
            assert bench.metrics.waiting == 2
        await good

    run(work)
    assert sum(bench.sizes) == 2
    assert bench.metrics.dropped == [("deadline", 5)]


def test_a_loop_that_is_late_computes_nothing_either(make: Make) -> None:
    bench = make(threads=1)

    async def work() -> None:
        with bench.held():
            late = bench.score(pictures(5), 0.02)
            good = bench.score(pictures(1))
            await asyncio.sleep(0)
            time.sleep(0.1)  # the loop is held up, its timers are late
        time.sleep(0.1)
        with pytest.raises(RequestError):
            await late
        await good

    run(work)
    assert sum(bench.sizes) == 1 and bench.metrics.dropped == [("deadline", 5)]


def test_images_that_nobody_waits_for_any_more_are_not_decoded(
    make: Make, encoded: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that a lane has begun: what is left of it to decode is left."""
    bench = make(threads=1)
    hurry, slow = encoded(pictures(1)[0]), encoded(np.zeros((16, 16, 3), np.uint8))
    real, decoded = pipeline.decode_into, list[int]()

    def decode_into(raw: Any, *given: Any) -> None:
        decoded.append(len(raw))
        if raw is slow:
            time.sleep(0.1)
        real(raw, *given)

    monkeypatch.setattr(pipeline, "decode_into", decode_into)

    async def work() -> None:
        with bench.held():
            late = bench.score([slow] * 6, 0.25)
            good = bench.score([hurry])
            await asyncio.sleep(0)
        with pytest.raises(RequestError, match="within"):
            await late
        answer = await good
        assert not answer.errors and np.isfinite(answer.columns["loss"]).all()

    run(work)
    assert decoded.count(len(slow)) < 5


def test_a_cancelled_request_is_not_computed(make: Make) -> None:
    bench = make()

    async def work() -> None:
        with bench.held():
            gone: Any = bench.score(pictures(5))
            await asyncio.sleep(0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            assert bench.metrics.waiting == 0
            good = bench.score(pictures(2))
            await asyncio.sleep(0)
        await good

    run(work)
    assert sum(bench.sizes) == 2
    assert bench.metrics.dropped == [("cancelled", 5)]


def test_an_engine_that_fails_fails_those_in_the_batch_alone(make: Make) -> None:
    bench, images = make(threads=1), pictures(20)

    async def work() -> None:
        bench.failing = True
        outcomes = await asyncio.gather(
            *(bench.score(images[n : n + 4]) for n in range(0, 20, 4)), return_exceptions=True
        )
        assert [str(outcome) for outcome in outcomes] == ["out of luck"] * 5
        assert len({id(outcome) for outcome in outcomes}) == 5
        bench.failing = False
        close_to((await bench.score(images)).columns["loss"], bench.want(images))

    run(work)


def test_a_failed_part_ends_a_large_request(make: Make) -> None:
    bench = make(threads=1)
    bench.failing = True

    async def work() -> None:
        with pytest.raises(EngineError, match="out of luck"):
            await bench.score(pictures(10 * BATCH))

    run(work)
    bench.batcher.close()
    assert len(bench.sizes) <= 2


def test_closing_finishes_what_is_queued_and_refuses_more(make: Make) -> None:
    bench = make()

    async def work() -> None:
        loop = asyncio.get_running_loop()
        with bench.held():
            asked = [bench.score(pictures(4)) for _ in range(5)]
            await asyncio.sleep(0)
            closing = loop.run_in_executor(None, bench.batcher.close)
            while not bench.batcher._closed:
                await asyncio.sleep(0.001)
            with pytest.raises(ClosedError) as refused:
                await bench.score(pictures(1))
            assert refused.value.status == 503 and refused.value.retry_after
            assert not closing.done()
        answers = await asyncio.gather(*asked)
        assert all(len(answer.columns["loss"]) == 4 for answer in answers)
        await closing

    run(work)
    bench.batcher.close()


def test_closing_does_not_wait_for_who_went(make: Make) -> None:
    bench = make()

    async def work() -> None:
        with bench.held():
            gone: Any = bench.score(pictures(4))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0.01)
        await asyncio.get_running_loop().run_in_executor(None, bench.batcher.close)

    run(work)
    assert not bench.sizes


def test_a_scorer_that_is_closed_under_it_is_told(make: Make) -> None:
    bench = make()

    async def work() -> None:
        with bench.held():
            waiting = [bench.score(pictures(1)) for _ in range(3)]
            await asyncio.sleep(0)
            closing = asyncio.get_running_loop().run_in_executor(None, bench.scorer.close)
            while not bench.scorer._closed:
                await asyncio.sleep(0.001)
        for one in [*waiting, bench.score(pictures(1))]:
            with pytest.raises(EngineError, match="closed"):
                await one
        await closing

    run(work)
    bench.batcher.close()


def test_several_loops_may_ask(make: Make) -> None:
    bench, images = make(), pictures(40)
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        async def work() -> None:
            mine = images[10 * number : 10 * number + 10]
            answers = await asyncio.gather(*(bench.score(mine[n : n + 1]) for n in range(10)))
            found[number] = np.concatenate([a.columns["loss"] for a in answers])

        asyncio.run(work())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    close_to(np.concatenate([found[n] for n in range(4)]), bench.want(images))
