"""Threads that run the most urgent task first."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
import weakref

import pytest
from lloss.serve.scoring.batch.priority_threads import LIVE, POOL, WorkerPool, WorkerPools

from ....waiting import PATIENCE, until


def threads(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_urgent_tasks_run_first_and_others_in_their_order() -> None:
    pools, free, done, begun = WorkerPools(), threading.Event(), list[str](), threading.Event()
    batch, serving = pools.get(1, "t"), pools.get(1, "t")
    batch.submit(lambda: (begun.set(), free.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    for number in range(3):
        batch.submit(lambda n=number: done.append(f"pool {n}"), POOL)  # type: ignore[misc]
    for number in range(2):
        serving.submit(lambda n=number: done.append(f"live {n}"), LIVE)  # type: ignore[misc]
    assert serving.idle == 0
    free.set()
    pools.close()
    assert done == ["live 0", "live 1", "pool 0", "pool 1", "pool 2"]


def test_closing_waits_for_submitted_tasks_and_refuses_more() -> None:
    pool, done = WorkerPool(2, "t"), list[int]()
    for number in range(20):
        pool.submit(lambda n=number: (time.sleep(0.002), done.append(n)))  # type: ignore[misc]
    pool.close()
    assert sorted(done) == list(range(20))
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(lambda: None)
    pool.close()


def test_a_task_may_close_its_pool() -> None:
    pool, done = WorkerPool(1, "t"), threading.Event()
    pool.submit(lambda: (pool.close(), done.set()))
    assert done.wait(PATIENCE)


def test_an_exception_is_logged_and_its_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    pool, ran = WorkerPool(1, "t"), set[int]()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            pool.submit(lambda: ran.add(threading.get_ident()))
            pool.submit(lambda: 1 // 0)
        pool.close()
    assert len(ran) == 1
    assert sum("a task of t failed" in line for line in caplog.messages) == 3


def test_threads_start_when_they_are_needed() -> None:
    pool, free = WorkerPool(3, "few"), threading.Event()
    assert threads("few") == 0 and pool.idle == 3
    for _ in range(20):  # one after another
        done = threading.Event()
        pool.submit(done.set)
        assert done.wait(PATIENCE)
        until(lambda: pool.idle == 3)
    assert threads("few") == 1
    for _ in range(5):
        pool.submit(lambda: free.wait(PATIENCE))
    until(lambda: pool.idle == 0)
    assert threads("few") == 3
    free.set()
    pool.close()
    assert threads("few") == 0 and pool.idle == 3


def test_a_task_is_refused_when_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, done = WorkerPool(2, "t"), list[int]()

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            pool.submit(lambda: done.append(1))
    pool.submit(lambda: done.append(2))
    pool.close()
    assert done == [2]


def test_threads_of_a_collected_pool_end() -> None:
    pool = WorkerPool(2, "forgotten")
    gone = weakref.ref(pool)
    pool.submit(lambda: None)
    del pool
    gc.collect()
    assert gone() is None
    until(lambda: not threads("forgotten"))


def test_the_program_ends_after_the_submitted_tasks() -> None:
    program = """
import time
from lloss.serve.scoring.batch.priority_threads import WorkerPool
pool = WorkerPool(1, "t")
for n in range(3):
    pool.submit(lambda n=n: (time.sleep(0.05), print(n, flush=True)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["0", "1", "2"] and not ran.stderr
