"""The NVIDIA driver through its C interface: GPUs, memory, copies.

ctypes releases the interpreter lock during a call, so other threads continue while one waits for a
copy. Memory belongs to the device's primary context, which onnxruntime and torch use too.

Reference: CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api/.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lloss.errors import DeviceMemoryError, EngineError

LIBRARY = "libcuda.so.1"

_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76
_OUT_OF_MEMORY = 2

_pointer = ctypes.c_void_p
_number = ctypes.c_int
_device_pointer = ctypes.c_uint64
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (_pointer,),
    "cuDeviceGetCount": (_pointer,),
    "cuDeviceGet": (_pointer, _number),
    "cuDeviceGetName": (_pointer, _number, _number),
    "cuDeviceGetAttribute": (_pointer, _number, _number),
    "cuDevicePrimaryCtxRetain": (_pointer, _number),
    "cuCtxPushCurrent_v2": (_pointer,),
    "cuCtxPopCurrent_v2": (_pointer,),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (_pointer, _pointer),
    "cuMemHostAlloc": (_pointer, ctypes.c_size_t, ctypes.c_uint),
    "cuMemFreeHost": (_pointer,),
    "cuMemAlloc_v2": (_pointer, ctypes.c_size_t),
    "cuMemFree_v2": (_device_pointer,),
    "cuStreamCreate": (_pointer, ctypes.c_uint),
    "cuStreamDestroy_v2": (_pointer,),
    "cuStreamSynchronize": (_pointer,),
    "cuMemcpyHtoDAsync_v2": (_device_pointer, _pointer, ctypes.c_size_t, _pointer),
    "cuMemcpyDtoHAsync_v2": (_pointer, _device_pointer, ctypes.c_size_t, _pointer),
}


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str  # such as NVIDIA H100 80GB HBM3
    compute_capability: str  # such as 9.0
    cuda: str  # the newest CUDA version that the driver supports, such as 13.0
    driver: str  # its release, such as 580.82.07; empty where it is unknown


class Driver:
    """The driver's functions, with their return codes checked.

    Args:
        library: the loaded ``libcuda``; by default the system's.

    Attributes:
        count: number of GPUs.

    Raises:
        EngineError: there is no driver, or it finds no GPU.
    """

    def __init__(self, library: Any = None) -> None:
        try:
            library = library or ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise EngineError(
                f"{LIBRARY} is not on this machine: it comes with the NVIDIA driver "
                "(in a container: start it with --gpus all)"
            ) from error
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
        self._library = library
        self.call("cuInit", 0)
        self.count = self.value("cuDeviceGetCount", ctypes.c_int)
        if not self.count:
            raise EngineError("the NVIDIA driver finds no GPU: look at CUDA_VISIBLE_DEVICES")

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function."""
        code = getattr(self._library, name)(*arguments)
        if code:
            # Pinned memory is the host's: a smaller run on the device would not help.
            full = code == _OUT_OF_MEMORY and name != "cuMemHostAlloc"
            kind = DeviceMemoryError if full else EngineError
            raise kind(f"the NVIDIA driver: {name} failed with {self._meaning(code)}")

    def value(self, name: str, kind: Any, *arguments: Any) -> int:
        """Call a function whose first argument is the address of its answer."""
        answer = kind()
        self.call(name, ctypes.addressof(answer), *arguments)
        return int(answer.value or 0)

    def check(self, device_id: int) -> None:
        """Refuse a number that no GPU has."""
        if not 0 <= device_id < self.count:
            raise EngineError(f"GPU {device_id}: this machine shows {self.count}, counted from 0")

    def gpu(self, device_id: int = 0) -> Gpu:
        """Describe a GPU."""
        device = self._device(device_id)
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", ctypes.addressof(name), len(name), device)
        major, minor = (
            self.value("cuDeviceGetAttribute", ctypes.c_int, attribute, device)
            for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
        )
        version = self.value("cuDriverGetVersion", ctypes.c_int)
        cuda = f"{version // 1000}.{version % 1000 // 10}"
        return Gpu(name.value.decode(), f"{major}.{minor}", cuda, _release())

    def context(self, device_id: int) -> int:
        """Handle of a GPU's primary context, kept alive until the process ends."""
        return self.value("cuDevicePrimaryCtxRetain", ctypes.c_void_p, self._device(device_id))

    @contextmanager
    def using(self, context: int) -> Iterator[None]:
        """Make a context current in the calling thread, then restore the one before.

        The thread may be the caller's own, whose current device (as torch has one) must not change.
        """
        self.call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self.value("cuCtxPopCurrent_v2", ctypes.c_void_p)

    def free_memory(self, device_id: int) -> int:
        """Bytes of a GPU's memory that no process holds."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self.using(self.context(device_id)):
            self.call("cuMemGetInfo_v2", ctypes.addressof(free), ctypes.addressof(total))
        return free.value

    def _device(self, device_id: int) -> int:
        self.check(device_id)
        return self.value("cuDeviceGet", ctypes.c_int, device_id)

    def _meaning(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(code, ctypes.byref(text))
        return f"{text.value.decode()} ({code})" if text.value else str(code)


@functools.cache
def driver() -> Driver:
    """The driver of this process."""
    return Driver()


def _release() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except OSError:
        return ""
