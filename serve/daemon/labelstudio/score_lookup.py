"""Look images up in the scores of their pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.score_summary import score_summary
from numpy.typing import NDArray

from lloss.manifest import class_name


@dataclass(frozen=True)
class ImageScore:
    """The score of an image.

    Attributes:
        loss: predicted.
        score: in (0, 1), lowest for the image that is best to label next: 1 - percentile rank of
            the loss in its pool (ties share their mean).
        guess: the predicted class; "" when unknown.
        version: see :func:`version_of`.
    """

    loss: float
    score: float
    guess: str
    version: str

    def prediction(self, result: list[dict[str, object]] | None = None) -> dict[str, Any]:
        """As Label Studio stores it."""
        return {"model_version": self.version, "score": self.score, "result": result or []}


def version_of(sha256: str) -> str:
    """Name a model in Label Studio."""
    return sha256[:12]


def pool_scores(daemon: Daemon, pool: str, ids: Sequence[str]) -> dict[str, ImageScore]:
    """The scores of images, without those that have none (or whose pool is not scored or unknown).

    Reads columns of the whole pool.

    Raises:
        ScoresError: the scores are damaged.
    """
    try:
        with daemon.pools.reading(pool) as (scores, folder):
            sha256, summary = scores.model_sha256, score_summary(folder)
            losses, images = summary.sorted_losses, summary.images(ids)
    except RequestError as error:
        if error.status in (404, 409):
            return {}
        raise
    serving = sha256 == daemon.models.sha256 != ""
    classes = daemon.models.current.manifest.classes if serving and daemon.classes.required else ()
    return {
        id: ImageScore(
            one.loss,
            _inverse_rank(losses, one.loss),
            class_name(classes, one.prediction),
            version_of(sha256),
        )
        for id, one in images.items()
        if np.isfinite(one.loss)
    }


def _inverse_rank(losses: NDArray[np.float32], loss: float) -> float:
    value = np.float32(loss)
    left, right = (losses.searchsorted(value, side) for side in ("left", "right"))
    return float((len(losses) - left) + (len(losses) - right)) / (2 * len(losses))
