"""How this CPU computes products of 8-bit integers.

With VNNI, AMX or ARM's dot products, a sum of products goes straight into 32 bits. An x86 processor
without them adds two products in 16 bits, which saturate: a graph with 8-bit weights then gives
wrong results without any error.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from lloss.manifest import Manifest
from lloss.runtime.onnx_runtime import import_onnxruntime

MADE_FOR = {8: "VNNI", 7: "AVX2"}
"""Instructions that make a graph fast, by the bits of its weights; those of ARM and newer ones of
x86 do as well."""

_EXACT = "session.x64quantprecision"


@functools.cache
def saturates() -> bool:
    """Whether onnxruntime's products of uint8 and int8 are wrong on this CPU when they are large.

    It runs a product that saturates 16 bits: this tests the kernels that onnxruntime really chose.
    """
    from onnx import parser

    weights = ",".join(["127"] * 64)
    product = parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
        product (uint8[N, 4] x) => (int32[N, 16] y) <int8[4, 16] w = {{{weights}}}>
        {{ y = MatMulInteger (x, w) }}""")
    session = open_cpu_session(product.SerializeToString(), weight_bits=0)
    (products,) = session.run(None, {"x": np.full((2, 4), 255, np.uint8)})
    return bool((products != 4 * 255 * 127).any())


def session_options(threads: int = 0, weight_bits: int = 8) -> Any:
    """Session options that make int8 weights compute the same on every CPU.

    Where products of 8 bits saturate, onnxruntime then takes slower kernels that do not.
    ``weight_bits`` of 8 are right for every graph; 0 ``threads`` are one per core.
    """
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 3  # errors; callers check everything else
    options.intra_op_num_threads = threads
    if weight_bits > 7 and saturates():
        options.add_session_config_entry(_EXACT, "1")
    return options


def open_cpu_session(model: str | bytes, threads: int = 0, weight_bits: int = 8) -> Any:
    """Open an ONNX file or its contents on the CPU, with :func:`session_options`."""
    options = session_options(threads, weight_bits)
    ort = import_onnxruntime()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def weight_bits(manifest: Manifest) -> int:
    """Bits of an int8 model's weights; 8 where they are unknown, 0 for other models."""
    if manifest.precision != "int8":
        return 0
    return 7 if manifest.recipe.get("weight_bits") == 7 else 8
