"""The GPUs of this machine, by the C interface of the NVIDIA driver.

Reference: CUDA Driver API, https://docs.nvidia.com/cuda/cuda-driver-api/.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

from lloss.errors import EngineError

LIBRARY = "libcuda.so.1"

_CAPABILITY_ATTRIBUTES = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR


@dataclass(frozen=True)
class Gpu:
    """One GPU."""

    name: str  # such as NVIDIA H100 80GB HBM3
    compute_capability: str  # such as 9.0
    cuda: str  # the newest CUDA version that the driver supports, such as 13.0


def check_gpu(device_id: int) -> None:
    """Raise an :class:`EngineError` if there is no driver, or no GPU of this number."""
    count = _number("cuDeviceGetCount")
    if not count:
        raise EngineError("the NVIDIA driver finds no GPU: look at CUDA_VISIBLE_DEVICES")
    if not 0 <= device_id < count:
        raise EngineError(f"GPU {device_id}: this machine shows {count}, counted from 0")


def gpu(device_id: int = 0) -> Gpu:
    """Describe a GPU."""
    check_gpu(device_id)
    device = _number("cuDeviceGet", device_id)
    name = ctypes.create_string_buffer(256)
    _call("cuDeviceGetName", name, len(name), device)
    capability = (_number("cuDeviceGetAttribute", kind, device) for kind in _CAPABILITY_ATTRIBUTES)
    version = _number("cuDriverGetVersion")
    return Gpu(
        name=name.value.decode(),
        compute_capability=".".join(map(str, capability)),
        cuda=f"{version // 1000}.{version % 1000 // 10}",
    )


@functools.cache
def load_library() -> Any:
    """Load and initialize the driver."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise EngineError(
            f"{LIBRARY} is not on this machine: it comes with the NVIDIA driver "
            "(in a container: start it with --gpus all)"
        ) from error
    _check_code("cuInit", library.cuInit(0))
    return library


def _number(function: str, *arguments: int) -> int:
    """Call a function whose first argument is a pointer to its result, a C int."""
    number = ctypes.c_int()
    _call(function, ctypes.byref(number), *arguments)
    return number.value


def _call(function: str, *arguments: Any) -> None:
    _check_code(function, getattr(load_library(), function)(*arguments))


def _check_code(function: str, code: int) -> None:
    if code:
        raise EngineError(f"the NVIDIA driver: {function} failed with error {code}")
