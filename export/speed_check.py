"""Measure whether a graph is faster than another on this machine."""

from __future__ import annotations

import dataclasses
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lloss.files import temporary_folder
from lloss.images.decode import ImageSpec
from lloss.manifest import INPUT, Manifest
from lloss.runtime import cuda_driver
from lloss.runtime.batch_size import device_batch, host_batch
from lloss.runtime.int8_support import open_cpu_session
from lloss.runtime.providers import SessionSetup, open_session

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
    batch = np.resize(images, (host_batch(spec), *images.shape[1:]))
    return {**_compare(sessions, batch, time.thread_time, seconds), "cpu": cpu_name()}


def speed_without(
    output: str, path: Path, manifest: Manifest, images: NDArray[np.uint8], seconds: float = SECONDS
) -> float:
    """Measure how many times as fast a graph is without one of its outputs, on the CPU."""
    others = [name for name in manifest.outputs if name != output]
    with temporary_folder("lloss-export-", path.stat().st_size) as folder:
        lighter = folder / "without.onnx"
        onnx.utils.extract_model(str(path), str(lighter), [INPUT], others, check_model=False)
        speed = measure_speed(path, lighter, manifest.image, images, seconds=seconds)
    return float(speed["times_fp32"])


def measure_gpu_speed(
    fp32: Path,
    fp16: Path,
    manifest: Manifest,
    images: NDArray[np.uint8],
    provider: str = "cuda",
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Run two graphs in turns on the GPU, with the batch of a scorer there, by the clock.

    It returns what :func:`measure_speed` does; ``cpu`` is the GPU's name.
    """
    count = device_batch(manifest.image)
    sessions = [
        open_session(
            path,
            SessionSetup(dataclasses.replace(manifest, precision=precision), provider, count),
            sha256="",  # names TensorRT's engines, which are not built here
        )
        for path, precision in ((fp32, "fp32"), (fp16, "fp16"))
    ]
    batch = np.resize(images, (count, *images.shape[1:]))
    name = cpu_name() if provider == "cpu" else cuda_driver.gpu().name
    return {**_compare(sessions, batch, time.perf_counter, seconds), "cpu": name}


def _compare(
    sessions: Sequence[Any], images: NDArray[np.uint8], clock: Callable[[], float], seconds: float
) -> dict[str, Any]:
    def run(session: Any) -> float:
        started = clock()
        session.run(None, {INPUT: images})
        return clock() - started

    for session in sessions:
        run(session)  # a first run allocates
    costs: list[list[float]] = [[], []]
    deadline = time.perf_counter() + seconds
    while len(costs[0]) < 2 or time.perf_counter() < deadline:
        for session, measured in zip(sessions, costs):
            measured.append(run(session))
    exact, other = (float(np.median(measured)) for measured in costs)
    return {
        "times_fp32": exact / other,
        "images_per_second": len(images) / other,
        "batch": len(images),
    }


def cpu_name() -> str:
    """Name this machine's processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    name = re.search(r"^model name\s*: (.+)", text, re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()
