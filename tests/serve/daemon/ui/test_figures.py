"""Rates, digests of scores, and how figures are written."""

from __future__ import annotations

import pytest
from lloss.serve.daemon.ui.image_details import Batch
from lloss.serve.daemon.ui.request_rate import Rate
from lloss.serve.daemon.ui.templates import duration, quoted, rate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    counter = Rate(clock)
    assert counter.seen(0) is None
    clock.now += 0.1
    assert counter.seen(10) is None, "too soon"
    for second in range(1, 40):
        clock.now = 100.0 + second
        found = counter.seen(50 * second if second < 20 else 1000 + 8 * (second - 20))
    assert found == pytest.approx(8), "what was long ago does not count"


def test_a_rate_begins_anew_where_a_counter_went_back_or_nobody_looked() -> None:
    clock = Clock()
    counter = Rate(clock)
    counter.seen(500)
    clock.now += 2
    assert counter.seen(100) is None
    clock.now += 2
    assert counter.seen(120) == 10
    clock.now += 3600
    assert counter.seen(10**9) is None


@pytest.mark.parametrize(("seconds", "told"), [
    (-3, "0 s"), (0.4, "0 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (5430, "1 h 30 min"),
    (86400, "24 h"), (200_000, "2 d"),
])  # fmt: skip
def test_durations_are_told_at_a_glance(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_rates_are_told_at_a_glance() -> None:
    assert [rate(v) for v in (None, 0.0, 0.31, 9.96, 1234.5)] == ["–", "0", "0.3", "10.0", "1,234"]


def test_ids_in_forms_are_ascii_without_line_ends() -> None:
    for id in ("a\r\nb\n", "\udc80", "é+& %2f", "\0"):
        assert quoted(id).isascii() and quoted(id).isprintable()


def test_a_batch_is_known_by_its_name() -> None:
    assert Batch.parse(str(Batch(24, "a.key"))) == Batch(24, "a.key")
    for broken in ("", "24", "24.", "x.y", "-1.y", "99999.y", "²4.y", f"1.{'y' * 101}"):
        assert Batch.parse(broken) is None
