from __future__ import annotations

import pytest
from lloss.serve.daemon.ui.templates import duration, quoted, rate


@pytest.mark.parametrize(("seconds", "text"), [
    (-3, "0 s"), (0.4, "0 s"), (89, "89 s"), (100, "2 min"), (3600, "60 min"), (5430, "1 h 30 min"),
    (86400, "24 h"), (200_000, "2 d"),
])  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rates_are_short() -> None:
    assert [rate(v) for v in (0.31, 9.96, 1234.5)] == ["0.3", "10.0", "1,234"]


def test_ids_in_forms_are_ascii_without_line_ends() -> None:
    for id in ("a\r\nb\n", "\udc80", "é+& %2f", "\0"):
        assert quoted(id).isascii() and quoted(id).isprintable()
