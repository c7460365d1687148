"""The capture lock: shared by many, exclusive for one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lloss.runtime.graph_capture import CaptureLock

from ..waiting import PATIENCE, until


def test_users_share_and_one_captures() -> None:
    lock, inside, seen = CaptureLock(), [0, 0], []

    def use(number: int) -> None:
        captures = number % 5 == 0
        with lock.exclusive() if captures else lock.shared():
            inside[captures] += 1
            seen.append(tuple(inside))
            inside[captures] -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(400)))
    assert len(seen) == 400
    assert all(captures == 0 or (captures == 1 and users == 0) for users, captures in seen)


def test_a_waiting_capture_goes_before_new_users() -> None:
    lock, order = CaptureLock(), []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with lock.shared():
            entered.set()
            leave.wait(PATIENCE)
            order.append("user")

    def capture() -> None:
        with lock.exclusive():
            order.append("capture")

    def second() -> None:
        with lock.shared():
            order.append("later user")

    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(first)]
        assert entered.wait(PATIENCE)
        done.append(threads.submit(capture))
        until(lambda: lock._waiting)
        done.append(threads.submit(second))
        leave.set()
        for one in done:
            one.result(PATIENCE)
    assert order == ["user", "capture", "later user"]


def test_finalizers_run_at_once_or_after_the_capture() -> None:
    lock, done = CaptureLock(), []
    lock.later(lambda: done.append("at once"))
    with lock.shared():
        lock.later(lambda: done.append("beside users"))
    with lock.exclusive():
        lock.later(lambda: done.append("after"))
        assert done == ["at once", "beside users"]
    assert done == ["at once", "beside users", "after"]


def test_an_error_releases_the_lock() -> None:
    lock = CaptureLock()
    for enter in (lock.shared, lock.exclusive):
        with pytest.raises(ValueError), enter():
            raise ValueError
    with lock.exclusive():
        pass
