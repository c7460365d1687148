"""Waiting for what comes a moment later, on a machine that may be busy with something else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0
"""Seconds that a test waits for what should come at once. Only a failure takes so long."""


def until(
    found: Callable[[], Any],
    seconds: float = PATIENCE,
    describe: Callable[[], object] | None = None,
) -> Any:
    """Return what ``found`` returns, once it is true; fail with ``describe()`` after so long."""
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s{f': {describe()}' if describe else ''}")
        time.sleep(0.01)
    return value
