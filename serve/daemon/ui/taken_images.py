"""Batches, the images that a browser took to label, and the marks of images on pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.hand_out import HandedOut
from lloss.serve.daemon.store.image_table import ImageTable
from lloss.serve.daemon.store.records import ImageState


@dataclass(frozen=True, slots=True)
class Mark:
    """The state of an image for those who look at it; ``taken`` by another batch than theirs."""

    state: ImageState | Literal["taken"] = "free"
    label: str = ""  # of a labeled image
    selection: str = ""  # of a pending image


def marks(images: ImageTable, pool: str, ids: Sequence[str], own: str = "") -> dict[str, Mark]:
    """The marks of images, for the selection ``own``; "" for anybody."""
    found = dict.fromkeys(ids, Mark())
    for id, row in images.states(pool, found).items():
        others = row.state == "pending" and own not in ("", row.selection)
        found[id] = Mark("taken" if others else row.state, row.label, row.selection)
    return found


def batch(images: ImageTable, pool: str, key: str) -> HandedOut:
    """The images of a batch, by its idempotency key; RequestError 404 if it is not known."""
    reply = images.reply(pool, key)
    if reply is None:
        raise RequestError(404, "this pool does not have this batch any more; take another")
    return HandedOut.replay(reply.content)


def still_pending(images: ImageTable, pool: str, key: str) -> tuple[str, list[str]]:
    """The selection of a batch, and the ids that are still pending by it."""
    handed = batch(images, pool, key)
    found = marks(images, pool, [image.id for image in handed.images], handed.id)
    return handed.id, [id for id, mark in found.items() if mark.state == "pending"]
