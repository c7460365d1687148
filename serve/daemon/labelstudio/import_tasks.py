"""Selections as tasks that Label Studio imports."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import Request
from lloss.serve.daemon.deps import Daemon, base_url_of
from lloss.serve.daemon.labelstudio.score_lookup import Known, known
from lloss.serve.daemon.services.selections import HandedOut


def tasks_of(daemon: Daemon, handed_out: HandedOut, request: Request) -> list[dict[str, Any]]:
    """The images of a selection, best first, as tasks.

    Their data name the image by URL (of ``settings.image_url``, else a signed one of this very
    daemon, as ``settings.public_url`` or the request names it), pool, id, rank, and predicted loss.
    Each has a prediction that uncertainty sampling orders by.

    Raises:
        ScoresError: the pool's scores are damaged.
    """
    pool = handed_out.pool
    scores = known(daemon, pool, [image.id for image in handed_out.images])
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
            task["predictions"] = [prediction(scores[image.id])]
        tasks.append(task)
    return tasks


def prediction(scored: Known, result: list[dict[str, object]] | None = None) -> dict[str, Any]:
    """What Label Studio keeps of an image's score."""
    return {"model_version": scored.version, "score": scored.score, "result": result or []}


def _url(daemon: Daemon, pool: str, id: str, request: Request) -> str:
    pattern = daemon.settings.image_url
    if pattern:
        named = pattern.replace("{pool}", _quoted(pool))
        return named.replace("{id}", _quoted(id))
    query = daemon.access.signed_query(pool, id)
    return f"{base_url_of(daemon, request)}/v1/pools/{_quoted(pool)}/images?{query}"


def _quoted(text: str) -> str:
    return quote(text, safe="")
