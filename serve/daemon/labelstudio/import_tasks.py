"""Selections as tasks that Label Studio imports."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import Request
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.dependencies import base_url_of
from lloss.serve.daemon.services.hand_out import HandedOut
from lloss.serve.daemon.services.score_summary import score_summary
from numpy.typing import NDArray


def tasks_of(daemon: Daemon, handed_out: HandedOut, request: Request) -> list[dict[str, Any]]:
    """The images of a selection as tasks, best first.

    Their data hold the image's URL (``settings.image_url``, else a signed one of this daemon),
    pool, id, rank and predicted loss. Their prediction has no result: its score is 1 - percentile
    rank of the loss in the pool, by which uncertainty sampling orders the tasks.

    Raises:
        ScoresError: the pool's scores are damaged.
    """
    pool, ids = handed_out.pool, [image.id for image in handed_out.images]
    with daemon.pools.reading(pool) as (scores, folder):
        images, pool_losses = score_summary(folder).images(ids), folder.column("loss")
    losses = np.asarray([images[id].loss for id in ids], np.float32)
    version = scores.model_sha256[:12]
    tasks = []
    for image, loss, score in zip(handed_out.images, losses, _inverse_ranks(losses, pool_losses)):
        data: dict[str, Any] = {
            "image": _url(daemon, pool, image.id, request),
            "lloss_pool": pool,
            "lloss_id": image.id,
            "lloss_rank": image.rank,
            "lloss_selection": handed_out.id,
        }
        task: dict[str, Any] = {"data": data}
        if np.isfinite(loss):
            data["lloss_loss"] = float(loss)
            task["predictions"] = [{"model_version": version, "score": score, "result": []}]
        tasks.append(task)
    return tasks


def _inverse_ranks(losses: NDArray[np.float32], pool: NDArray[np.float32]) -> list[float]:
    """1 - percentile ranks of losses in those of their pool, where ties share their mean."""
    pool = np.sort(pool[np.isfinite(pool)])
    below = (pool.searchsorted(losses, "left") + pool.searchsorted(losses, "right")) / 2
    inverse: list[float] = (1 - below / max(len(pool), 1)).tolist()
    return inverse


def _url(daemon: Daemon, pool: str, id: str, request: Request) -> str:
    pattern = daemon.settings.image_url
    quoted_pool, quoted_id = quote(pool, safe=""), quote(id, safe="")
    if pattern:
        return pattern.replace("{pool}", quoted_pool).replace("{id}", quoted_id)
    query = daemon.authentication.links.signed_query(pool, id)
    base = base_url_of(daemon, request)
    return f"{base}/v1/pools/{quoted_pool}/images?{query}"
