"""Selections as tasks that Label Studio imports."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import Request
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.deps import base_url_of
from lloss.serve.daemon.labelstudio.score_lookup import pool_scores
from lloss.serve.daemon.services.hand_out import HandedOut


def tasks_of(daemon: Daemon, handed_out: HandedOut, request: Request) -> list[dict[str, Any]]:
    """The images of a selection as tasks, best first.

    Their data hold the image's URL (``settings.image_url``, else a signed one of this daemon),
    pool, id, rank and predicted loss. Uncertainty sampling orders them by their prediction.

    Raises:
        ScoresError: the pool's scores are damaged.
    """
    pool = handed_out.pool
    scores = pool_scores(daemon, pool, [image.id for image in handed_out.images])
    tasks = []
    for image in handed_out.images:
        data: dict[str, Any] = {
            "image": _url(daemon, pool, image.id, request),
            "lloss_pool": pool,
            "lloss_id": image.id,
            "lloss_rank": image.rank,
            "lloss_selection": handed_out.id,
        }
        task: dict[str, Any] = {"data": data}
        if image.id in scores:
            data["lloss_loss"] = scores[image.id].loss
            task["predictions"] = [scores[image.id].prediction()]
        tasks.append(task)
    return tasks


def _url(daemon: Daemon, pool: str, id: str, request: Request) -> str:
    pattern = daemon.settings.image_url
    quoted_pool, quoted_id = quote(pool, safe=""), quote(id, safe="")
    if pattern:
        return pattern.replace("{pool}", quoted_pool).replace("{id}", quoted_id)
    query = daemon.access.links.signed_query(pool, id)
    base = base_url_of(daemon, request)
    return f"{base}/v1/pools/{quoted_pool}/images?{query}"
