"""Read → decode → engine: in order, in bounded memory, and whole again after any failure."""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch import pipeline
from lloss.serve.scoring.engine.gpu_executor import DeviceExecutor
from lloss.serve.scoring.engine.session import Engine
from lloss.serve.scoring.result import Scores

from lloss import Scorer
from lloss.errors import EngineError, ImageError, PoolError
from lloss.pools import ArrayPool, Chunk, Item, Pool
from lloss.pools.arrays import MemoryRows
from lloss.runtime.providers import open_session, setup_of

from ....waiting import PATIENCE

BATCH = 8


def on_a_device(scorer: Scorer) -> Scorer:
    """The scorer with the executor of devices, whose device is the CPU."""
    made = scorer.engine
    setup = setup_of(made.manifest, "cpu", made.batch_size)
    session = open_session(made.path, setup, made.sha256).session
    made.executor = DeviceExecutor(session, made.manifest, made.batch_size, 4, device="cpu")
    made.provider, made.lanes = "device", 2
    return scorer


Make = Callable[..., Scorer]


@pytest.fixture(params=["host", "device"])
def make(request: pytest.FixtureRequest, artifact: Path) -> Iterator[Make]:
    """Scorers for both paths; closed at the end, in a thread so that a hang is an error."""
    made: list[Scorer] = []

    def scorer(threads: int = 2, **options: Any) -> Scorer:
        fresh = Scorer(artifact, "cpu", **{"batch_size": BATCH, "threads": threads, **options})
        made.append(fresh if request.param == "host" else on_a_device(fresh))
        return made[-1]

    yield scorer
    for fresh in made:
        within(fresh.close)


class Thread:
    """A call in a thread that ends with the process: one that hangs fails."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._outcome = [call(), None]
        except BaseException as error:
            self._outcome = [None, error]

    def result(self, seconds: float = PATIENCE) -> Any:
        self._thread.join(seconds)
        assert self._outcome, "it hangs"
        value, error = self._outcome
        if error is not None:
            raise error
        return value


def within(call: Callable[[], Any]) -> Any:
    """What a call returns or raises, unless it hangs."""
    return Thread(call).result()


def pictures(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


class Made(Pool):
    """Images that are read through a function, which is watched."""

    uri = "made"
    unique = True

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


def expected(artifact: Path, images: np.ndarray) -> np.ndarray:
    made = Engine(artifact, "cpu", 1, BATCH)
    return made.run(images)["loss"]


def ids_of(batches: list[Scores]) -> list[str]:
    return [id for batch in batches for id in batch.ids]


def losses_of(batches: list[Scores]) -> np.ndarray:
    return np.concatenate([batch.loss for batch in batches])


def _assert_idle_now(scorer: Scorer) -> None:
    """Every buffer is back, and no thread feeds."""
    executor: Any = scorer.engine.executor
    if scorer.engine.on_host:
        assert executor._free.qsize() == scorer.engine.lanes
    else:
        assert len(executor._free) == 4 and not executor._held
    assert not [t for t in threading.enumerate() if t.name == "lloss-feed"]


def assert_idle(scorer: Scorer) -> None:
    """All threads end and all buffers come back, soon after a run was left."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _assert_idle_now(scorer)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def assert_sound(scorer: Scorer, artifact: Path) -> None:
    """It still scores, and has all that it had."""
    assert_idle(scorer)
    images = pictures(50, seed=9)
    batches = within(lambda: list(scorer.stream(Made(images))))
    assert ids_of(batches) == [f"i{n}" for n in range(50)]
    np.testing.assert_allclose(losses_of(batches), expected(artifact, images), rtol=1e-4, atol=1e-5)
    assert_idle(scorer)


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("threads", [1, 5])
def test_the_order_is_the_pools_however_long_each_takes(
    make: Make, artifact: Path, threads: int, remote: bool
) -> None:
    images = pictures(101)
    waits = random.Random(0)
    pauses = [waits.choice([0, 0, 0, 0.001, 0.01]) for _ in images]

    def read(number: int) -> np.ndarray:
        time.sleep(pauses[number])
        return images[number]

    scorer = make(threads)
    batches = within(lambda: list(scorer.stream(Made(images, read, remote))))
    assert ids_of(batches) == [f"i{n}" for n in range(101)]
    assert [batch.start for batch in batches] == list(range(0, 101, BATCH))
    wanted = expected(artifact, images)
    if scorer.engine.on_host:
        assert np.array_equal(losses_of(batches), wanted)
    np.testing.assert_allclose(losses_of(batches), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_a_consumer_that_reads_no_more_holds_the_pool_back(make: Make, remote: bool) -> None:
    scorer = make(readers=4)
    pool = Made(pictures(2000), remote=remote)
    batches = scorer.stream(pool)
    within(lambda: next(batches))
    before = -1
    while before != pool.begun:
        before = pool.begun
        time.sleep(0.1)
    assert scorer._pipeline is not None
    assert BATCH < pool.begun <= (scorer._pipeline.window + 2) * BATCH < 200
    batches.close()
    assert_idle(scorer)


def test_bytes_under_way_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_BYTES_A_LANE", 4 << 20)  # 16 MB in all
    images = [600] * 120  # 1 MB each, a batch 9 MB
    alive = most = 0
    lock = threading.Lock()

    def gone() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    def read(side: int) -> np.ndarray:
        nonlocal alive, most
        made = np.zeros((600, 600, 3), np.uint8)
        weakref.finalize(made, gone)
        with lock:
            alive += 1
            most = max(most, alive)
        time.sleep(0.001)
        return made

    scorer = make()
    assert (
        sum(map(len, within(lambda: list(scorer.stream(Made(images, read, remote=True)))))) == 120
    )
    # Two batches may be under way whatever their size; all the window has room for is 8.
    assert most <= 3 * BATCH


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_a_bad_image_changes_no_bit_of_the_others(make: Make, remote: bool) -> None:
    scorer, images = make(), pictures(40)
    clean = within(lambda: list(scorer.stream(Made(images))))

    def read(number: int) -> Any:
        if number in (5, 6, 17):
            raise ImageError(f"broken {number}")
        return b"no image" if number == 39 else images[number]

    broken = within(lambda: list(scorer.stream(Made(images, read, remote))))
    bad = {"i5": "broken 5", "i6": "broken 6", "i17": "broken 17"}
    told = dict(row for batch in broken for row in batch.skipped)
    assert "not an image" in told.pop("i39") and told == bad
    assert [batch.seen for batch in broken] == [BATCH] * 5
    good = [n for n in range(40) if n not in (5, 6, 17, 39)]
    assert ids_of(broken) == [f"i{n}" for n in good]
    for name in scorer.manifest.outputs:
        wanted = np.concatenate([batch.columns[name] for batch in clean])[good]
        assert np.array_equal(np.concatenate([b.columns[name] for b in broken]), wanted), name


def test_a_batch_of_bad_images_alone_is_told(make: Make) -> None:
    scorer, images = make(), pictures(24)
    pool = Made(images, lambda n: b"" if 8 <= n < 16 else images[n])
    batches = within(lambda: list(scorer.stream(pool)))
    assert [(len(b), len(b.skipped), b.start) for b in batches] == [
        (8, 0, 0),
        (0, 8, 8),
        (8, 0, 16),
    ]
    assert set(batches[1].columns) == set(scorer.manifest.outputs)


def taken_until(batches: Iterator[Scores], error: type[Exception], match: str) -> list[str]:
    """The ids that come before an error."""
    ids: list[str] = []

    def take() -> None:
        for batch in batches:
            ids.extend(batch.ids)

    with pytest.raises(error, match=match):
        within(take)
    return ids


def test_an_engine_that_fails_is_told_in_order(
    make: Make, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = make()
    run, images = scorer.engine.executor.run, pictures(200)
    marked = images[3 * BATCH].copy()

    def failing(buffer: Any, count: int) -> Any:
        if np.array_equal(buffer.pixels[0], marked):
            raise EngineError("out of luck")
        return run(buffer, count)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.engine.executor, "run", failing)
        ids = taken_until(scorer.stream(Made(images)), EngineError, "out of luck")
    assert ids == [f"i{n}" for n in range(3 * BATCH)]
    assert_sound(scorer, artifact)


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_a_pool_that_breaks_while_it_is_read_is_told_in_order(
    make: Make, artifact: Path, remote: bool
) -> None:
    scorer, images = make(), pictures(200)

    def read(number: int) -> np.ndarray:
        if number == 37:
            raise PoolError("the file became shorter")
        return images[number]

    ids = taken_until(scorer.stream(Made(images, read, remote)), PoolError, "became shorter")
    assert ids == [f"i{n}" for n in range(32)]
    assert_sound(scorer, artifact)


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_a_listing_that_breaks_is_told_in_order(make: Make, artifact: Path, remote: bool) -> None:
    class Broken(Made):
        def __iter__(self) -> Iterator[Item]:
            for number, item in enumerate(super().__iter__()):
                if number == 37:
                    raise PoolError("a damaged archive")
                yield item

    scorer = make()
    pool = Broken(pictures(200), remote=remote)
    ids = taken_until(scorer.stream(pool), PoolError, "a damaged archive")
    assert ids == [f"i{n}" for n in range(32)]
    assert_sound(scorer, artifact)


def test_any_other_error_of_a_pool_surfaces_too(make: Make, artifact: Path) -> None:
    scorer, images = make(), pictures(50)

    def read(number: int) -> np.ndarray:
        return images[number * (1 // (number != 20))]

    pool = Made(images, read)
    taken_until(scorer.stream(pool), ZeroDivisionError, "zero")
    assert_sound(scorer, artifact)


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize("batches", [0, 1, 5])
def test_who_stops_early_leaves_nothing_behind(
    make: Make, artifact: Path, batches: int, remote: bool
) -> None:
    scorer, pool = make(), Made(pictures(1000), remote=remote)
    stream = scorer.stream(pool)
    for _ in range(batches):
        within(lambda: next(stream))
    within(stream.close)
    assert pool.begun < 400
    assert_sound(scorer, artifact)


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_closing_ends_a_run_and_does_not_hang(make: Make, remote: bool) -> None:
    for attempt in range(6):
        scorer, images = make(), pictures(4000)
        got: list[Scores] = []

        def consume(scorer: Scorer = scorer, images: Any = images, got: Any = got) -> None:
            for batch in scorer.stream(Made(images, remote=remote)):
                got.append(batch)

        running = Thread(consume)
        while len(got) < attempt:
            time.sleep(0.001)
        within(scorer.close)
        with pytest.raises(EngineError, match="closed"):
            running.result()
        # What it did give is whole: no batch of nothing, none left out.
        assert [batch.start for batch in got] == list(range(0, BATCH * len(got), BATCH))
        assert all(len(batch) == BATCH for batch in got)


def test_a_feeder_that_meets_a_closed_executor_ends_the_run(make: Make) -> None:
    """As when the scorer is closed between two batches."""
    scorer = make()
    stream = scorer.stream(Made(pictures(1000)))
    within(lambda: next(stream))
    scorer.engine.close()
    with pytest.raises(EngineError, match="closed"):
        within(lambda: list(stream))


def test_closing_from_the_consumers_own_loop(make: Make) -> None:
    scorer, count = make(), 0

    def consume() -> None:
        nonlocal count
        for _ in scorer.stream(Made(pictures(1000))):
            count += 1
            scorer.close()

    with pytest.raises(EngineError, match="closed"):
        within(consume)
    assert 1 <= count < 30


def test_threads_that_stream_and_score_at_once_get_their_own(make: Make, artifact: Path) -> None:
    scorer = make()
    sets = [pictures(20 + 7 * seed, seed) for seed in range(6)]
    wanted = [expected(artifact, images) for images in sets]

    def work(number: int) -> None:
        images = sets[number % 6]
        if number % 3 == 0:
            loss = scorer.score(images).loss
        elif number % 3 == 1:
            loss = losses_of(list(scorer.stream(Made(images, remote=number % 2 == 0))))
        else:  # a batch and no more, in the thread of the caller
            loss = np.concatenate([scorer.score(part).loss for part in np.array_split(images, 12)])
        np.testing.assert_allclose(loss, wanted[number % 6], rtol=1e-4, atol=1e-5)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number) for number in range(36)]:
            done.result(PATIENCE)
    assert_idle(scorer)


@pytest.mark.parametrize("batch", [BATCH, 2])
def test_many_readers_wait_for_a_store_at_once(make: Make, batch: int) -> None:
    scorer, images = make(readers=32, batch_size=batch), pictures(160)

    def read(number: int) -> np.ndarray:
        time.sleep(0.2)  # long beside the starting of a thread
        return images[number]

    pool = Made(images, read, remote=True)
    assert sum(map(len, within(lambda: list(scorer.stream(pool))))) == 160
    assert 16 <= pool.most_at_once <= 32


class RemoteRows(MemoryRows):
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


def test_rows_of_a_remote_array_come_in_one_reading_a_batch(make: Make, artifact: Path) -> None:
    images = pictures(100)
    rows = RemoteRows(images)
    scorer = make()
    batches = within(lambda: list(scorer.stream(ArrayPool(rows, "s3://b/a.npy", remote=True))))
    assert (rows.whole, rows.single) == (13, 0)
    np.testing.assert_allclose(losses_of(batches), expected(artifact, images), rtol=1e-4, atol=1e-5)


def test_pieces_of_a_large_batch_come_together_again(make: Make, artifact: Path) -> None:
    """More images than one thread decodes in a row."""
    scorer, images = make(threads=3, batch_size=100), pictures(230, size=9)
    batches = within(lambda: list(scorer.stream(Made(images, lambda n: images[n][:8, :8]))))
    assert [len(batch) for batch in batches] == [100, 100, 30]
    wanted = expected(artifact, np.ascontiguousarray(images[:, :8, :8]))
    np.testing.assert_allclose(losses_of(batches), wanted, rtol=1e-4, atol=1e-5)


def test_a_device_gives_what_the_host_gives(artifact: Path, photos: Path) -> None:
    with (
        Scorer(artifact, "cpu", batch_size=16) as host,
        on_a_device(Scorer(artifact, "cpu", batch_size=16)) as device,
    ):
        ours, theirs = (within(lambda s=s: list(s.stream(photos))) for s in (host, device))
        assert ids_of(ours) == ids_of(theirs)
        np.testing.assert_allclose(losses_of(ours), losses_of(theirs), rtol=1e-4, atol=1e-5)


def test_a_stream_is_left_without_waiting_for_any_lock(artifact: Path) -> None:
    """The garbage collector may end it in any thread, whatever locks that thread holds.

    Such as that of the threads' pool, which the feeder needs to hand over what it begins.
    """
    with Scorer(artifact, "cpu", batch_size=4, threads=1) as scorer:
        stream = scorer.stream(Made(pictures(400)))
        next(stream)
        assert scorer._pipeline is not None

        def left() -> None:
            with scorer._pipeline.workers._shared.changed:  # type: ignore[union-attr]
                stream.close()  # type: ignore[attr-defined]

        within(left)
        assert_sound(scorer, artifact)


class Asked:
    """Chunks for ``when_free``, and when they were taken."""

    def __init__(self, scorer: Scorer, images: Any, **options: Any) -> None:
        self.taken = threading.Event()
        self.images = images
        self.result = scorer.when_free(self.take, **options)

    def take(self, idle: int) -> Chunk | None:
        self.taken.set()
        self.idle = idle
        if self.images is None:
            return None
        images = self.images
        return Chunk(0, [Item(str(n), lambda n=n: images[n]) for n in range(len(images))])  # type: ignore[misc]


def held(scorer: Scorer) -> threading.Event:
    """Every thread that decodes is busy until this is set."""
    free, workers = threading.Event(), scorer._started().workers
    for _ in range(workers.count):
        workers.submit(lambda: free.wait(PATIENCE), -1)
    while workers.idle:
        time.sleep(0.001)
    return free


def test_what_is_there_when_a_lane_is_free_is_scored(make: Make, artifact: Path) -> None:
    scorer, images = make(), pictures(BATCH)
    given = [*images[:3], b"no image", *images[3:6]]
    scores = Asked(scorer, given).result.result(PATIENCE)
    assert scores.ids == ["0", "1", "2", "4", "5", "6"]
    assert [id for id, _ in scores.skipped] == ["3"]
    np.testing.assert_allclose(scores.loss, expected(artifact, images[:6]), rtol=1e-4, atol=1e-5)
    nothing = Asked(scorer, None).result.result(PATIENCE)
    assert len(nothing) == 0 and set(nothing.columns) == set(scorer.manifest.outputs)
    assert_sound(scorer, artifact)


def test_it_is_taken_at_the_last_moment_and_before_a_pool(make: Make, artifact: Path) -> None:
    scorer, order = make(threads=1), list[str]()
    host = scorer.engine.on_host

    def read(number: int) -> np.ndarray:
        order.append(f"pool {number // BATCH}")
        time.sleep(0.002)
        return images[number]

    images = pictures(30 * BATCH)
    batches = scorer.stream(Made(images, read))
    within(lambda: next(batches))  # the pool has several batches ahead
    free = held(scorer)
    order.clear()
    asked = [Asked(scorer, pictures(2)) for _ in range(3)]
    time.sleep(0.05)
    if host:
        assert not any(one.taken.is_set() for one in asked)
    free.set()
    for one in asked:
        one.result.add_done_callback(lambda _: order.append("live"))
    for one in asked:
        one.result.result(PATIENCE)
    seen = order[: order.index("live") + 1]
    # At most what was worked on, or (on a device) decoded already, comes before.
    assert len(set(seen)) <= 2 if host else len(set(seen)) <= 5
    rest = within(lambda: list(batches))
    assert sum(map(len, rest)) == 29 * BATCH
    assert_sound(scorer, artifact)


def test_pools_and_requests_at_once_get_their_own(make: Make, artifact: Path) -> None:
    scorer = make()
    images = pictures(400, 1)
    few = [pictures(1 + n % BATCH, n) for n in range(60)]
    running = [Thread(lambda: losses_of(list(scorer.stream(Made(images))))) for _ in range(2)]
    asked = []
    for some in few:
        asked.append(Asked(scorer, some))
        time.sleep(0.001)
    for some, one in zip(few, asked):
        found = one.result.result(PATIENCE).loss
        np.testing.assert_allclose(found, expected(artifact, some), rtol=1e-4, atol=1e-5)
    for run in running:
        np.testing.assert_allclose(run.result(), expected(artifact, images), rtol=1e-4, atol=1e-5)
    assert_idle(scorer)


def test_requests_pass_a_pool_that_decodes_slowly(make: Make) -> None:
    """On a device too, where the pool could hold every buffer."""
    scorer = make(threads=2)
    images, read = pictures(400), lambda n: (time.sleep(0.02), pictures(1)[0])[1]
    Asked(scorer, pictures(1)).result.result(PATIENCE)
    batches = scorer.stream(Made(images, read))
    Thread(lambda: next(batches)).result()
    begun = time.perf_counter()
    for _ in range(5):
        Asked(scorer, pictures(1)).result.result(PATIENCE)
    # A batch of the pool takes 0.16 s of one thread's time, four of them are under way.
    assert time.perf_counter() - begun < 5 * 6  # of a busy machine
    batches.close()
    assert_idle(scorer)


def test_a_declared_size_over_the_limit_is_an_error_of_that_image(
    make: Make, encoded: Callable[..., bytes]
) -> None:
    scorer = make()
    given = [encoded(np.zeros((20, 20, 3), np.uint8)), encoded(np.zeros((10, 10, 3), np.uint8))]
    scores = Asked(scorer, given, max_pixels=100).result.result(PATIENCE)
    assert scores.ids == ["1"] and "20×20 pixels, over the limit of 100" in scores.skipped[0][1]


def test_a_take_that_fails_is_told(make: Make, artifact: Path) -> None:
    scorer = make()

    def take(idle: int) -> Chunk | None:
        raise ZeroDivisionError("oh")

    with pytest.raises(ZeroDivisionError, match="oh"):
        scorer.when_free(take).result(PATIENCE)
    assert_sound(scorer, artifact)


def test_after_closing_nothing_is_taken(make: Make) -> None:
    scorer = make()
    free = held(scorer)
    asked = [Asked(scorer, pictures(1)) for _ in range(4)]
    closing = Thread(scorer.close)
    while not scorer._closed:
        time.sleep(0.001)
    free.set()
    closing.result()
    for one in asked:
        with pytest.raises(EngineError, match="closed"):
            one.result.result(PATIENCE)
    with pytest.raises(EngineError, match="closed"):
        scorer.when_free(lambda idle: None)


def test_other_idle_lanes_are_told(artifact: Path) -> None:
    with Scorer(artifact, "cpu", batch_size=4, threads=3) as scorer:
        one = Asked(scorer, pictures(1))
        one.result.result(PATIENCE)
        assert one.idle == 2
        free = held(scorer)
        one = Asked(scorer, pictures(1))
        free.set()
        one.result.result(PATIENCE)
        assert 0 <= one.idle <= 2
