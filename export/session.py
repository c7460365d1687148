"""The session that an export is checked with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime as ort


def open_session(path: Path, threads: int = 0) -> Any:
    """A session on the CPU, which every machine has; ``threads`` 0 for one a core."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
