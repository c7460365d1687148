"""Threads that take up the most urgent task first."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time
import weakref

import pytest
from lloss.serve.scoring.batch.worker_pool import LIVE, POOL, Team, Workers

from ....waiting import PATIENCE


def test_urgent_tasks_go_first_and_others_in_their_order() -> None:
    workers, free, done = Workers(1, "t"), threading.Event(), list[str]()
    workers.submit(lambda: free.wait(PATIENCE))
    for number in range(5):
        workers.submit(lambda n=number: done.append(f"pool {n}"), POOL)  # type: ignore[misc]
    for number in range(3):
        workers.submit(lambda n=number: done.append(f"live {n}"), LIVE)  # type: ignore[misc]
    free.set()
    workers.shutdown()
    assert done == [*(f"live {n}" for n in range(3)), *(f"pool {n}" for n in range(5))]


def test_shutdown_waits_for_what_is_queued_and_refuses_more() -> None:
    workers, done = Workers(2, "t"), list[int]()
    for number in range(20):
        workers.submit(lambda n=number: (time.sleep(0.005), done.append(n)))  # type: ignore[misc]
    workers.shutdown()
    assert sorted(done) == list(range(20))
    with pytest.raises(RuntimeError, match="after shutdown"):
        workers.submit(lambda: None)
    workers.shutdown()


def test_an_exception_ends_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    workers, threads = Workers(1, "t"), set[int]()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            workers.submit(lambda: threads.add(threading.get_ident()))
            workers.submit(lambda: 1 // 0)
        workers.shutdown()
    assert len(threads) == 1
    assert sum("a task of t failed" in line for line in caplog.messages) == 3


def test_threads_start_when_they_are_needed() -> None:
    workers, free = Workers(3, "few"), threading.Event()

    def threads() -> int:
        return sum(thread.name.startswith("few") for thread in threading.enumerate())

    assert threads() == 0 and workers.idle == 3
    for _ in range(5):
        workers.submit(lambda: free.wait(PATIENCE))
    until = time.monotonic() + PATIENCE
    while workers.idle and time.monotonic() < until:
        time.sleep(0.001)
    assert threads() == 3 and workers.idle == 0
    free.set()
    workers.shutdown()
    assert threads() == 0 and workers.idle == 3


def test_one_thread_serves_who_waits_for_it() -> None:
    workers = Workers(4, "t")
    for _ in range(50):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(PATIENCE)
        time.sleep(0.001)
    assert len(workers._shared._threads) <= 2
    workers.shutdown()


def test_without_a_thread_the_task_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    workers, done = Workers(2, "t"), list[int]()

    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(RuntimeError, match="new thread"):
            workers.submit(lambda: done.append(1))
    workers.submit(lambda: done.append(2))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        for number in (3, 4):
            workers.submit(lambda n=number: done.append(n))  # type: ignore[misc]
    workers.shutdown()
    assert done == [2, 3, 4]


def test_forgotten_ones_end() -> None:
    workers = Workers(2, "forgotten")
    gone = threading.Event()
    weakref.finalize(workers, gone.set)
    workers.submit(lambda: None)
    del workers
    gc.collect()
    assert gone.is_set()
    until = time.monotonic() + PATIENCE
    while any(t.name.startswith("forgotten") for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.005)


def test_the_program_ends_after_what_was_begun() -> None:
    program = """
import time
from lloss.serve.scoring.batch.worker_pool import Workers
workers = Workers(1, "t")
for n in range(3):
    workers.submit(lambda n=n: (time.sleep(0.1), print(n, flush=True)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert ran.stdout.split() == ["0", "1", "2"] and not ran.stderr


def test_a_task_of_the_pool_may_shut_it_down() -> None:
    workers, done = Workers(1, "t"), threading.Event()
    workers.submit(lambda: (workers.shutdown(), done.set()))
    assert done.wait(PATIENCE)


def test_what_is_urgent_for_one_goes_before_what_others_of_the_team_have() -> None:
    team, free, done, begun = Team(), threading.Event(), list[str](), threading.Event()
    before, serving = team.share(1, "t"), team.share(1, "t")
    before.submit(lambda: (begun.set(), free.wait(PATIENCE)))
    assert begun.wait(PATIENCE)
    for number in range(3):
        before.submit(lambda n=number: done.append(f"pool {n}"), POOL)  # type: ignore[misc]
    serving.submit(lambda: done.append("live"), LIVE)
    assert (before.count, before.idle, serving.idle) == (1, 0, 0)
    free.set()
    team.close()
    assert done == ["live", "pool 0", "pool 1", "pool 2"]


def test_a_share_ends_without_its_threads() -> None:
    team, free, done = Team(), threading.Event(), list[str]()
    first, second = team.share(2, "shared"), team.share(2, "shared")
    second.submit(lambda: free.wait(PATIENCE))
    first.submit(lambda: done.append("first"))
    first.submit(lambda: 1 // 0)
    first.shutdown()
    assert done == ["first"], "the other's task is not waited for"
    with pytest.raises(RuntimeError, match="after shutdown"):
        first.submit(lambda: None)
    free.set()
    second.submit(second.shutdown)  # in a thread of the team's
    second.shutdown()
    team.share(2, "shared").submit(lambda: done.append("third"))
    team.close()
    assert done == ["first", "third"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("shared_")]
    with pytest.raises(RuntimeError, match="after shutdown"):
        team.share(2, "shared").submit(lambda: None)
