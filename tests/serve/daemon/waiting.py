"""Waiting for what comes a moment later."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(
    found: Callable[[], Any], seconds: float = 30, told: Callable[[], object] | None = None
) -> Any:
    """What it finds, as soon as that is true; a failure with what is ``told`` after so long."""
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s{f': {told()}' if told else ''}")
        time.sleep(0.01)
    return value
