"""Read, decode, score: in order, in bounded memory, and whole again after any failure."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch import pipeline
from lloss.serve.scoring.engine.engine import Engine
from lloss.serve.scoring.engine.gpu_executor import GpuExecutor
from lloss.serve.scoring.result import Scores

from lloss import Scorer
from lloss.errors import EngineError, ImageError, PoolError
from lloss.pools import ArrayPool, Chunk, Item, Pool
from lloss.pools.array_pool import Rows
from lloss.runtime.providers import SessionSetup, open_session

from ....waiting import PATIENCE, until
from ..fakes import hold_all, pictures

BATCH = 8
REMOTE = pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])


def on_a_gpu(scorer: Scorer) -> Scorer:
    """The scorer with the executor of GPUs."""
    engine = scorer.engine
    session = open_session(engine.path, SessionSetup(engine.manifest, "cpu", 1), "")
    engine.executor = GpuExecutor(session, engine.manifest, engine.batch_size)
    engine.provider, engine.concurrency = "cuda", 2
    return scorer


Make = Callable[..., Scorer]


@pytest.fixture(params=["cpu", "gpu"])
def make(request: pytest.FixtureRequest, onnx_file: Path) -> Iterator[Make]:
    """Scorers for both paths; a close that hangs is an error."""
    scorers: list[Scorer] = []

    def scorer(threads: int = 2, **options: Any) -> Scorer:
        made = Scorer(onnx_file, "cpu", **{"batch_size": BATCH, "threads": threads, **options})
        scorers.append(made if request.param == "cpu" else on_a_gpu(made))
        return scorers[-1]

    yield scorer
    for made in scorers:
        within(made.close)


def in_thread(call: Callable[[], Any]) -> Future[Any]:
    """Run a call in a thread that ends with the process, so that a call that hangs fails."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def within(call: Callable[[], Any]) -> Any:
    """The result of a call, unless it hangs."""
    return in_thread(call).result(PATIENCE)


def scored(scorer: Scorer, pool: Any) -> list[Scores]:
    return within(lambda: list(scorer.stream(pool)))


class ReadPool(Pool):
    """Images that a function reads; counts its calls."""

    uri, unique = "made", True

    def __init__(
        self, images: Any, read: Callable[[int], Any] | None = None, remote: bool = False
    ) -> None:
        self.images, self.remote = images, remote
        self._reader = read or (lambda number: images[number])
        self._lock = threading.Lock()
        self.begun = self.reading = self.most_at_once = 0

    def __iter__(self) -> Iterator[Item]:
        return (Item(f"i{n}", partial(self._read, n)) for n in range(len(self.images)))

    def _read(self, number: int) -> Any:
        with self._lock:
            self.begun += 1
            self.reading += 1
            self.most_at_once = max(self.most_at_once, self.reading)
        try:
            return self._reader(number)
        finally:
            with self._lock:
                self.reading -= 1


@pytest.fixture(scope="module")
def plain(onnx_file: Path) -> Engine:
    return Engine(onnx_file, "cpu", 1, BATCH)


def ids_of(batches: list[Scores]) -> list[str]:
    return [id for batch in batches for id in batch.ids]


def assert_losses(batches: list[Scores], plain: Engine, images: np.ndarray) -> None:
    losses = np.concatenate([batch.loss for batch in batches])
    np.testing.assert_allclose(losses, plain.run(images)["loss"], rtol=1e-4, atol=1e-5)


def is_idle(scorer: Scorer) -> bool:
    """Whether every buffer is back."""
    executor: Any = scorer.engine.executor
    count = executor._free.qsize() + executor._urgent.qsize()
    all_buffers = scorer.engine.concurrency if scorer.engine.on_host else 5
    return count == all_buffers


def assert_sound(scorer: Scorer, plain: Engine) -> None:
    """It still scores, and loses no buffer."""
    until(lambda: is_idle(scorer))
    images = pictures(50, seed=9)
    batches = scored(scorer, ReadPool(images))
    assert ids_of(batches) == [f"i{n}" for n in range(50)]
    assert_losses(batches, plain, images)
    until(lambda: is_idle(scorer))


@REMOTE
def test_scores_come_in_the_pools_order(make: Make, plain: Engine, remote: bool) -> None:
    images, waits = pictures(101), random.Random(0)
    pauses = [waits.choice([0, 0, 0, 0.001, 0.01]) for _ in images]

    def read(number: int) -> np.ndarray:
        time.sleep(pauses[number])
        return images[number]

    batches = scored(make(5), ReadPool(images, read, remote))
    assert ids_of(batches) == [f"i{n}" for n in range(101)]
    assert [batch.start for batch in batches] == list(range(0, 101, BATCH))
    assert_losses(batches, plain, images)


@REMOTE
def test_a_slow_consumer_holds_the_pool_back(make: Make, remote: bool) -> None:
    scorer, pool = make(readers=4), ReadPool(pictures(2000), remote=remote)
    batches = scorer.stream(pool)
    within(lambda: next(batches))
    before = -1
    while before != pool.begun:
        before = pool.begun
        time.sleep(0.1)
    window = scorer._started().window
    assert BATCH < pool.begun <= (window + 2) * BATCH < 200
    batches.close()  # type: ignore[attr-defined]
    until(lambda: is_idle(scorer))


@pytest.mark.parametrize("first", [0, 1], ids=["batches", "a small batch first"])
def test_bytes_under_way_are_bounded(
    make: Make, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(pipeline, "_BYTES_PER_LANE", 4 << 20)  # 16 MB in all
    alive = most = 0
    lock = threading.Lock()

    def freed() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def read(side: int) -> np.ndarray:
        nonlocal alive, most
        image = np.zeros((side, side, 3), np.uint8)  # 1 MB, a batch 9 MB
        weakref.finalize(image, freed)
        with lock:
            alive += 1
            most = max(most, alive)
        time.sleep(0.001)
        return image

    pool = ReadPool([600] * 120, lambda number: read(600), remote=True)
    ranges = [range(first), *(range(at, at + BATCH) for at in range(first, 120, BATCH))]
    batches = within(lambda: list(make().ranges(pool, filter(None, ranges))))
    assert sum(map(len, batches)) == 120
    assert most <= 3 * BATCH  # two batches may be under way whatever their size


@REMOTE
def test_a_bad_image_keeps_no_others_in_memory(make: Make, remote: bool) -> None:
    """An error refers to its frames, and these to all images of their chunk."""
    images: list[weakref.ref[np.ndarray]] = []

    def read(number: int) -> np.ndarray:
        if number % BATCH == 3:
            raise ImageError("bad")
        image = np.zeros((9, 9, 3), np.uint8)
        images.append(weakref.ref(image))
        return image

    gc.disable()
    try:
        assert len(ids_of(scored(make(), ReadPool(range(160), read, remote)))) == 140
        assert sum(image() is not None for image in images) <= BATCH
    finally:
        gc.enable()


@REMOTE
def test_a_bad_image_changes_no_bit_of_the_others(make: Make, remote: bool) -> None:
    scorer, images = make(), pictures(40)
    clean = scored(scorer, ReadPool(images))
    bad = {5, 17, *range(24, 32), 39}  # a whole batch among them

    def read(number: int) -> Any:
        if number in bad:
            raise ImageError(f"broken {number}")
        return b"no image" if number == 6 else images[number]

    batches = scored(scorer, ReadPool(images, read, remote))
    reasons = dict(row for batch in batches for row in batch.skipped)
    assert "not an image" in reasons.pop("i6")
    assert reasons == {f"i{n}": f"broken {n}" for n in sorted(bad)}
    assert [batch.seen for batch in batches] == [BATCH] * 5 and batches[3].start == 24
    good = [n for n in range(40) if n not in bad and n != 6]
    assert ids_of(batches) == [f"i{n}" for n in good]
    for name in scorer.manifest.outputs:
        wanted = np.concatenate([batch.columns[name] for batch in clean])[good]
        assert np.array_equal(np.concatenate([b.columns[name] for b in batches]), wanted), name


class BrokenListing(ReadPool):
    """A pool whose listing fails at image 37."""

    def __iter__(self) -> Iterator[Item]:
        for number, item in enumerate(super().__iter__()):
            if number == 37:
                raise PoolError("a damaged archive")
            yield item


@REMOTE
@pytest.mark.parametrize(
    ("cause", "error", "match"),
    [
        ("engine", EngineError, "out of luck"),
        ("pool", PoolError, "became shorter"),
        ("listing", PoolError, "a damaged archive"),
        ("bug", ZeroDivisionError, "zero"),
    ],
)
def test_a_failure_comes_after_the_scores_before_it(
    make: Make,
    plain: Engine,
    monkeypatch: pytest.MonkeyPatch,
    remote: bool,
    cause: str,
    error: type[Exception],
    match: str,
) -> None:
    scorer, images = make(), pictures(200)
    run = scorer.engine.executor.run

    def read(number: int) -> np.ndarray:
        if number == 37 and cause == "pool":
            raise PoolError("the file became shorter")
        return images[number // (number != 37 or cause != "bug")]

    def failing(buffer: Any, count: int) -> Any:
        if cause == "engine" and np.array_equal(buffer.pixels[0], images[4 * BATCH]):
            raise EngineError("out of luck")
        return run(buffer, count)

    kind = BrokenListing if cause == "listing" else ReadPool
    ids: list[str] = []

    def take() -> None:
        for batch in scorer.stream(kind(images, read, remote)):
            ids.extend(batch.ids)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.engine.executor, "run", failing)
        with pytest.raises(error, match=match):
            within(take)
    assert ids == [f"i{n}" for n in range(4 * BATCH)]
    assert_sound(scorer, plain)


@REMOTE
@pytest.mark.parametrize("batches", [0, 3])
def test_a_stream_that_is_left_early_leaves_nothing_behind(
    make: Make, plain: Engine, batches: int, remote: bool
) -> None:
    scorer, pool = make(), ReadPool(pictures(1000), remote=remote)
    stream = scorer.stream(pool)
    for _ in range(batches):
        within(lambda: next(stream))
    within(stream.close)  # type: ignore[attr-defined]
    assert pool.begun < 400
    assert_sound(scorer, plain)


def test_a_stream_is_left_without_waiting_for_any_lock(onnx_file: Path, plain: Engine) -> None:
    """The garbage collector may end it in any thread, whatever locks that thread holds."""
    with Scorer(onnx_file, "cpu", batch_size=4, threads=1) as scorer:
        stream = scorer.stream(ReadPool(pictures(400)))
        next(stream)

        def leave() -> None:
            with scorer._started().slots.cores._lock:
                stream.close()  # type: ignore[attr-defined]

        within(leave)
        assert_sound(scorer, plain)


@REMOTE
@pytest.mark.parametrize("after", [0, 1, 5])
def test_closing_ends_a_run_and_does_not_hang(make: Make, remote: bool, after: int) -> None:
    scorer, images = make(), pictures(4000)
    batches: list[Scores] = []

    def consume() -> None:
        for batch in scorer.stream(ReadPool(images, remote=remote)):
            batches.append(batch)

    running = in_thread(consume)
    until(lambda: len(batches) >= after)
    within(scorer.close)
    with pytest.raises(EngineError, match="closed"):
        running.result(PATIENCE)
    # The batches before are whole, and none is missing.
    assert [batch.start for batch in batches] == list(range(0, BATCH * len(batches), BATCH))
    assert all(len(batch) == BATCH for batch in batches)


@pytest.mark.parametrize("batch", [BATCH, 2])
def test_many_readers_wait_for_a_store_at_once(make: Make, batch: int) -> None:
    scorer, images = make(readers=32, batch_size=batch), pictures(96)

    def read(number: int) -> np.ndarray:
        time.sleep(0.1)  # long beside the start of a thread
        return images[number]

    pool = ReadPool(images, read, remote=True)
    assert sum(map(len, scored(scorer, pool))) == 96
    assert 16 <= pool.most_at_once <= 32


class RemoteRows(Rows):
    """Rows of an array in a store, which counts the requests."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__(images)
        self.whole = self.single = 0

    def row(self, number: int) -> np.ndarray:
        self.single += 1
        return super().row(number)  # type: ignore[no-any-return]

    def read(self, start: int, out: np.ndarray) -> None:
        self.whole += 1
        super().read(start, out)


def test_rows_of_a_remote_array_are_read_once_a_batch(make: Make, plain: Engine) -> None:
    images = pictures(100)
    rows = RemoteRows(images)
    batches = scored(make(), ArrayPool(rows, "s3://b/a.npy", remote=True))
    assert (rows.whole, rows.single) == (13, 0)
    assert_losses(batches, plain, images)


def test_a_batch_of_several_pieces(make: Make, plain: Engine) -> None:
    """More images than one thread decodes in a row."""
    images = pictures(230)
    batches = scored(make(threads=3, batch_size=100), ReadPool(images))
    assert [len(batch) for batch in batches] == [100, 100, 30]
    assert_losses(batches, plain, images)


class Live:
    """Images for ``when_free``, and whether they were taken."""

    def __init__(self, scorer: Scorer, images: Any, **options: Any) -> None:
        self.taken, self.images = threading.Event(), images
        self.future = scorer.when_free(self.take, **options)

    def take(self) -> Chunk | None:
        self.taken.set()
        if self.images is None:
            return None
        images = self.images
        return Chunk(0, [Item(str(n), lambda n=n: images[n]) for n in range(len(images))])  # type: ignore[misc]

    def scores(self) -> Scores:
        return self.future.result(PATIENCE)


def occupy(scorer: Scorer) -> contextlib.ExitStack:
    """Hold every core until the stack is closed."""
    return hold_all(scorer._started().slots.cores)


def test_a_live_batch(make: Make, plain: Engine, encoded: Callable[..., bytes]) -> None:
    scorer, images = make(), pictures(BATCH)
    large = encoded(np.zeros((20, 20, 3), np.uint8))
    given = [*images[:3], b"no image", *images[3:6], large]
    scores = Live(scorer, given, max_pixels=100).scores()
    assert scores.ids == ["0", "1", "2", "4", "5", "6"]
    reasons = dict(scores.skipped)
    assert list(reasons) == ["3", "7"] and "20×20 pixels, over the limit of 100" in reasons["7"]
    assert_losses([scores], plain, images[:6])
    nothing = Live(scorer, None).scores()
    assert len(nothing) == 0 and set(nothing.columns) == set(scorer.manifest.outputs)

    def fail() -> Chunk | None:
        raise ZeroDivisionError("oh")

    with pytest.raises(ZeroDivisionError, match="oh"):
        scorer.when_free(fail).result(PATIENCE)
    assert_sound(scorer, plain)


def test_live_batches_are_taken_late_and_go_before_a_pool(make: Make, plain: Engine) -> None:
    scorer, order = make(threads=1), list[str]()
    images = pictures(30 * BATCH)

    def read(number: int) -> np.ndarray:
        order.append(f"pool {number // BATCH}")
        time.sleep(0.002)
        return images[number]

    batches = scorer.stream(ReadPool(images, read))
    within(lambda: next(batches))  # the pool has several batches ahead
    free = occupy(scorer)
    order.clear()
    live = [Live(scorer, pictures(2)) for _ in range(3)]
    time.sleep(0.05)
    if scorer.engine.on_host:
        assert not any(one.taken.is_set() for one in live)
    for one in live:
        one.future.add_done_callback(lambda _: order.append("live"))
    free.close()
    for one in live:
        one.scores()
    # Before them come only batches in work; on a GPU also those that are decoded.
    before = set(order[: order.index("live")])
    assert len(before) <= (1 if scorer.engine.on_host else 4)
    assert sum(map(len, within(lambda: list(batches)))) == 29 * BATCH
    assert_sound(scorer, plain)


def test_every_caller_gets_its_own_scores(make: Make, plain: Engine) -> None:
    scorer = make()
    sets = [pictures(20 + 7 * seed, seed) for seed in range(6)]

    def work(number: int) -> None:
        images, way = sets[number % 6], number % 4
        if way == 0:
            batches = [scorer.score(images)]
        elif way == 1:
            batches = list(scorer.stream(ReadPool(images, remote=number % 8 == 1)))
        elif way == 2:
            batches = [scorer.score(part) for part in np.array_split(images, 12)]
        else:
            live = [Live(scorer, part) for part in np.array_split(images, 12)]
            batches = [one.scores() for one in live]
        assert_losses(batches, plain, images)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number) for number in range(48)]:
            done.result(PATIENCE)
    until(lambda: is_idle(scorer))


def test_after_closing_nothing_is_taken(make: Make) -> None:
    scorer = make()
    free = occupy(scorer)
    live = [Live(scorer, pictures(1)) for _ in range(4)]
    closing = in_thread(scorer.close)
    until(lambda: scorer._closed)
    free.close()
    closing.result(PATIENCE)
    for one in live:
        with pytest.raises(EngineError, match="closed"):
            one.scores()
    with pytest.raises(EngineError, match="closed"):
        scorer.when_free(lambda: None)


def test_what_could_not_be_started_is_never_run(
    make: Make, plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor keeps a task for which it could start no thread."""
    scorer, taken = make(), []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(("lloss-live", "lloss-pool")):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(EngineError, match="cannot start"):
            scorer.when_free(lambda: taken.append(1))
        with pytest.raises(EngineError, match="cannot start"):
            scored(scorer, ReadPool(pictures(4)))
    assert scorer.when_free(lambda: taken.append(2)).result(PATIENCE).seen == 0
    assert taken == [2]
    assert_sound(scorer, plain)
