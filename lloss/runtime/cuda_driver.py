"""The NVIDIA driver through its C interface: which GPU there is, its memory, copies.

The driver comes with every NVIDIA GPU; no package is needed to ask it. ctypes lets go of the
interpreter lock during a call, so other threads go on while one waits for a copy. Memory made here
is of the device's primary context, the one that onnxruntime and torch use too.

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
_HOST_ALLOC_PORTABLE = 1
_STREAM_NON_BLOCKING = 1
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
    """One GPU.

    Attributes:
        name: such as ``NVIDIA H100 80GB HBM3``.
        compute_capability: such as ``9.0``.
        cuda: the newest CUDA that the driver can run, such as ``13.0``.
        driver: the driver's release, such as ``580.82.07``; empty where the system does not tell.
    """

    name: str
    compute_capability: str
    cuda: str
    driver: str


class Driver:
    """The driver's functions, checked.

    Args:
        library: the loaded ``libcuda``; by default it is found.

    Raises:
        EngineError: there is no driver, or it finds no GPU.
    """

    def __init__(self, library: Any = None) -> None:
        if library is None:
            try:
                library = ctypes.CDLL(LIBRARY)
            except OSError as error:
                raise EngineError(
                    f"{LIBRARY} is not on this machine: it comes with the NVIDIA driver "
                    "(in a container: start it with --gpus all)"
                ) from error
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
        self._library = library
        self._call("cuInit", 0)
        self.count = self._value("cuDeviceGetCount", ctypes.c_int)
        if not self.count:
            raise EngineError("the NVIDIA driver finds no GPU: look at CUDA_VISIBLE_DEVICES")

    def gpu(self, device_id: int = 0) -> Gpu:
        """What a GPU is.

        Raises:
            EngineError: there is no GPU of that number.
        """
        device = self._device(device_id)
        name = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", ctypes.addressof(name), len(name), device)
        major, minor = (
            self._value("cuDeviceGetAttribute", ctypes.c_int, attribute, device)
            for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
        )
        version = self._value("cuDriverGetVersion", ctypes.c_int)
        return Gpu(
            name=name.value.decode(),
            compute_capability=f"{major}.{minor}",
            cuda=f"{version // 1000}.{version % 1000 // 10}",
            driver=_release(),
        )

    def retain(self, device_id: int) -> int:
        """The handle of a GPU's primary context, kept alive until the process ends."""
        return int(
            self._value("cuDevicePrimaryCtxRetain", ctypes.c_void_p, self._device(device_id)) or 0
        )

    @contextmanager
    def using(self, context: int) -> Iterator[None]:
        """Make a context the calling thread's, for the calls below, and then the one before again.

        The thread may be the caller's own, whose current device (as torch has one) must not change.
        """
        self._call("cuCtxPushCurrent_v2", context)
        try:
            yield
        finally:
            self._value("cuCtxPopCurrent_v2", ctypes.c_void_p)

    def free_memory(self, device_id: int) -> int:
        """Bytes of a GPU that no process holds."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with self.using(self.retain(device_id)):
            self._call("cuMemGetInfo_v2", ctypes.addressof(free), ctypes.addressof(total))
        return free.value

    def synchronize(self) -> None:
        """Wait for all work of the thread's context.

        Raises:
            EngineError: some of it failed. After most failures of a kernel every later call fails
                with the same error, until the process ends.
        """
        self._call("cuCtxSynchronize")

    def host_alloc(self, size: int) -> int:
        """The address of ``size`` bytes of pinned host memory, pinned for every context."""
        return int(self._value("cuMemHostAlloc", ctypes.c_void_p, size, _HOST_ALLOC_PORTABLE) or 0)

    def host_free(self, address: int) -> None:
        """Free what :meth:`host_alloc` gave."""
        self._call("cuMemFreeHost", address)

    def alloc(self, size: int) -> int:
        """The device address of ``size`` bytes on the GPU."""
        return int(self._value("cuMemAlloc_v2", ctypes.c_uint64, size))

    def free(self, address: int) -> None:
        """Free what :meth:`alloc` gave."""
        self._call("cuMemFree_v2", address)

    def stream(self) -> int:
        """The handle of a new stream that does not wait for the default one."""
        return int(self._value("cuStreamCreate", ctypes.c_void_p, _STREAM_NON_BLOCKING) or 0)

    def stream_free(self, stream: int) -> None:
        """Free what :meth:`stream` gave."""
        self._call("cuStreamDestroy_v2", stream)

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        """Queue a copy of ``size`` bytes to the device; asynchronous from pinned memory only."""
        self._call("cuMemcpyHtoDAsync_v2", device, host, size, stream)

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        """Queue a copy of ``size`` bytes from the device."""
        self._call("cuMemcpyDtoHAsync_v2", host, device, size, stream)

    def wait(self, stream: int) -> None:
        """Wait until all that was queued on a stream is done."""
        self._call("cuStreamSynchronize", stream)

    def check(self, device_id: int) -> None:
        """Refuse a number that no GPU has.

        Raises:
            EngineError: likewise.
        """
        if not 0 <= device_id < self.count:
            raise EngineError(f"GPU {device_id}: this machine shows {self.count}, counted from 0")

    def _device(self, device_id: int) -> int:
        self.check(device_id)
        return int(self._value("cuDeviceGet", ctypes.c_int, device_id))

    def _value(self, name: str, kind: Any, *arguments: Any) -> Any:
        """Call a function whose first argument is where its answer goes."""
        answer = kind()
        self._call(name, ctypes.addressof(answer), *arguments)
        return answer.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            # Pinned memory is the host's: a smaller run on the device makes no room for it.
            full = code == _OUT_OF_MEMORY and name != "cuMemHostAlloc"
            kind = DeviceMemoryError if full else EngineError
            raise kind(f"the NVIDIA driver: {name} failed with {self._meaning(code)}")

    def _meaning(self, code: int) -> str:
        text = ctypes.c_char_p()
        try:
            self._library.cuGetErrorName(code, ctypes.byref(text))
        except AttributeError:  # pragma: no cover - every driver of today has it
            return str(code)
        return f"{text.value.decode()} ({code})" if text.value else str(code)


@functools.cache
def driver() -> Driver:
    """The one driver of this process.

    Raises:
        EngineError: there is none, or it finds no GPU.
    """
    return Driver()


def _release() -> str:
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except OSError:
        return ""
