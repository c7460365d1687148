"""Does the exported file compute what the network computes?

Wrong ResNets have been exported by whole releases of popular stacks, so the check is no option.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from lloss.artifact import INPUT
from lloss.errors import ParityError

from .graph import ScoringGraph

BATCHES = (1, 2, 3, 64)
ABSOLUTE, RELATIVE = 1e-3, 1e-3
"""Allowed difference of an output: ABSOLUTE + RELATIVE * its largest magnitude.

Kernels of the two engines add in other orders; a wrong graph differs by far more.
"""

NEAR_TIE = 1e-3
"""Below this margin between the two best classes either of them is a right prediction."""


def check_parity(
    path: Path, graph: ScoringGraph, images: NDArray[np.uint8]
) -> dict[str, dict[str, Any]]:
    """Run both on the same images at several batch sizes.

    Args:
        path: the ONNX file.
        graph: what it was exported from.
        images: real ones, uint8 [S, H, W, 3]; repeated to fill a batch.

    Returns:
        Largest absolute difference of each output over all batches.

    Raises:
        ParityError: some output differs by more than rounding; it says which and where.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    worst = dict.fromkeys(names, 0.0)
    for batch in BATCHES:
        chunk = np.resize(images, (batch, *images.shape[1:]))
        found = dict(zip(names, session.run(None, {INPUT: chunk})))
        with torch.no_grad():
            wanted = {k: v.numpy() for k, v in graph.outputs(torch.from_numpy(chunk)).items()}
        for name in names:
            difference = _difference(name, found, wanted)
            worst[name] = max(worst[name], difference)
            limit = ABSOLUTE + RELATIVE * float(np.abs(wanted[name]).max())
            if not difference <= limit:  # a NaN is no match either
                raise ParityError(
                    f"the exported graph differs from torch: output {name!r} by {difference:.3g} "
                    f"at batch {batch} (allowed {limit:.3g}); nothing was written. "
                    "Report the model's name and the versions of torch and onnxscript"
                )
    return {"torch_parity": {"batches": list(BATCHES), "max_abs_difference": worst}}


def _difference(name: str, found: dict[str, Any], wanted: dict[str, Any]) -> float:
    a, b = found[name], wanted[name]
    if a.shape != b.shape or a.dtype != np.float32:
        return float("inf")
    if name == "prediction" and "margin" in wanted:
        clear = wanted["margin"] > NEAR_TIE
        a, b = a[clear], b[clear]
    return float(np.abs(a - b).max(initial=0.0))
