from __future__ import annotations

import pytest
from lloss.serve.daemon.ui.request_rate import Rate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    counter = Rate(clock)
    assert counter.sample(0) is None
    clock.now += 0.1
    assert counter.sample(10) is None, "too soon"
    for second in range(1, 40):
        clock.now = 100.0 + second
        rate = counter.sample(50 * second if second < 20 else 1000 + 8 * (second - 20))
    assert rate == pytest.approx(8)


def test_samples_start_again_when_nobody_looked() -> None:
    clock = Clock()
    counter = Rate(clock)
    counter.sample(100)
    clock.now += 2
    assert counter.sample(120) == 10
    clock.now += 3600
    assert counter.sample(10**9) is None
