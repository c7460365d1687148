"""Does the exported file compute what the network computes?

Wrong ResNets have been exported by whole releases of popular stacks, so the check is no option.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lloss.export.check_session import open_session
from lloss.export.graph import ScoringGraph
from numpy.typing import NDArray

from lloss.errors import ParityError
from lloss.manifest import INPUT
from lloss.statistics.ranking_metrics import spearman

BATCHES = (1, 2, 3, 64)
"""Sizes of a batch that are tried, the last with images of up to 128×128 pixels."""

PIXELS = 64 * 128 * 128
"""Of a batch at most: larger images make the last batch smaller, so that the check stays quick."""

ABSOLUTE, RELATIVE = 1e-3, 1e-3
"""Allowed difference of an output: ABSOLUTE + RELATIVE * its largest magnitude, of which no more
than :data:`MAGNITUDE` counts.

Kernels of the two engines add in other orders; a wrong graph differs by far more.
"""

MAGNITUDE = 1000.0
"""What explodes is allowed no more for it."""

MIN_SPEARMAN = 0.999
"""Rank correlation of the predicted losses with torch's, which values that lie close to each other
could fail at with each of them in its limits."""

TIE = 0.01
"""Share of the predicted losses' range within which the two engines' predictions are the same."""

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
        Largest absolute difference of each output over all batches, and the rank correlation of
        the predicted losses.

    Raises:
        ParityError: some output differs by more than rounding, or the predicted losses rank
            images otherwise; it says which and where.
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
            limit = _limit(wanted[name], absolute, relative)
            if not difference <= limit:  # a NaN is no match either
                raise ParityError(
                    f"the exported graph differs from torch: output {name!r} by {difference:.3g} "
                    f"at batch {batch} (allowed {limit:.3g}); nothing was written. "
                    + _reason(wanted[name])
                )
    measured: dict[str, Any] = {"batches": list(batches), "max_abs_difference": worst}
    if not graph.half_network:  # whose ranks are held against fp32's on many more images
        correlation = _rank_correlation(found["loss"], wanted["loss"])
        measured["spearman"] = correlation
        if correlation is not None and not correlation >= MIN_SPEARMAN:
            raise ParityError(
                f"the exported graph does not rank images as torch does: Spearman "
                f"{correlation:.5f} of the predicted losses of {len(chunk)} images (at least "
                f"{MIN_SPEARMAN} is asked for); nothing was written. "
                "Report the model's name and the versions of torch and onnxscript"
            )
    return {"torch_parity": measured}


def _reason(values: NDArray[np.float32]) -> str:
    """Why an output differs by more than it may, and what to do."""
    largest = float(np.abs(values).max())
    if largest <= MAGNITUDE:
        return "Report the model's name and the versions of torch and onnxscript"
    return (
        f"The network's outputs have exploded (up to {largest:.3g}), so that rounding alone may be "
        "the difference: train again with a lower --lr or for more epochs"
    )


def _limit(values: NDArray[np.float32], absolute: float, relative: float) -> float:
    """What an output of these values may differ by."""
    return absolute + relative * min(float(np.abs(values).max()), MAGNITUDE)


def _rank_correlation(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float | None:
    """Spearman's, ties by their mean rank; None where both say the same of all images.

    A prediction that differs by no more than rounding is the other's, so that images that torch
    has at the same loss are no pair to be ordered.
    """
    tie = max(TIE * float(np.ptp(wanted)), 1e-5 * (1 + float(np.abs(wanted).max())))
    near = np.where(np.abs(found - wanted) <= tie, wanted, found)
    if np.ptp(wanted) == 0 and np.ptp(near) == 0:
        return None
    correlation = spearman(near, wanted)
    return 0.0 if np.isnan(correlation) else correlation


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
            if not difference <= _limit(rows[name], HALF, HALF):
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
