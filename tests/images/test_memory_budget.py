"""Bytes that threads share."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lloss.images.memory_budget import ByteBudget

from ..waiting import until


def test_no_more_is_held_than_the_total() -> None:
    budget, held, peak, lock = ByteBudget(100), 0, 0, threading.Lock()
    chance = random.Random(0)

    def work(size: int) -> None:
        nonlocal held, peak
        with budget.holding(size):
            with lock:
                held += size
                peak = max(peak, held)
            time.sleep(0.0005)
            with lock:
                held -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [chance.randint(1, 60) for _ in range(200)]))
    assert 60 < peak <= 100
    assert budget.free == 100
    with budget.holding(10**12):  # larger than all: runs alone
        assert budget.free == 0
    with pytest.raises(KeyError), budget.holding(70):
        raise KeyError
    assert budget.free == 100


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    budget, order = ByteBudget(100), []

    def hold(size: int) -> None:
        with budget.holding(size):
            order.append(size)

    threads = [threading.Thread(target=hold, args=(size,)) for size in (100, 5, 6)]
    with budget.holding(50):  # the small ones would fit
        for thread in threads:
            thread.start()
            until(budget._turn.locked)
    for thread in threads:
        thread.join()
    assert order[0] == 100 and sorted(order) == [5, 6, 100]
