"""TF32 is kept out: fp32 computes in fp32.

TF32 keeps 10 bits of mantissa: predictions that are near each other would change ranks, unmeasured.
Who wants speed exports fp16, whose fidelity is measured and in the manifest.

CUDA's provider has an option against it, which does not bind where cuDNN finds no other kernel;
TensorRT's has none (its builder allows TF32). What binds all of NVIDIA's libraries is an
environment variable, which they read when they are loaded or first used. The commands set it as
they start. A program that uses :class:`lloss.Scorer` may want TF32 for its own networks: its
environment is left alone, and TensorRT is refused there unless the variable is set.
"""

from __future__ import annotations

import os
from pathlib import Path

from lloss.errors import EngineError
from lloss.runtime import cuda_driver as cuda

VARIABLE = "NVIDIA_TF32_OVERRIDE"

_FIRST_WITH_TF32 = 8.0
_MAPS = Path("/proc/self/maps")
_READERS = ("libcublas", "libcudnn", "libnvinfer")


def forbid() -> None:
    """Set the variable for this process, unless the user has set it or it would come too late."""
    if VARIABLE not in os.environ and not _loaded():
        os.environ[VARIABLE] = "0"


def forbidden() -> bool:
    """Whether no library may use it, whatever its options."""
    return os.environ.get(VARIABLE) == "0"


def possible(device_id: int) -> bool:
    """Whether a GPU can compute in TF32, and nothing forbids it to."""
    if forbidden():
        return False
    try:
        return float(cuda.driver().gpu(device_id).compute_capability) >= _FIRST_WITH_TF32
    except EngineError:
        return True


def _loaded() -> bool:
    try:
        maps = _MAPS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(name in maps for name in _READERS)
