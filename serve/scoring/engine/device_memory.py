"""Host and device memory, and the copies between them, that a device's executor works with."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lloss.errors import EngineError
from lloss.runtime.cuda_driver import Driver, driver
from lloss.runtime.graph_capture import DEVICES


class Copy(NamedTuple):
    """One copy between host and device, from start to start."""

    host: int
    device: int
    size: int


class Memory(Protocol):
    """One device's memory.

    Attributes:
        name: the device's name in onnxruntime: ``cuda`` or ``cpu``.
        device_id: its number.
    """

    name: str
    device_id: int

    def host(self, size: int) -> NDArray[np.uint8]:
        """``size`` bytes of host memory that the device copies fastest; freed with the array."""

    def device(self, size: int) -> int:
        """The address of ``size`` bytes on the device; freed by :meth:`close`."""

    def stream(self) -> int:
        """A queue of copies of its own."""

    def upload(self, copies: Iterable[Copy], stream: int) -> None:
        """Copy from host to device; returns when it is done, without the interpreter lock."""

    def download(self, copies: Iterable[Copy], stream: int) -> None:
        """Copy from device to host; likewise."""

    def trouble(self) -> str:
        """Why nothing runs on the device any more; "" where it works. Waits for its work."""

    def close(self) -> None:
        """Free the device's memory and the streams."""


class CudaMemory:
    """A GPU's memory and pinned host memory, see :class:`Memory`.

    Who calls its methods shares :data:`lloss.runtime.graph_capture.DEVICES`.

    Copies go through the driver and not through onnxruntime: ``OrtValue.update_inplace`` and
    ``IOBinding.copy_outputs_to_cpu`` hold the interpreter lock and use one stream for all, so that
    nothing could overlap.

    Raises:
        EngineError: no GPU of that number, or it has no memory left.
    """

    name = "cuda"

    def __init__(self, device_id: int = 0, through: Driver | None = None) -> None:
        self.device_id = device_id
        self._driver = through or driver()
        self._context = self._driver.retain(device_id)
        self._addresses: list[int] = []
        self._streams: list[int] = []
        self._lock = threading.Lock()

    def host(self, size: int) -> NDArray[np.uint8]:
        """Pinned memory."""
        with self._driver.using(self._context):
            address = self._driver.host_alloc(size)
        block = (ctypes.c_uint8 * size).from_address(address)
        # Every view keeps the block alive: pinned memory outlives the executor that made it.
        weakref.finalize(block, _free_pinned, self._driver, self._context, address)
        pinned: NDArray[np.uint8] = np.ctypeslib.as_array(block)
        return pinned

    def device(self, size: int) -> int:
        """Memory of the GPU."""
        with self._driver.using(self._context):
            address = self._driver.alloc(size)
        self._addresses.append(address)
        return address

    def stream(self) -> int:
        """A CUDA stream."""
        with self._driver.using(self._context):
            stream = self._driver.stream()
        self._streams.append(stream)
        return stream

    def upload(self, copies: Iterable[Copy], stream: int) -> None:
        """Queue all, then wait for the last."""
        with self._driver.using(self._context):
            for copy in copies:
                self._driver.upload(copy.device, copy.host, copy.size, stream)
            self._driver.wait(stream)

    def download(self, copies: Iterable[Copy], stream: int) -> None:
        """Queue all, then wait for the last."""
        with self._driver.using(self._context):
            for copy in copies:
                self._driver.download(copy.host, copy.device, copy.size, stream)
            self._driver.wait(stream)

    def trouble(self) -> str:
        """What the driver says of the context: after a failed kernel, the same to every call."""
        try:
            with self._driver.using(self._context):
                self._driver.synchronize()
        except EngineError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Free streams and device memory; pinned memory goes with its arrays."""
        with self._lock:
            streams, self._streams = self._streams, []
            addresses, self._addresses = self._addresses, []
        for free, handles in (
            (self._driver.stream_free, streams),
            (self._driver.free, addresses),
        ):
            for handle in handles:
                # A lost GPU frees nothing.
                with contextlib.suppress(EngineError), self._driver.using(self._context):
                    free(handle)


def _free_pinned(through: Driver, context: int, address: int) -> None:
    def free() -> None:
        with contextlib.suppress(EngineError), through.using(context):
            through.host_free(address)

    DEVICES.later(free)


class HostMemory:
    """The CPU as a device, see :class:`Memory`: every path of an executor runs without a GPU."""

    name = "cpu"
    device_id = 0

    def __init__(self) -> None:
        self._blocks: list[NDArray[np.uint8]] = []

    def host(self, size: int) -> NDArray[np.uint8]:
        """Plain memory."""
        return np.zeros(size, np.uint8)

    def device(self, size: int) -> int:
        """Plain memory too."""
        block = np.zeros(size, np.uint8)
        self._blocks.append(block)
        return int(block.ctypes.data)

    def stream(self) -> int:
        """There is one, and it is always done."""
        return 0

    def upload(self, copies: Iterable[Copy], stream: int) -> None:
        """Copy."""
        for copy in copies:
            ctypes.memmove(copy.device, copy.host, copy.size)

    def download(self, copies: Iterable[Copy], stream: int) -> None:
        """Copy."""
        for copy in copies:
            ctypes.memmove(copy.host, copy.device, copy.size)

    def trouble(self) -> str:
        """It always works."""
        return ""

    def close(self) -> None:
        """Free it."""
        self._blocks.clear()
