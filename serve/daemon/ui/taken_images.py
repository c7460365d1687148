"""Batches: the images that a browser took to label, and the marks of images on pages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.hand_out import HandedOut, SelectionRequest
from lloss.serve.daemon.store.image_table import TakenError
from lloss.serve.daemon.store.records import ImageState

from lloss.selection import SelectionSettings


@dataclass(frozen=True, slots=True)
class Mark:
    """The state of an image for those who look at it; ``taken`` by another batch than theirs."""

    state: ImageState | Literal["taken"] = "free"
    label: str = ""  # of a labeled image
    selection: str = ""  # of a pending image


@dataclass(frozen=True, slots=True)
class Batch:
    """The request of a batch, which finds its images again: how many, and the idempotency key."""

    k: int
    key: str

    def __str__(self) -> str:
        return f"{self.k}.{self.key}"

    @classmethod
    def parse(cls, name: str) -> Batch | None:
        """The reverse of ``str``; None for another text."""
        k, _, key = name.partition(".")
        small = k.isascii() and k.isdecimal() and len(k) < 5
        return cls(int(k), key) if small and key and len(key) <= 100 else None

    @property
    def request(self) -> SelectionRequest:
        """What the browser asked for."""
        return SelectionRequest(SelectionSettings(k=self.k, at_most=True))


class Batches:
    """The batches of a daemon's pools; methods raise :class:`RequestError` 404 for unknown ones."""

    def __init__(self, daemon: Daemon) -> None:
        self._images, self._selections = daemon.catalog.images, daemon.selections

    def marks(self, pool: str, ids: Sequence[str], own: str = "") -> dict[str, Mark]:
        """The marks of images, for the selection ``own``; "" for anybody."""
        marks = dict.fromkeys(ids, Mark())
        for id, row in self._images.states(pool, marks).items():
            others = row.state == "pending" and own not in ("", row.selection)
            marks[id] = Mark("taken" if others else row.state, row.label, row.selection)
        return marks

    def find(self, pool: str, name: str) -> HandedOut:
        """The images of the batch with this name (``str`` of a :class:`Batch`)."""
        batch = Batch.parse(name)
        handed = self._selections.replayed(pool, batch.request, batch.key) if batch else None
        if handed is None:
            raise RequestError(404, "this pool does not have this batch any more; take another")
        return handed

    def pending(self, pool: str, name: str) -> tuple[str, list[str]]:
        """The selection of a batch, and the ids that are still pending by it."""
        handed = self.find(pool, name)
        marks = self.marks(pool, [image.id for image in handed.images], handed.id)
        return handed.id, [id for id, mark in marks.items() if mark.state == "pending"]

    def hold(self, pool: str, name: str, id: str) -> None:
        """Set an image of a batch pending again, if it is free and the batch has not expired."""
        batch = self.find(pool, name)
        image = next((image for image in batch.images if image.id == id), None)
        if image is None or batch.expires <= time.time():
            return
        try:
            self._images.hand_out(
                pool, batch.id, [(id, image.score)], batch.expires, rank=image.rank
            )
        except TakenError:
            return  # another request was faster
