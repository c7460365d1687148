"""GPU memory, pinned host memory, and the copies between them."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lloss.errors import EngineError
from lloss.runtime.cuda_driver import Driver, driver
from lloss.runtime.graph_capture import CAPTURE_LOCK

_HOST_ALLOC_PORTABLE = 1
_STREAM_NON_BLOCKING = 1


class Copy(NamedTuple):
    """One copy between host and device: two addresses and a number of bytes."""

    host: int
    device: int
    size: int


class CudaMemory:
    """Memory of one GPU. Callers share :data:`lloss.runtime.graph_capture.CAPTURE_LOCK`.

    Copies go through the driver and not through onnxruntime: ``OrtValue.update_inplace`` and
    ``IOBinding.copy_outputs_to_cpu`` hold the interpreter lock and use one stream for all, so that
    no copy could overlap with computing.

    Attributes:
        name: of the device in onnxruntime.

    Raises:
        EngineError: no GPU has this number; from the methods too, where the driver fails.
    """

    name = "cuda"

    def __init__(self, device_id: int = 0, through: Driver | None = None) -> None:
        self.device_id = device_id
        self._driver = through or driver()
        self._context = self._driver.context(device_id)
        self._addresses: list[int] = []
        self._streams: list[int] = []
        self._lock = threading.Lock()

    def host(self, size: int) -> NDArray[np.uint8]:
        """Allocate pinned host memory, uint8 [size], which is freed with the array."""
        address = self._value("cuMemHostAlloc", ctypes.c_void_p, size, _HOST_ALLOC_PORTABLE)
        block = (ctypes.c_uint8 * size).from_address(address)
        # Every view keeps the block alive: pinned memory may outlive this object.
        weakref.finalize(block, _free_pinned, self._driver, self._context, address)
        pinned: NDArray[np.uint8] = np.ctypeslib.as_array(block)
        return pinned

    def device(self, size: int) -> int:
        """Allocate bytes on the GPU and return their address."""
        self._addresses.append(self._value("cuMemAlloc_v2", ctypes.c_uint64, size))
        return self._addresses[-1]

    def stream(self) -> int:
        """Make a CUDA stream that does not wait for the default one."""
        stream = self._value("cuStreamCreate", ctypes.c_void_p, _STREAM_NON_BLOCKING)
        self._streams.append(stream)
        return stream

    def upload(self, copies: Iterable[Copy], stream: int) -> None:
        """Copy from host to device, and wait for the end without the interpreter lock."""
        self._copy("cuMemcpyHtoDAsync_v2", [(c.device, c.host, c.size) for c in copies], stream)

    def download(self, copies: Iterable[Copy], stream: int) -> None:
        """Copy from device to host, and wait for the end without the interpreter lock."""
        self._copy("cuMemcpyDtoHAsync_v2", copies, stream)

    def _copy(self, name: str, copies: Iterable[tuple[int, int, int]], stream: int) -> None:
        with self._driver.using(self._context):
            for target, source, size in copies:
                self._driver.call(name, target, source, size, stream)
            self._driver.call("cuStreamSynchronize", stream)

    def failure(self) -> str:
        """Wait for the GPU's work, and return why nothing runs on it any more, or "".

        After most failures of a kernel, the driver answers every call with the same error.
        """
        try:
            with self._driver.using(self._context):
                self._driver.call("cuCtxSynchronize")
        except EngineError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Free streams and device memory; pinned memory is freed with its arrays."""
        with self._lock:
            streams, self._streams = self._streams, []
            addresses, self._addresses = self._addresses, []
        for free, handles in (("cuStreamDestroy_v2", streams), ("cuMemFree_v2", addresses)):
            for handle in handles:
                _free(self._driver, self._context, free, handle)

    def _value(self, name: str, kind: type, *arguments: int) -> int:
        with self._driver.using(self._context):
            return self._driver.value(name, kind, *arguments)


def _free_pinned(through: Driver, context: int, address: int) -> None:
    CAPTURE_LOCK.later(lambda: _free(through, context, "cuMemFreeHost", address))


def _free(through: Driver, context: int, name: str, handle: int) -> None:
    # A lost GPU frees nothing.
    with contextlib.suppress(EngineError), through.using(context):
        through.call(name, handle)
