"""What is known of images from their pool's scores."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.scores_cache import ScoresCache
from numpy.typing import NDArray

from lloss.manifest import class_name
from lloss.scores.scores_folder import ScoresFolder


@dataclass(frozen=True)
class Known:
    """An image of a pool that was scored.

    Attributes:
        loss: predicted.
        score: 1 - the loss's percentile rank in the pool (ties share their mean), in (0, 1): the
            image that is best to label next has the lowest.
        guess: the class that the model predicts; "" where there is none or it is not known.
        version: of the model whose scores these are, see :func:`version_of`.
    """

    loss: float
    score: float
    guess: str
    version: str


def version_of(sha256: str) -> str:
    """A model's name in Label Studio."""
    return sha256[:12]


def known(daemon: Daemon, pool: str, ids: Collection[str]) -> dict[str, Known]:
    """Look images up in the newest scores of their pool; reads the columns of the whole pool.

    Args:
        daemon: that has the pool.
        pool: its name.
        ids: of images; those without a score are left out, as are all of a pool that there is
            not, or that was not scored yet.

    Raises:
        ScoresError: the scores are damaged.
    """
    try:
        with daemon.pools.reading(pool) as (row, folder):
            return _read(daemon, folder, row.model_sha256 or "", ids)
    except RequestError as error:
        if error.status in (404, 409):
            return {}
        raise


def _read(
    daemon: Daemon, folder: ScoresFolder, sha256: str, ids: Collection[str]
) -> dict[str, Known]:
    classes = _classes(daemon, sha256)
    losses = _losses_of.get(folder)
    wanted = pa.array(list(ids), pa.string())
    found = {}
    for batch in folder.scan(["id", "loss", *(["prediction"] if classes else [])]):
        rows = batch.filter(pc.is_in(batch["id"], value_set=wanted))
        guesses = rows["prediction"].to_pylist() if classes else [None] * len(rows)
        for id, loss, guess in zip(rows["id"].to_pylist(), rows["loss"].to_pylist(), guesses):
            if loss is not None and np.isfinite(loss):
                name = class_name(classes, guess)
                found[id] = Known(loss, _score(losses, loss), name, version_of(sha256))
    return found


def _classes(daemon: Daemon, sha256: str) -> tuple[str, ...]:
    """Of the model that made the scores, where that is the one that serves."""
    if not sha256 or sha256 != daemon.models.sha256:
        return ()
    manifest = daemon.models.manifest
    named = manifest.task == "classification" and "prediction" in manifest.outputs
    return manifest.classes if named else ()


def _score(losses: NDArray[np.float32], loss: float) -> float:
    value = np.float32(loss)
    left, right = (losses.searchsorted(value, side) for side in ("left", "right"))
    return float((len(losses) - left) + (len(losses) - right)) / (2 * len(losses))


def _sorted_losses(folder: ScoresFolder) -> NDArray[np.float32]:
    losses = folder.column("loss")
    losses = losses[np.isfinite(losses)]
    losses.sort()
    return losses


_losses_of = ScoresCache(_sorted_losses, 2)
"""Sorted losses of the last two pools, 4 bytes an image."""
