"""Measure whether an int8 graph is faster than fp32 on this machine's processor."""

from __future__ import annotations

import platform
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.images.decode import ImageSpec
from lloss.manifest import INPUT
from lloss.runtime.batch_size import host_batch
from lloss.runtime.int8_support import open_cpu_session

SECONDS = 2.0
"""Seconds of runs, both graphs together."""


def measure_speed(
    fp32: Path,
    reduced: Path,
    spec: ImageSpec,
    images: NDArray[np.uint8],
    weight_bits: int = 8,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Run two graphs in turns, in one thread, with the batch of a scorer on the CPU.

    It compares the medians of the thread's CPU time, which other processes hardly lengthen. The
    ``images``, uint8 [B, H, W, 3], are repeated to fill a batch; each graph runs twice at least.

    Returns:
        ``times_fp32``: images per second of the second graph over those of fp32; below 1 it is
        slower. ``images_per_second`` of the second graph, images per run (``batch``), and the
        processor's name (``cpu``).
    """
    sessions = [open_cpu_session(str(fp32), 1), open_cpu_session(str(reduced), 1, weight_bits)]
    batch = host_batch(spec)
    filled = np.resize(images, (batch, *images.shape[1:]))
    for session in sessions:
        _run(session, filled)  # a first run allocates
    costs: list[list[float]] = [[], []]
    deadline = time.perf_counter() + seconds
    while len(costs[0]) < 2 or time.perf_counter() < deadline:
        for session, measured in zip(sessions, costs):
            measured.append(_run(session, filled))
    exact, other = (float(np.median(measured)) for measured in costs)
    return {
        "times_fp32": exact / other,
        "images_per_second": batch / other,
        "batch": batch,
        "cpu": cpu_name(),
    }


def cpu_name() -> str:
    """Name this machine's processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*: (.+)", text, re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()


def _run(session: Any, images: NDArray[np.uint8]) -> float:
    """CPU seconds of a run, which happens in this thread alone."""
    started = time.thread_time()
    session.run(None, {INPUT: images})
    return time.thread_time() - started
