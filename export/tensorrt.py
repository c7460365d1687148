"""Build an artifact's TensorRT engine ahead, on the machine that will score with it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lloss.errors import EngineError
from lloss.files import sha256_of
from lloss.manifest import INPUT, read_manifest
from lloss.runtime.batch_size import device_batch
from lloss.runtime.engine_cache import EngineCache
from lloss.runtime.graph_capture import CAPTURE_LOCK
from lloss.runtime.providers import (
    SessionSetup,
    engine_cache,
    first_line,
    open_session,
    why_unavailable,
)


@dataclass(frozen=True)
class BuiltEngine:
    """An engine on disk, with its smallest and largest batch and the seconds of its build."""

    cache: EngineCache
    files: Sequence[Path]
    batches: tuple[int, int]
    seconds: float


def check_tensorrt(device_id: int = 0) -> None:
    """Refuse a machine that cannot build an engine."""
    problem = why_unavailable("tensorrt", device_id)
    if problem:
        raise EngineError(f"no TensorRT engine can be built here: {problem}")


def build_engine(path: Path, batch_size: int = 0, device_id: int = 0) -> BuiltEngine:
    """Build the engine and the timing cache of an artifact, and run its smallest and largest batch.

    The session is that of the scorer: a scorer with the same batch size on this machine finds the
    engine, as long as artifact, onnxruntime, TensorRT, driver and GPU stay the same. A batch size
    of 0 is the scorer's default. An engine serves all GPUs of the same model.
    """
    manifest = read_manifest(path)
    if manifest.precision == "int8":
        # Its activations are uint8 with a zero point; TensorRT's quantization is symmetric.
        raise EngineError(
            f"{path}: is int8, which is for CPUs; for TensorRT export with --precision fp16"
        )
    check_tensorrt(device_id)
    batch_size = batch_size or device_batch(manifest.image)
    begun = time.monotonic()
    sha256 = sha256_of(path)
    setup = SessionSetup(manifest, "tensorrt", batch_size, device_id)
    session = open_session(path, setup, sha256).session
    for size in sorted({1, batch_size}):
        images = np.zeros((size, manifest.image.height, manifest.image.width, 3), np.uint8)
        try:
            with CAPTURE_LOCK.shared():
                session.run(None, {INPUT: images})
        except Exception as error:  # onnxruntime's errors have no common public base
            raise EngineError(
                f"{path}: failed on TensorRT in a batch of {size}: {first_line(error)}"
            ) from error
    cache = engine_cache(setup, sha256)
    files = sorted(file for file in cache.engines.iterdir() if file.suffix != ".json")
    if not files:
        raise EngineError(f"{path}: TensorRT ran it and left no engine in {cache.engines}")
    return BuiltEngine(cache, files, (1, batch_size), time.monotonic() - begun)
