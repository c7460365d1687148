"""Bytes that threads share."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lloss.images.memory_budget import ByteBudget


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
