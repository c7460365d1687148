"""Waiting for what comes a moment later, on a machine that may be busy with something else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 120.0
"""Seconds that a test waits for what should come at once. Only a failure takes so long."""


def until(
    found: Callable[[], Any], seconds: float = PATIENCE, told: Callable[[], object] | None = None
) -> Any:
    """What it finds, as soon as that is true; a failure with what is ``told`` after so long."""
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s{f': {told()}' if told else ''}")
        time.sleep(0.01)
    return value
