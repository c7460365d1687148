"""The rotating buffers of a device's executor, and where inputs and outputs lie in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lloss.serve.scoring.engine.device_memory import Copy, Memory
from numpy.typing import NDArray

from lloss.manifest import INPUT, Manifest

Outputs = dict[str, NDArray[np.float32]]

_ALIGNMENT = 256


class Layout:
    """Where inputs and outputs lie in a buffer's blocks.

    Args:
        manifest: of the artifact.
        batch_size: images that the host's input block holds.
        limit: images that the device's blocks hold: those of a run.
    """

    def __init__(self, manifest: Manifest, batch_size: int, limit: int) -> None:
        self.batch_size = batch_size
        self.image = (manifest.image.height, manifest.image.width, 3)
        self.row_size = int(np.prod(self.image))
        self.host_size = batch_size * self.row_size
        self.input_size = limit * self.row_size
        self.outputs: dict[str, tuple[int, tuple[int, ...]]] = {}
        start = 0
        for name, trailing in manifest.outputs.items():
            self.outputs[name] = (start, trailing)
            size = limit * _row_size(trailing)
            start += -(-size // _ALIGNMENT) * _ALIGNMENT
        self.output_size = start


class InputBuffer:
    """One of the rotating buffers.

    Attributes:
        pixels: uint8 [batch_size, H, W, 3], to be filled from row 0; pinned for a GPU.
        number: which of the buffers it is.
    """

    def __init__(self, number: int, layout: Layout, memory: Memory) -> None:
        self.number = number
        self._layout = layout
        self._in = memory.host(layout.host_size)
        self._out = memory.host(layout.output_size)
        self._device_in = memory.device(layout.input_size)
        self._device_out = memory.device(layout.output_size)
        self.stream = memory.stream()
        self.pixels: NDArray[np.uint8] = self._in.reshape(layout.batch_size, *layout.image)

    def bind(self, session: Any, memory: Memory, bucket: int) -> Any:
        """An onnxruntime binding of this buffer's device memory as a batch of ``bucket``."""
        binding = session.io_binding()
        place = (memory.name, memory.device_id)
        shape = [bucket, *self._layout.image]
        binding.bind_input(INPUT, *place, np.uint8, shape, self._device_in)
        for name, (start, trailing) in self._layout.outputs.items():
            address = self._device_out + start
            binding.bind_output(name, *place, np.float32, [bucket, *trailing], address)
        return binding

    def uploads(self, count: int, first: int = 0) -> list[Copy]:
        """The copies that bring ``count`` rows, or those that are left of them, to the device."""
        count = min(count, self._layout.batch_size - first)
        host = self._in.ctypes.data + first * self._layout.row_size
        return [Copy(host, self._device_in, count * self._layout.row_size)]

    def downloads(self, count: int) -> list[Copy]:
        """The copies that bring ``count`` rows of every output back."""
        host = self._out.ctypes.data
        return [
            Copy(host + start, self._device_out + start, count * _row_size(trailing))
            for start, trailing in self._layout.outputs.values()
        ]

    def outputs(self, count: int) -> Outputs:
        """What was downloaded, as arrays of their own."""
        found = {}
        for name, (start, trailing) in self._layout.outputs.items():
            stop = start + count * _row_size(trailing)
            rows = self._out[start:stop].view(np.float32).reshape(count, *trailing)
            found[name] = rows.copy()
        return found


def _row_size(trailing: Sequence[int]) -> int:
    return 4 * int(np.prod(trailing, dtype=np.int64))
