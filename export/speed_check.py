"""Is a graph of reduced precision really the faster one, on the processor at hand?

8-bit products are fast where the processor adds them up in one instruction (VNNI, AMX, dot
products of ARM); elsewhere, or in a network of layers that the runtime has no integer kernel for,
they can be slower than floats.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lloss.export.check_session import open_session
from numpy.typing import NDArray

from lloss.images.decode import ImageSpec
from lloss.manifest import INPUT
from lloss.runtime.batch_size import host_batch
from lloss.runtime.int8_support import instructions

SECONDS = 2.0
"""Of runs, both graphs together. With the opening of two sessions it stays below three."""

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """A graph's speed beside that of the fp32 graph, on one core of this machine.

    Attributes:
        times_fp32: images a second of the graph over those of fp32; below 1 it is slower.
        images_per_second: of the graph, by the CPU time of its thread.
        batch: images a run.
        cpu: the processor's name.
        instructions: that it has for products of 8 bits.
    """

    times_fp32: float
    images_per_second: float
    batch: int
    cpu: str
    instructions: str = ""


def measure_speed(
    fp32: Path,
    reduced: Path,
    spec: ImageSpec,
    images: NDArray[np.uint8],
    weight_bits: int = 8,
    seconds: float = SECONDS,
) -> Speed:
    """Run two graphs in turns, one thread and batches as a scorer on the CPU runs them.

    What is measured is the thread's CPU time, which other processes do not lengthen much; the
    medians are compared.

    Args:
        fp32: an ONNX file.
        reduced: likewise.
        spec: their input.
        images: at least one real one, uint8 [B, H, W, 3]; repeated to fill a batch.
        weight_bits: of the second.
        seconds: of wall time for all runs, the first of which are not counted. Only a single run
            that takes longer passes it.
    """
    deadline = time.perf_counter() + seconds
    sessions = [open_session(path, 1, weight_bits) for path in (fp32, reduced)]
    single = max(_cost(session, images[:1]) for session in sessions)
    # Six runs at least: two of them to warm up, four to compare.
    affordable = max(1, int(seconds / 6 / max(single, 1e-9)))
    batch = min(host_batch(spec), affordable)
    filled = np.resize(images, (batch, *images.shape[1:]))
    for session in sessions:
        _cost(session, filled)
    costs: list[list[float]] = [[], []]
    while not costs[0] or time.perf_counter() < deadline:
        for session, spent in zip(sessions, costs):
            spent.append(_cost(session, filled))
    exact, other = (float(np.median(spent)) for spent in costs)
    return Speed(
        times_fp32=exact / other,
        images_per_second=batch / other,
        batch=batch,
        cpu=cpu_name(),
        instructions=instructions(),
    )


def _cost(session: Any, images: NDArray[np.uint8]) -> float:
    """CPU seconds of a run, which is all in this thread."""
    started = time.thread_time()
    session.run(None, {INPUT: images})
    return time.thread_time() - started


def cpu_name() -> str:
    """The processor's name, as Linux tells it; else the machine's kind."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
