"""The scores of some images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lloss.manifest import Manifest
from lloss.scores.scores_folder import scores_table


@dataclass(frozen=True)
class Scores:
    """Scores of some images.

    Attributes:
        ids: of the N images that could be read, in the pool's order.
        columns: the model's outputs by name, each float32 [N, ...].
        skipped: ids and reasons of the images that could not be read.
        start: position in the pool of the first image, scored or skipped.
    """

    ids: Sequence[str]
    columns: Mapping[str, NDArray[np.float32]]
    skipped: Sequence[tuple[str, str]] = field(default=())
    start: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def loss(self) -> NDArray[np.float32]:
        """Predicted loss, float32 [N], in the unit that the model's manifest says."""
        return self.columns["loss"]

    @property
    def seen(self) -> int:
        """Number of images, scored or skipped."""
        return len(self.ids) + len(self.skipped)

    def table(self) -> pa.Table:
        """A table with one row per image: ``id`` and the outputs."""
        return scores_table(self.ids, self.columns)


def concatenate(parts: Sequence[Scores], manifest: Manifest) -> Scores:
    """Concatenate the scores of several batches, in their order."""
    if len(parts) == 1:
        return parts[0]
    return Scores(
        [id for part in parts for id in part.ids],
        {
            name: np.concatenate([empty, *(part.columns[name] for part in parts)])
            for name, empty in no_columns(manifest).items()
        },
        [row for part in parts for row in part.skipped],
        parts[0].start if parts else 0,
    )


def no_columns(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """The outputs of zero images."""
    return {name: np.empty((0, *shape), np.float32) for name, shape in manifest.outputs.items()}
