"""Keep TF32 out: fp32 computes in fp32.

TF32 keeps 10 bits of mantissa: predictions that are near each other could change ranks, unmeasured.
The faster choice is fp16, whose fidelity is measured and in the manifest.

CUDA's provider has an option against TF32, which has no effect where cuDNN has no other kernel;
TensorRT's has none. An environment variable rules all of NVIDIA's libraries, which read it when
they are loaded or first used. The commands set it as they start. A program that uses
:class:`lloss.Scorer` may want TF32 for its own networks: its environment is left alone, and
TensorRT is refused there unless the variable is set.
"""

from __future__ import annotations

import os
from pathlib import Path

from lloss.errors import EngineError
from lloss.runtime import cuda_driver

VARIABLE = "NVIDIA_TF32_OVERRIDE"

_FIRST_WITH_TF32 = 8.0
_MAPS = Path("/proc/self/maps")
_READERS = ("libcublas", "libcudnn", "libnvinfer")


def forbid() -> None:
    """Set the variable for this process, unless it is set already or a library has read it."""
    if VARIABLE not in os.environ and not _loaded():
        os.environ[VARIABLE] = "0"


def forbidden() -> bool:
    """Whether no library may use TF32, whatever its options."""
    return os.environ.get(VARIABLE) == "0"


def possible(device_id: int) -> bool:
    """Whether a GPU can compute in TF32, and nothing forbids it."""
    if forbidden():
        return False
    try:
        capability = cuda_driver.driver().gpu(device_id).compute_capability
    except EngineError:
        return True
    return float(capability) >= _FIRST_WITH_TF32


def _loaded() -> bool:
    try:
        maps = _MAPS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(name in maps for name in _READERS)
