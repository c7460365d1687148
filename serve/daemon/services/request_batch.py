"""A batch of images from several requests, as the scoring pipeline reads it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lloss.serve.daemon.services.request_queue import Answer, Part
from lloss.serve.scoring.result import Scores
from numpy.typing import NDArray

from lloss.pools import Chunk, Item


@dataclass(frozen=True)
class RequestBatch(Chunk):
    """Parts of requests; ids are rows. Images of ``shape`` are copied instead of decoded."""

    parts: Sequence[Part]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, parts: Sequence[Part], shape: tuple[int, ...]) -> RequestBatch:
        """A batch of these parts."""
        return cls(0, _Items(parts), parts, shape)

    @property
    def ids(self) -> list[str]:
        """The rows."""
        return [str(row) for row in range(len(self))]

    def read_rows(self, out: NDArray[np.uint8]) -> bool:
        """Copy pixels that have the model's size; see :meth:`lloss.pools.Chunk.read_rows`."""
        requests = (part.request.images for part in self.parts)
        if not all(isinstance(im, np.ndarray) and im.shape[1:] == self.shape for im in requests):
            return False
        for part in self.parts:
            out[part.row : part.row + part.count] = part.images
        return True


class _Items(Sequence[Item]):
    """The images of parts, created lazily."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._rows = [part.row for part in parts]

    def __len__(self) -> int:
        return self._parts[-1].row + self._parts[-1].count

    def __getitem__(self, row: Any) -> Any:
        part = self._parts[bisect_right(self._rows, row) - 1]
        request, number = part.request, part.start + row - part.row
        return Item(str(row), lambda: request.image(number))


def batch_answer(scores: Scores) -> Answer:
    """The outputs of a batch with a row for every image, NaN if it could not be read."""
    if not scores.skipped:
        return Answer(scores.columns, {})
    good = [int(id) for id in scores.ids]
    columns = {}
    for name, values in scores.columns.items():
        columns[name] = np.full((scores.seen, *values.shape[1:]), np.nan, np.float32)
        columns[name][good] = values
    return Answer(columns, {int(id): reason for id, reason in scores.skipped})
