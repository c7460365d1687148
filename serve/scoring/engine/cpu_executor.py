"""Run a session on the CPU: several runs at a time, of one thread each.

The threads of one run would wait for each other at every layer, and for the one that the decoder
has just pushed off its core. Runs of one thread wait for no other, and what they compute does not
depend on how many there are.
"""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lloss.errors import EngineError
from lloss.manifest import INPUT, Manifest
from lloss.runtime.int8_support import session_options


def single_thread_options(manifest: Manifest) -> Any:
    """Session options of one thread a run, which never spins: an idle core is the decoder's."""
    options = session_options(1, weight_bits(manifest))
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def weight_bits(manifest: Manifest) -> int:
    """Bits of an int8 artifact's weights; 0 for other artifacts."""
    if manifest.precision != "int8":
        return 0
    return 7 if manifest.recipe.get("weight_bits") == 7 else 8


class CpuBuffer:
    """A batch to fill: ``pixels`` is uint8 [batch_size, H, W, 3]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.pixels: NDArray[np.uint8] = np.empty(shape, np.uint8)


class CpuExecutor:
    """Runs one session from several threads, with a preallocated buffer for each thread."""

    def __init__(self, session: Any, manifest: Manifest, batch_size: int, buffers: int) -> None:
        self._session = session
        self._names = list(manifest.outputs)
        self._free: queue.SimpleQueue[CpuBuffer] = queue.SimpleQueue()
        shape = (batch_size, manifest.image.height, manifest.image.width, 3)
        try:
            for _ in range(buffers):
                self._free.put(CpuBuffer(shape))
        except MemoryError as error:
            raise EngineError(
                f"no memory for {buffers} batches of {batch_size} images; give a smaller batch size"
            ) from error

    def buffer(self, urgent: bool = False) -> CpuBuffer:
        """Take a buffer to fill; wait until one is free."""
        return self._free.get()

    def run(self, buffer: CpuBuffer, count: int) -> dict[str, NDArray[np.float32]]:
        """Compute all outputs, float32 [count, ...], of a buffer's first rows, as new arrays."""
        session = self._session  # read once: another thread may close it
        if session is None:
            raise EngineError("the executor was closed")
        try:
            values = session.run(self._names, {INPUT: buffer.pixels[:count]})
        except Exception as error:  # onnxruntime's errors have no common public base
            raise EngineError(f"failed on cpu: {error}") from error
        return dict(zip(self._names, values))

    def release(self, buffer: CpuBuffer) -> None:
        """Give a buffer back."""
        self._free.put(buffer)

    def failure(self) -> str:
        """Return "": the CPU is never lost."""
        return ""

    def close(self) -> None:
        """Release the session; runs in progress still end."""
        self._session = None
