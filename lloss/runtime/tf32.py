"""Keep TF32 out: fp32 computes in fp32.

TF32 keeps 10 bits of mantissa: predictions that are near each other could change ranks, unmeasured.
The faster choice is fp16, whose fidelity is measured and in the manifest.

CUDA's provider has an option against TF32; TensorRT's has none, so TensorRT needs an environment
variable that NVIDIA's libraries read as they load. The commands set it as they start. A program
that uses :class:`lloss.Scorer` may want TF32 for its own networks and sets it itself.
"""

from __future__ import annotations

import os

VARIABLE = "NVIDIA_TF32_OVERRIDE"


def forbid() -> None:
    """Set the variable for this process, unless the user has set it."""
    os.environ.setdefault(VARIABLE, "0")


def forbidden() -> bool:
    """Whether no library may use TF32."""
    return os.environ.get(VARIABLE) == "0"
