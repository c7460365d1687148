"""The rotating buffers of a GPU, and the places of inputs and outputs in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lloss.serve.scoring.engine.device_memory import Copy, CudaMemory
from numpy.typing import NDArray

from lloss.manifest import INPUT, Manifest

Outputs = dict[str, NDArray[np.float32]]

_ALIGNMENT = 256


class InputBuffer:
    """Pinned host memory for a batch, device memory for a run of ``limit`` images, and a stream.

    Attributes:
        pixels: uint8 [batch_size, H, W, 3], to be filled from row 0.
    """

    def __init__(
        self, number: int, manifest: Manifest, batch_size: int, limit: int, memory: CudaMemory
    ) -> None:
        self.number, self._memory = number, memory
        self._image = (manifest.image.height, manifest.image.width, 3)
        self._row_size = int(np.prod(self._image))
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        output_size = 0
        for name, trailing in manifest.outputs.items():
            self._places[name] = (output_size, trailing)
            output_size += -(-limit * _size(trailing) // _ALIGNMENT) * _ALIGNMENT
        self._host_in = memory.host(batch_size * self._row_size)
        self._host_out = memory.host(output_size)
        self._device_in = memory.device(limit * self._row_size)
        self._device_out = memory.device(output_size)
        self._stream = memory.stream()
        self.pixels: NDArray[np.uint8] = self._host_in.reshape(batch_size, *self._image)

    def bind(self, session: Any, count: int) -> Any:
        """Make an onnxruntime binding of the device memory as a batch of ``count`` images."""
        binding = session.io_binding()
        device = (self._memory.name, self._memory.device_id)
        binding.bind_input(INPUT, *device, np.uint8, [count, *self._image], self._device_in)
        for name, (start, trailing) in self._places.items():
            address = self._device_out + start
            binding.bind_output(name, *device, np.float32, [count, *trailing], address)
        return binding

    def upload(self, count: int, first: int = 0) -> None:
        """Copy up to ``count`` rows, from row ``first`` on, to the device."""
        count = min(count, len(self.pixels) - first)
        host = self._host_in.ctypes.data + first * self._row_size
        self._memory.upload([Copy(host, self._device_in, count * self._row_size)], self._stream)

    def download(self, count: int) -> Outputs:
        """Copy ``count`` rows of every output back, as new arrays."""
        host = self._host_out.ctypes.data
        copies = [
            Copy(host + start, self._device_out + start, count * _size(trailing))
            for start, trailing in self._places.values()
        ]
        self._memory.download(copies, self._stream)
        outputs = {}
        for name, (start, trailing) in self._places.items():
            stop = start + count * _size(trailing)
            rows = self._host_out[start:stop].view(np.float32).reshape(count, *trailing)
            outputs[name] = rows.copy()
        return outputs


def _size(trailing: Sequence[int]) -> int:
    """Bytes of one row of an output."""
    return 4 * int(np.prod(trailing, dtype=np.int64))
