"""How many cores this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PROCESSOR = Path("/proc/cpuinfo")


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


def lacks_vnni() -> bool:
    """Whether this is an x86 processor without VNNI, as far as the system tells (Linux).

    Those add up products of 8 bits in 16, which saturate: int8 graphs with weights of 8 bits then
    compute something else than where they were measured.
    """
    try:
        lines = _PROCESSOR.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
    return bool(flags) and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags)
