"""Cores go to requests first."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from lloss.serve.scoring.batch.slots import LIVE, POOL, Slots

from ....waiting import until
from ..fakes import hold_all


def test_urgent_waiters_go_first_and_others_in_their_order() -> None:
    slots, order = Slots(1), list[str]()

    def use(name: str, priority: int) -> None:
        with slots.held(priority):
            order.append(name)

    with ThreadPoolExecutor(5) as threads, hold_all(slots):
        for number, name in enumerate(["pool 0", "pool 1", "live 0", "pool 2", "live 1"], 1):
            threads.submit(use, name, LIVE if name.startswith("live") else POOL)
            until(lambda n=number: len(slots._waiting) == n)  # type: ignore[misc]
    assert order == ["live 0", "live 1", "pool 0", "pool 1", "pool 2"]


def test_no_more_than_the_count_is_held_at_once() -> None:
    slots, lock = Slots(3), threading.Lock()
    held = most = 0

    def use(priority: int) -> None:
        nonlocal held, most
        with slots.held(priority):
            with lock:
                held += 1
                most = max(most, held)
            with lock:
                held -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, [LIVE, POOL] * 500))
    assert most <= 3
    hold_all(slots).close()  # all are free again
