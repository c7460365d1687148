"""Requests of few images become batches of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lloss.images import Raw

from ..scorer import Scorer
from .metrics import DaemonMetrics
from .settings import Limits


@dataclass(frozen=True)
class Answer:
    """What became of a request's N images.

    Attributes:
        columns: the artifact's outputs by name, float32 [N, ...]; NaN in rows of ``errors``.
        errors: why an image could not be used, by its row.
    """

    columns: Mapping[str, NDArray[np.float32]]
    errors: Mapping[int, str]


class Batcher:
    """A bounded queue before a scorer."""

    def __init__(self, scorer: Scorer, limits: Limits, metrics: DaemonMetrics) -> None:
        raise NotImplementedError

    async def score(self, images: NDArray[np.uint8] | Sequence[Raw], seconds: float) -> Answer:
        """Score the images of one request.

        Args:
            images: uint8 [N, H, W, 3] of any H and W, or N encoded images or arrays.
            seconds: within which the answer must be there.

        Raises:
            RequestError: 429 the queue is full; 504 it took longer than ``seconds``.
            EngineError: the engine failed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Refuse new requests, finish what is queued, and return when it is done."""
        raise NotImplementedError
