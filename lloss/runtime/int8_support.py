"""How this CPU computes products of 8-bit integers.

With VNNI, AMX or ARM's dot products, a sum of products goes straight into 32 bits. An x86 processor
without them adds two products in 16 bits, which saturate: a graph with 8-bit weights then gives
wrong results without any error.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import numpy as np

from lloss.runtime.onnx_runtime import import_onnxruntime

MADE_FOR = {8: "VNNI", 7: "AVX2"}
"""Instructions that make a graph fast, by the bits of its weights; those of ARM and newer ones of
x86 do as well."""

CPUINFO = Path("/proc/cpuinfo")

_EXACT = "session.x64quantprecision"
_VNNI = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI"}
_NAMES = {
    **_VNNI, "avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX", "sse4_1": "SSE4.1",
    "i8mm": "ARM I8MM", "asimddp": "ARM dot product", "asimd": "ARM NEON",
}  # fmt: skip


@functools.cache
def saturates() -> bool:
    """Whether onnxruntime's products of uint8 and int8 are wrong on this CPU when they are large.

    It runs a product that saturates 16 bits: this tests the kernels that onnxruntime really chose.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(_product(), options, providers=["CPUExecutionProvider"])
    (products,) = session.run(None, {"x": np.full((2, 4), 255, np.uint8)})
    return bool((products != 4 * 255 * 127).any())


def _product() -> bytes:
    """A graph of one product: uint8 [N, 4] by an int8 matrix of 127s."""
    from onnx import parser

    weights = ",".join(["127"] * 64)
    text = f"""<ir_version: 10, opset_import: ["": 20]>
        product (uint8[N, 4] x) => (int32[N, 16] y) <int8[4, 16] w = {{{weights}}}>
        {{ y = MatMulInteger (x, w) }}"""
    return bytes(parser.parse_model(text).SerializeToString())


def keep_exact(options: Any, weight_bits: int) -> None:
    """Make a session with int8 weights compute the same on every CPU.

    Where products saturate, onnxruntime then takes slower kernels that do not.
    """
    if weight_bits > 7 and saturates():
        options.add_session_config_entry(_EXACT, "1")


def instructions() -> str:
    """Name of the best instructions for 8-bit products that this CPU has."""
    flags = set((cpuinfo("flags") or cpuinfo("Features")).split())  # x86, ARM
    if saturates():  # an emulator may show the flags of another CPU
        flags -= _VNNI.keys()
    return next((name for flag, name in _NAMES.items() if flag in flags), platform.machine())


def cpuinfo(key: str) -> str:
    """Value of a key in Linux's ``/proc/cpuinfo``; "" where it is unknown."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == key), "")
