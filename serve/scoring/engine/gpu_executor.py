"""Run a session on a GPU: padded batches, smaller runs where memory is short, failures noted.

onnxruntime gives each run its own CUDA stream, so of two runs at a time one copies while the other
computes. Its calls change the current GPU of the thread that makes them: they are made in threads
of this class, never in the caller's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from lloss.serve.scoring.engine.executor import Buffer, Executor, Outputs
from numpy.typing import NDArray

from lloss.errors import DeviceLostError, DeviceMemoryError, EngineError
from lloss.manifest import Manifest
from lloss.runtime.batch_size import halved, padded_sizes

RUNS = 2
"""Runs at a time."""

RECENT = 30.0
"""Seconds for which a failed run counts against the device, unless a later one succeeds."""

OnHalving = Callable[[int, int], None]
"""Called when the GPU's memory did not hold a run: its size, and the size of later runs."""


class GpuExecutor(Executor):
    """Runs one session on a GPU.

    A count is padded to one of a few batch sizes (:func:`.padded_sizes`), because each new size
    starts a search in cuDNN. The constructor runs each, the largest first: its memory serves all.
    A run for which the GPU has too little memory is halved, and later runs stay at that size.

    Attributes:
        limit: images that one run takes; a larger batch is run in pieces.

    Raises:
        DeviceMemoryError: the GPU has too little memory for one image.
        EngineError: the session fails on it.
    """

    def __init__(
        self,
        session: Any,
        manifest: Manifest,
        batch_size: int,
        device: str = "cuda:0",
        on_halving: OnHalving = lambda size, smaller: None,
    ) -> None:
        super().__init__(session, manifest, batch_size, RUNS + 1, RUNS, device)
        self.limit, self._sizes = batch_size, padded_sizes(batch_size)
        self._on_halving = on_halving
        self._halving = threading.Lock()
        self._lost, self._failure = "", ("", 0.0)
        self._closed = False
        self._runners = ThreadPoolExecutor(RUNS, "lloss-gpu")
        try:
            buffer = self.buffer()
            for size in reversed(self._sizes):
                self._run_in_pieces(buffer.pixels[:size])
            self.release(buffer)
        except EngineError:
            self.close()
            raise

    def run(self, buffer: Buffer, count: int) -> Outputs:
        """Compute all outputs, float32 [count, ...], of a buffer's first rows, as new arrays."""
        if self._lost:
            raise DeviceLostError(self._lost)
        try:
            outputs = self._run_in_pieces(buffer.pixels[:count])
        except EngineError as error:
            raise self._noted(error, buffer.pixels[:1]) from error
        self._failure = ("", 0.0)
        return outputs

    def failure(self) -> str:
        """Return why the GPU is unreliable now: it was lost, or its last run failed; or ""."""
        reason, when = self._failure
        return self._lost or (reason if time.monotonic() - when < RECENT else "")

    def close(self) -> None:
        """Release the session when the running batches have ended; later calls do nothing."""
        if not self._closed:
            self._closed = True
            self._runners.submit(super().close)
            self._runners.shutdown()

    def _run_in_pieces(self, images: NDArray[np.uint8]) -> Outputs:
        parts: list[Outputs] = []
        while len(images):
            piece = images[: self.limit]
            try:
                parts.append(self._run_padded(piece))
                images = images[len(piece) :]
            except DeviceMemoryError:
                if not self._halve(len(piece)):
                    raise
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_padded(self, images: NDArray[np.uint8]) -> Outputs:
        count = len(images)
        size = next(size for size in self._sizes if size >= count)
        if size > count:
            blank = np.zeros((size - count, *images.shape[1:]), np.uint8)
            images = np.concatenate([images, blank])
        try:
            outputs = self._runners.submit(self._compute, images).result()
        except RuntimeError as error:
            raise EngineError("the executor was closed") from error
        return {name: values[:count] for name, values in outputs.items()}

    def _halve(self, size: int) -> bool:
        """Halve the limit after a run of ``size`` did not fit; False when it cannot be halved."""
        if size == 1:
            return False
        with self._halving:
            smaller = halved(size)
            if smaller < self.limit:  # else another thread was faster
                self.limit = smaller
                self._on_halving(size, smaller)
        return True

    def _noted(self, error: EngineError, image: NDArray[np.uint8]) -> EngineError:
        """Note a failure; where not even one image runs after it, the GPU is lost."""
        self._failure = (str(error), time.monotonic())
        if isinstance(error, DeviceMemoryError) or self._closed:
            return error
        try:
            self._run_padded(image)
        except DeviceMemoryError:
            return error
        except EngineError:
            self._lost = (
                f"{self._device} was lost ({error}): nothing of this process runs on it any more. "
                "Look at nvidia-smi and the kernel's log, then start again"
            )
            return DeviceLostError(self._lost)
        return error
