"""What is known of images one by one, by those who look at a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.selections import HandedOut, SelectionRequest, Selections
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.image_table import TakenError
from lloss.serve.daemon.store.records import ImageState

from lloss.selection import SelectionSettings

State = ImageState | Literal["taken"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of an image.

    Attributes:
        state: whether it is free to be handed out, handed out, labeled, or not to be handed out;
            ``taken`` where it was handed out to others than those who ask.
        label: that it was given; "" where that is kept elsewhere.
        selection: that handed it out, where it is pending.
    """

    state: State = "free"
    label: str = ""
    selection: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """The name of what a browser took: enough to be told again which images these were.

    Attributes:
        k: how many were asked for.
        key: of the request.
    """

    k: int
    key: str

    def __str__(self) -> str:
        return f"{self.k}.{self.key}"

    @classmethod
    def parse(cls, name: str) -> Batch | None:
        """The reverse of ``str``; None for what is no such name."""
        k, _, key = name.partition(".")
        small = k.isascii() and k.isdecimal() and len(k) < 5
        return cls(int(k), key) if small and key and len(key) <= 100 else None

    @property
    def request(self) -> SelectionRequest:
        """What was asked for."""
        return SelectionRequest(SelectionSettings(k=self.k, at_most=True))


class Held:
    """Reads what is known; see :mod:`..catalog.imagestates` for how it comes to be."""

    def __init__(self, catalog: Catalog, selections: Selections) -> None:
        self.catalog, self.selections = catalog, selections

    def marks(self, pool: str, ids: Sequence[str], own: str = "") -> dict[str, Mark]:
        """What is known of these images, for each of them.

        Args:
            pool: its name.
            ids: of the images.
            own: the selection of those who ask; "" for anybody.

        Raises:
            RequestError: 404 no such pool.
        """
        found = dict.fromkeys(ids, Mark())
        for id, row in self.catalog.images.states(pool, found).items():
            others = row.state == "pending" and own not in ("", row.selection)
            found[id] = Mark("taken" if others else row.state, row.label, row.selection)
        return found

    def batch(self, pool: str, name: str) -> HandedOut:
        """What was handed out to the request that a :class:`Batch` names.

        Raises:
            RequestError: 404 there is none such, or it is forgotten.
        """
        batch = Batch.parse(name)
        handed = self.selections.replayed(pool, batch.request, batch.key) if batch else None
        if handed is None:
            raise RequestError(404, "there is no such batch of this pool (any more); take another")
        return handed

    def hold_again(self, pool: str, name: str, id: str) -> None:
        """Make an image of a batch pending again until the batch ends, if it is still free."""
        batch = self.batch(pool, name)
        found = next((image for image in batch.images if image.id == id), None)
        if found is None or batch.expires <= self.catalog.now():
            return
        given = [(id, found.score)]
        try:
            self.catalog.images.hand_out(pool, batch.id, given, batch.expires, rank=found.rank)
        except TakenError:
            return  # somebody else was quicker
