"""Check that training did not diverge, and that the exported file computes what the network does.

Whole releases of popular stacks have exported wrong ResNets, so every export is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lloss.export.graph import ScoringGraph
from numpy.typing import NDArray
from torch import Tensor

from lloss.errors import DivergedError, ParityError
from lloss.manifest import INPUT
from lloss.modeling.network_checks import batch_remedy
from lloss.runtime.int8_support import open_cpu_session
from lloss.statistics.loss_unit import IN_NO_UNIT, LossUnit
from lloss.statistics.ranking_metrics import spearman

BATCHES = (1, 2, 3, 64)
"""Batch sizes that are tried, the last one with images of up to 128×128 pixels."""

PIXELS = 64 * 128 * 128
"""Pixels per batch, at most; for larger images the last batch is smaller, to stay quick."""

ABSOLUTE, RELATIVE = 1e-3, 1e-3
"""Allowed difference of an output: ABSOLUTE + RELATIVE * its largest magnitude, at most
:data:`MAGNITUDE`. Kernels of the two engines add in other orders; a wrong graph differs by far
more."""

MAGNITUDE = 1000.0
"""An exploded output is allowed no larger difference."""

HALF = 2e-2
"""ABSOLUTE and RELATIVE for a network in float16, whose numbers have 11 bits and whose engines on a
CPU round them at other places than torch."""

MIN_SPEARMAN = 0.999
"""Rank correlation of the predicted losses with torch's: values that are close to each other could
change ranks within their limits."""

TIE = 0.01
"""Share of the predicted losses' range within which two predictions are the same."""

NEAR_TIE = 1e-3
"""Below this margin between the two best classes (or the allowed difference of an output, where
that is more), either of them is a right prediction."""

Outputs = Mapping[str, NDArray[np.float32]]


def check_parity(
    path: Path, graph: ScoringGraph, images: NDArray[np.uint8]
) -> dict[str, dict[str, Any]]:
    """Run file and network on the same images at several batch sizes.

    ``images`` are real ones, uint8 [S, H, W, 3], repeated to fill a batch. A network that gives
    another output for an image in a batch of another size is refused too. Returns the largest
    absolute difference of each output over all batches, and the rank correlation of the predicted
    losses. Losses are compared as the head's scores, of which all are of the same size.
    """
    session = open_cpu_session(str(path))
    tolerance = (HALF, HALF) if graph.half_network else (ABSOLUTE, RELATIVE)
    worst: dict[str, float] = {}
    batches = _batches(images)
    every = np.resize(images, (batches[-1], *images.shape[1:]))
    largest = _torch(graph, every)
    for batch in batches:
        chunk = every[:batch]
        outputs = _with_scores(_run(session, chunk), graph.unit)
        expected = largest if batch == len(every) else _torch(graph, chunk)
        _check_rows(expected, largest, graph, tolerance)
        for name, difference, limit in _differences(outputs, expected, *tolerance):
            worst[name] = max(worst.get(name, 0.0), difference)
            if not difference <= limit:  # NaN fails too
                raise ParityError(
                    f"the exported graph differs from torch: output {name!r} by {difference:.3g} "
                    f"at batch {batch} (allowed {limit:.3g}); nothing was written. {_REPORT}"
                )
    measured: dict[str, Any] = {"batches": list(batches), "max_abs_difference": worst}
    if not graph.half_network:  # its ranks are compared with fp32's, on many more images
        correlation = _rank_correlation(outputs["loss"], expected["loss"])
        measured["spearman"] = correlation
        if correlation is not None and not correlation >= MIN_SPEARMAN:
            raise ParityError(
                f"the exported graph does not rank images as torch does: Spearman "
                f"{correlation:.5f} of the predicted losses of {len(chunk)} images (required: "
                f"{MIN_SPEARMAN}); nothing was written. {_REPORT}"
            )
    return {"torch_parity": measured}


def check_batches(path: Path, images: NDArray[np.uint8]) -> None:
    """Check that a reduced graph computes the same for an image in a batch of any size.

    The graph was made from one that passed :func:`check_parity`; ``images`` are as there.
    """
    session, batches = open_cpu_session(str(path)), _batches(images)
    largest = np.resize(images, (max(batches), *images.shape[1:]))
    # Of any unit: a difference of scores is one of logarithms
    expected = _with_scores(_run(session, largest), IN_NO_UNIT)
    for batch in batches:
        rows = {name: values[:batch] for name, values in expected.items()}
        outputs = _with_scores(_run(session, largest[:batch]), IN_NO_UNIT)
        for name, difference, limit in _differences(outputs, rows, HALF, HALF):
            if not difference <= limit:
                raise ParityError(
                    f"the reduced graph gives another {name!r} at batch {batch} than at "
                    f"{max(batches)} (by {difference:.3g}); nothing was written. "
                    "Use --precision fp32, and report the model's name"
                )


def _with_scores(outputs: Outputs, unit: LossUnit) -> Outputs:
    """Replace the losses by the scores that the head gave."""
    scores = unit.scores(outputs["loss"]).astype(outputs["loss"].dtype)
    return {**outputs, "loss": scores}


def _check_rows(
    outputs: Outputs, largest: Outputs, graph: ScoringGraph, tolerance: tuple[float, float]
) -> None:
    """Refuse a network whose outputs for an image are others in a larger batch."""
    batch, most = len(outputs["loss"]), len(largest["loss"])
    rows = {name: values[:batch] for name, values in largest.items()}
    for name, difference, limit in _differences(outputs, rows, *tolerance):
        if not difference <= limit:
            raise ParityError(
                f"the network gives another {name!r} for an image in a batch of {batch} than of "
                f"{most} (by {difference:.3g}, allowed {limit:.3g}); nothing was written. "
                f"A score must depend on the image alone: {batch_remedy(graph.model)}"
            )


_REPORT = "Report the model's name and the versions of torch and onnxscript"


def _limit(values: NDArray[np.float32], absolute: float, relative: float) -> float:
    """The allowed difference of an output with these values."""
    return absolute + relative * min(float(np.abs(values).max()), MAGNITUDE)


def _rank_correlation(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float | None:
    """Spearman's correlation, ties by their mean rank; None where both sides are constant.

    A prediction that differs by no more than rounding counts as equal, so that images of the same
    loss in torch have no order.
    """
    tie = max(TIE * float(np.ptp(expected)), 1e-5 * (1 + float(np.abs(expected).max())))
    near = np.where(np.abs(actual - expected) <= tie, expected, actual)
    if np.ptp(expected) == 0 and np.ptp(near) == 0:
        return None
    correlation = spearman(near, expected)
    return 0.0 if np.isnan(correlation) else correlation


def _batches(images: NDArray[np.uint8]) -> tuple[int, ...]:
    most = PIXELS // (images.shape[1] * images.shape[2])
    return (*BATCHES[:-1], max(4, min(BATCHES[-1], most)))


def _torch(graph: ScoringGraph, images: NDArray[np.uint8]) -> Outputs:
    with torch.no_grad():
        found = {name: v.numpy() for name, v in graph.outputs(torch.from_numpy(images)).items()}
    return _with_scores(found, graph.unit)


def _run(session: Any, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: images})))


def _differences(
    outputs: Outputs, expected: Outputs, absolute: float, relative: float
) -> Iterator[tuple[str, float, float]]:
    """Yield each output's name, its largest difference, and the allowed one."""
    near = max(NEAR_TIE, absolute)
    for name, b in expected.items():
        a, limit = outputs[name], _limit(b, absolute, relative)
        if a.shape != b.shape or a.dtype != np.float32:
            yield name, float("inf"), limit
            continue
        if name == "prediction" and "margin" in expected:
            clear = expected["margin"] > near
            a, b = a[clear], b[clear]
        yield name, float(np.abs(a - b).max(initial=0.0)), limit


LARGEST = {"loss": 1e4, "embedding": 1e6}
"""Outputs beyond these have exploded: float32 has 7 digits, and of a head's score beyond 10,000
it keeps less than the difference from torch that an export may have. Of the loss, it is the score
that counts."""


def check_network(
    graph: ScoringGraph, images: NDArray[np.uint8], remedy: str, where: object
) -> None:
    """Check weights and outputs on training images, uint8 [S, H, W, 3].

    ``remedy`` and ``where``, the checkpoint, are for messages.
    """

    def error(what: str) -> DivergedError:
        return DivergedError(f"{where}: {what}; nothing was written. Train again: {remedy}")

    for name, value in graph.model.state_dict().items():
        if not torch.isfinite(value).all():
            raise error(f"its training diverged: the weights {name!r} are infinite or NaN")
    outputs = _outputs(graph, images)
    for name, value in outputs.items():
        broken = int((~torch.isfinite(value).reshape(len(value), -1).all(1)).sum())
        if broken:
            raise error(
                f"its training diverged: the output {name!r} is infinite or NaN for {broken} of "
                f"{len(images)} training images"
            )
    scores = graph.unit.scores(outputs["loss"].numpy())
    outputs["loss"] = torch.from_numpy(scores)
    for name, bound in LARGEST.items():
        largest = float(outputs[name].abs().max())
        if largest > bound:
            raise error(
                f"its outputs have exploded: {name!r} reaches {largest:.3g} on training images, "
                f"above {bound:.3g}: the network diverged, or its batch norm needs more steps"
            )


def _outputs(graph: ScoringGraph, images: NDArray[np.uint8], batch: int = 16) -> dict[str, Tensor]:
    """All outputs for the images, by name."""
    parts = []
    for rows in np.array_split(np.arange(len(images)), max(1, len(images) // batch)):
        with torch.no_grad():
            parts.append(graph.outputs(torch.from_numpy(images[rows])))
    return {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}
