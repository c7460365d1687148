"""Does the exported file compute what the network computes?

Wrong ResNets have been exported by whole releases of popular stacks, so the check is no option.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lloss.artifact import INPUT
from lloss.errors import ParityError

from .graph import ScoringGraph
from .session import open_session

BATCHES = (1, 2, 3, 64)
"""Sizes of a batch that are tried, the last with images of up to 128×128 pixels."""

PIXELS = 64 * 128 * 128
"""Of a batch at most: larger images make the last batch smaller, so that the check stays quick."""

ABSOLUTE, RELATIVE = 1e-3, 1e-3
"""Allowed difference of an output: ABSOLUTE + RELATIVE * its largest magnitude.

Kernels of the two engines add in other orders; a wrong graph differs by far more.
"""

NEAR_TIE = 1e-3
"""Below this margin (or what an output may differ by, where that is more) between the two best
classes either of them is a right prediction."""


HALF = 2e-2
"""Likewise for a network in float16, whose numbers have 11 bits and whose engines on a CPU round
them at other places than torch."""


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
    session = open_session(path)
    absolute, relative = (HALF, HALF) if graph.half_network else (ABSOLUTE, RELATIVE)
    names = [output.name for output in session.get_outputs()]
    worst = dict.fromkeys(names, 0.0)
    batches = _batches(images)
    for batch in batches:
        chunk = np.resize(images, (batch, *images.shape[1:]))
        found = dict(zip(names, session.run(None, {INPUT: chunk})))
        with torch.no_grad():
            wanted = {k: v.numpy() for k, v in graph.outputs(torch.from_numpy(chunk)).items()}
        for name in names:
            difference = _difference(name, found, wanted, max(NEAR_TIE, absolute))
            worst[name] = max(worst[name], difference)
            limit = absolute + relative * float(np.abs(wanted[name]).max())
            if not difference <= limit:  # a NaN is no match either
                raise ParityError(
                    f"the exported graph differs from torch: output {name!r} by {difference:.3g} "
                    f"at batch {batch} (allowed {limit:.3g}); nothing was written. "
                    "Report the model's name and the versions of torch and onnxscript"
                )
    return {"torch_parity": {"batches": list(batches), "max_abs_difference": worst}}


def check_batches(path: Path, images: NDArray[np.uint8]) -> None:
    """Check that a graph says the same of an image in a batch of any size.

    Args:
        path: an ONNX file made from one that passed :func:`check_parity`.
        images: real ones, uint8 [S, H, W, 3].

    Raises:
        ParityError: it does not.
    """
    session = open_session(path)
    names = [output.name for output in session.get_outputs()]
    batches = _batches(images)
    largest = np.resize(images, (max(batches), *images.shape[1:]))
    wanted = dict(zip(names, session.run(None, {INPUT: largest})))
    for batch in batches:
        found = dict(zip(names, session.run(None, {INPUT: largest[:batch]})))
        rows = {name: values[:batch] for name, values in wanted.items()}
        for name in names:
            difference = _difference(name, found, rows, HALF)
            if not difference <= HALF * (1 + float(np.abs(rows[name]).max())):
                raise ParityError(
                    f"the reduced graph gives another {name!r} at batch {batch} than at "
                    f"{max(batches)} (by {difference:.3g}); nothing was written. "
                    "Use --precision fp32, and report the model's name"
                )


def _batches(images: NDArray[np.uint8]) -> tuple[int, ...]:
    most = PIXELS // (images.shape[1] * images.shape[2])
    return (*BATCHES[:-1], max(4, min(BATCHES[-1], most)))


def _difference(name: str, found: dict[str, Any], wanted: dict[str, Any], near: float) -> float:
    a, b = found[name], wanted[name]
    if a.shape != b.shape or a.dtype != np.float32:
        return float("inf")
    if name == "prediction" and "margin" in wanted:
        clear = wanted["margin"] > near
        a, b = a[clear], b[clear]
    return float(np.abs(a - b).max(initial=0.0))
