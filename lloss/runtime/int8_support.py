"""How this CPU adds up products of 8-bit integers.

With VNNI, AMX or the dot products of ARM a sum of products goes straight into 32 bits. An x86
processor without them adds two products in 16 bits, which saturate: a graph with 8-bit weights
then computes something else, and nothing fails. Nothing here imports onnxruntime before it is
asked to.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import numpy as np

MADE_FOR = {8: "VNNI", 7: "AVX2"}
"""Instructions that a graph with weights of so many bits needs to be fast; those of ARM and newer
ones of x86 do as well."""

_EXACT = "session.x64quantprecision"
_PROCESSOR = Path("/proc/cpuinfo")
_WITH_SUMS = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI"}
_NAMES = {
    **_WITH_SUMS, "avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4_1": "SSE4.1",
    "i8mm": "ARM I8MM", "asimddp": "ARM dot product", "asimd": "ARM NEON",
}  # fmt: skip


@functools.cache
def saturates() -> bool:
    """Whether ONNX Runtime's products of uint8 and int8 are wrong on this CPU when they are large.

    A product that saturates 16 bits is computed and looked at: what counts are the kernels that
    ONNX Runtime really chose, on any system.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(_product(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((2, 4), 255, np.uint8)})
    return bool((found != 4 * 255 * 127).any())


def _product() -> bytes:
    """A graph of one product: uint8 [N, 4] by an int8 matrix of 127s."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["N", 16])],
        [numpy_helper.from_array(np.full((4, 16), 127, np.int8), "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())


def keep_exact(options: Any, weight_bits: int) -> None:
    """Let a session with int8 weights compute the same on every CPU.

    Where products saturate ONNX Runtime then takes slower kernels that do not.

    Args:
        options: ``onnxruntime.SessionOptions``, changed in place.
        weight_bits: of the graph; those of 7 bits cannot saturate, and stay with the fast kernels.
    """
    if weight_bits > 7 and saturates():
        options.add_session_config_entry(_EXACT, "1")


def instructions() -> str:
    """The best instructions for 8-bit products that this CPU has, for the reader of a message."""
    try:
        lines = _PROCESSOR.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    heads = ("flags", "Features")  # of x86 and of ARM
    told = next((line for line in lines if line.partition(":")[0].strip() in heads), "")
    flags = set(told.partition(":")[2].split())
    if saturates():  # an emulator may show the flags of another CPU
        flags -= _WITH_SUMS.keys()
    return next((name for flag, name in _NAMES.items() if flag in flags), platform.machine())
