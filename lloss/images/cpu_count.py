"""How many cores this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores by affinity and by the container's quota; at least 1.

    ``os.cpu_count()`` tells the machine's: a container held to two of sixty-four cores would start
    sixty-four threads that wait for each other.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, _quota(_QUOTA)))


def _quota(path: Path) -> int:
    """Cores of a ``cpu.max`` file of control groups version 2, rounded up; a million for none."""
    try:
        allowed, period = path.read_text(encoding="ascii").split()
        return math.ceil(int(allowed) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return 1_000_000
