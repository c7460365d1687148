"""Is the trained network one that can be exported at all, or did its training diverge?"""

from __future__ import annotations

import numpy as np
import torch
from lloss.export.graph import ScoringGraph
from numpy.typing import NDArray
from torch import Tensor

from lloss.errors import DivergedError
from lloss.tasks.train_settings import TrainSettings
from lloss.training.divergence import batch_statistics, remedy

LARGEST = {"loss": 1e4, "embedding": 1e6}
"""Outputs beyond these have exploded: float32 has 7 digits, and of a predicted loss beyond 10,000
it keeps less than the difference from torch that an export may have."""

TIMES = 100.0
"""Likewise those beyond so many times what they are (or 1, where that is less) with each batch's
own statistics: that is what training saw, and what the head learned from. A few steps of training
leave up to ten times."""


def check_network(
    graph: ScoringGraph, images: NDArray[np.uint8], settings: TrainSettings, where: object
) -> None:
    """Refuse a network whose outputs are not to be ranked by.

    Args:
        graph: in eval mode, with the trained weights.
        images: training images, uint8 [S, H, W, 3].
        settings: of the training, for the remedy.
        where: the checkpoint, for messages.

    Raises:
        DivergedError: weights or outputs are infinite or NaN, or outputs have exploded.
    """
    advice = f"nothing was written. Train again: {remedy(settings)}"
    for name, value in graph.model.state_dict().items():
        if not torch.isfinite(value).all():
            raise DivergedError(
                f"{where}: its training diverged: the weights {name!r} are infinite or NaN; "
                f"{advice}"
            )
    found = _outputs(graph, images)
    for name, value in found.items():
        broken = int((~torch.isfinite(value).reshape(len(value), -1).all(1)).sum())
        if broken:
            raise DivergedError(
                f"{where}: its training diverged: the output {name!r} is infinite or NaN for "
                f"{broken} of {len(images)} training images; {advice}"
            )
    with batch_statistics(graph.model) as norms:
        learned = _outputs(graph, images) if norms and len(images) > 1 else {}
    for name, bound in LARGEST.items():
        largest = float(found[name].abs().max())
        if name in learned:
            # NaN bounds nothing: then this batch alone says nothing.
            bound = float(np.fmin(bound, TIMES * max(1.0, float(learned[name].abs().max()))))
        if largest > bound:
            why = (
                f"above {bound:.3g}, {TIMES:g} times what it is by each batch's own statistics: "
                "batch norm's running ones have not settled (train for more epochs or with a "
                "smaller --batch-size)"
                if bound < LARGEST[name]
                else f"above {bound:.3g}: the network diverged"
            )
            raise DivergedError(
                f"{where}: its outputs have exploded: {name!r} reaches {largest:.3g} on training "
                f"images, {why}; {advice}"
            )


def _outputs(graph: ScoringGraph, images: NDArray[np.uint8], batch: int = 16) -> dict[str, Tensor]:
    """All outputs for the images, by name, in the modes that the graph's modules are in."""
    parts = []
    for rows in np.array_split(np.arange(len(images)), max(1, len(images) // batch)):
        with torch.no_grad():
            parts.append(graph.outputs(torch.from_numpy(images[rows])))
    return {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}
