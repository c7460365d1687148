"""The lock of a capture: shared by many, alone for one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from lloss.runtime.graph_capture import CaptureLock

from ..waiting import PATIENCE


def test_many_share_and_one_captures() -> None:
    lock, inside, seen = CaptureLock(), [0, 0], []

    def use(number: int) -> None:
        which = number % 5 == 0
        with lock.exclusive() if which else lock.shared():
            inside[which] += 1
            seen.append(tuple(inside))
            inside[which] -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(400)))
    assert len(seen) == 400
    assert all(captures == 0 or (captures == 1 and users == 0) for users, captures in seen)


def test_who_waits_to_capture_goes_before_new_users() -> None:
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
        while not lock._waiting:
            pass
        done.append(threads.submit(second))
        leave.set()
        for one in done:
            one.result(PATIENCE)
    assert order == ["user", "capture", "later user"]


def test_what_must_not_wait_is_done_after_the_capture() -> None:
    lock, done = CaptureLock(), []
    lock.later(lambda: done.append("at once"))
    with lock.shared():
        lock.later(lambda: done.append("beside others"))
    with lock.exclusive():
        lock.later(lambda: done.append("after"))
        assert done == ["at once", "beside others"]
    assert done == ["at once", "beside others", "after"]
    with lock.exclusive():
        pass
    assert len(done) == 3


def test_an_error_leaves_the_lock() -> None:
    lock = CaptureLock()
    for enter in (lock.shared, lock.exclusive):
        try:
            with enter():
                raise ValueError
        except ValueError:
            pass
    with lock.exclusive():
        pass
