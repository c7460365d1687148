"""Run a session on the CPU: as many runs at a time as there are lanes, one thread each.

Threads inside a run wait for each other at every layer, and for whichever of them the decoder
has just pushed off its core. Runs of one thread beside each other wait for nobody, and what they
compute does not depend on how many there are.
"""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lloss.errors import EngineError
from lloss.manifest import INPUT, Manifest
from lloss.runtime.int8_support import keep_exact


def host_options(manifest: Manifest) -> ort.SessionOptions:
    """One thread a run, which never spins: between two runs the core is the decoder's."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors; what else matters is checked after
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if manifest.precision == "int8":
        keep_exact(options, weight_bits(manifest))
    return options


def weight_bits(manifest: Manifest) -> int:
    """Of an int8 artifact."""
    return 7 if manifest.recipe.get("weight_bits") == 7 else 8


class HostBuffer:
    """A batch to fill.

    Attributes:
        pixels: uint8 [batch_size, H, W, 3].
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.pixels: NDArray[np.uint8] = np.empty(shape, np.uint8)


class HostExecutor:
    """Runs one session on the CPU from several threads, with preallocated buffers.

    Args:
        session: an ``onnxruntime.InferenceSession`` on the CPU provider.
        manifest: of its artifact.
        batch_size: the largest batch.
        buffers: how many rotate; one for each thread that fills and runs.
    """

    def __init__(self, session: Any, manifest: Manifest, batch_size: int, buffers: int) -> None:
        self.batch_size = batch_size
        self._session = session
        self._names = list(manifest.outputs)
        self._free: queue.SimpleQueue[HostBuffer] = queue.SimpleQueue()
        shape = (batch_size, manifest.image.height, manifest.image.width, 3)
        try:
            for _ in range(buffers):
                self._free.put(HostBuffer(shape))
        except MemoryError as error:
            raise EngineError(
                f"no memory for {buffers} batches of {batch_size} images; give a smaller batch size"
            ) from error

    def buffer(self, urgent: bool = False) -> HostBuffer:
        """A buffer to fill; blocks until one is free: each lane has one, urgent or not."""
        return self._free.get()

    def run(self, buffer: HostBuffer, count: int) -> dict[str, NDArray[np.float32]]:
        """Run the first ``count`` rows of a buffer.

        Returns:
            Each output by name, float32 [count, ...], fresh arrays.

        Raises:
            EngineError: the session failed, or the executor was closed.
        """
        session = self._session  # once: another thread may close it now
        if session is None:
            raise EngineError("the executor was closed")
        try:
            values = session.run(self._names, {INPUT: buffer.pixels[:count]})
        except Exception as error:  # the runtime's own errors have no common public base
            raise EngineError(f"failed on cpu: {error}") from error
        return dict(zip(self._names, values))

    def release(self, buffer: HostBuffer) -> None:
        """Give a buffer back."""
        self._free.put(buffer)

    def trouble(self) -> str:
        """The CPU is never lost."""
        return ""

    def close(self) -> None:
        """Let go of the session; runs that are under way end as they would."""
        self._session = None
