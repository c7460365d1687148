"""Refuse a network whose training diverged, before it is exported."""

from __future__ import annotations

import numpy as np
import torch
from lloss.export.graph import ScoringGraph
from numpy.typing import NDArray
from torch import Tensor

from lloss.errors import DivergedError

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
