"""The session that checks an exported graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lloss.runtime.int8_support import keep_exact
from lloss.runtime.onnx_runtime import import_onnxruntime


def open_session(path: Path, threads: int = 0, weight_bits: int = 8) -> Any:
    """Open an ONNX file on the CPU, as a scorer does; 0 threads are one a core.

    8 is right for the weight bits of every graph, 7 may be faster for one of 7.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    keep_exact(options, weight_bits)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
