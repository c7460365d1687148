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
from lloss.runtime.providers import error_type, first_line

Outputs = dict[str, NDArray[np.float32]]


class Buffer:
    """A batch to fill: ``pixels`` is uint8 [batch_size, H, W, 3]."""

    def __init__(self, shape: tuple[int, ...], free: queue.SimpleQueue[Buffer]) -> None:
        self.pixels: NDArray[np.uint8] = np.empty(shape, np.uint8)
        self.free = free
        free.put(self)


class Executor:
    """Runs one session from several threads, each with a preallocated buffer.

    Args:
        session: of onnxruntime.
        manifest: of its model.
        batch_size: images a buffer.
        buffers: number of them.
        urgent: number of further buffers, for live requests alone.
        device: for messages.
    """

    def __init__(
        self,
        session: Any,
        manifest: Manifest,
        batch_size: int,
        buffers: int,
        urgent: int = 0,
        device: str = "cpu",
    ) -> None:
        self._session, self._device = session, device
        self._names = list(manifest.outputs)
        self._free: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        self._urgent: queue.SimpleQueue[Buffer] = queue.SimpleQueue()
        shape = (batch_size, manifest.image.height, manifest.image.width, 3)
        try:
            for number in range(buffers + urgent):
                Buffer(shape, self._free if number < buffers else self._urgent)
        except MemoryError as error:
            raise EngineError(
                f"no memory for {buffers + urgent} batches of {batch_size} images; give a smaller "
                "batch size"
            ) from error

    def buffer(self, urgent: bool = False) -> Buffer:
        """Take a buffer to fill; wait until one is free."""
        return (self._urgent if urgent else self._free).get()

    def run(self, buffer: Buffer, count: int) -> Outputs:
        """Compute all outputs, float32 [count, ...], of a buffer's first rows, as new arrays."""
        return self._compute(buffer.pixels[:count])

    def release(self, buffer: Buffer) -> None:
        """Give a buffer back."""
        buffer.free.put(buffer)

    def failure(self) -> str:
        """Return why the device is unreliable now, or ""; the CPU never is."""
        return ""

    def close(self) -> None:
        """Release the session; runs in progress still end."""
        self._session = None

    def _compute(self, images: NDArray[np.uint8]) -> Outputs:
        session = self._session  # read once: another thread may close it
        if session is None:
            raise EngineError("the executor was closed")
        try:
            values = session.run(self._names, {INPUT: images})
        except Exception as error:  # onnxruntime's errors have no common public base
            raise error_type(error)(f"failed on {self._device}: {first_line(error)}") from error
        return dict(zip(self._names, values))
