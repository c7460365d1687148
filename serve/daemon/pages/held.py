"""What is known of images one by one: the pages' own questions to the catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..catalog.catalog import Catalog
from ..catalog.imagestates import TakenError
from ..catalog.lookup import encodable, pool_row
from ..failures import RequestError
from ..pools.selections import HandedOut, Selections, Wish

State = Literal["free", "pending", "labeled", "skipped", "taken"]

_AT_ONCE = 500
"""Ids asked for in one statement."""

_STATE = "iif(state = 'pending' AND expires <= :now, 'free', state)"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of an image.

    Attributes:
        state: whether it is free to be handed out, handed out, labeled, or not to be handed out;
            ``taken`` where it was handed out to others than those who ask.
        label: that it was given; "" where that is kept elsewhere.
    """

    state: State = "free"
    label: str = ""


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
    def wish(self) -> Wish:
        """What was asked for."""
        return Wish(k=self.k, at_most=True)


class Held:
    """Reads what is known; see :mod:`.imagestates` for how it comes to be."""

    def __init__(self, catalog: Catalog, selections: Selections) -> None:
        self.catalog, self.selections = catalog, selections
        self._db = catalog._db

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
        wanted = list(filter(encodable, found))
        with self._db.reading() as db:
            number = pool_row(db, pool)["number"]
            for start in range(0, len(wanted), _AT_ONCE):
                some = wanted[start : start + _AT_ONCE]
                names = {f"id{row}": id for row, id in enumerate(some)}
                rows = db.execute(
                    f"SELECT id, {_STATE} AS state, label, selection FROM images "
                    f"WHERE pool = :pool AND id IN ({','.join(f':{name}' for name in names)})",
                    {"pool": number, "now": self.catalog.now(), **names},
                )
                for row in rows:
                    others = row["state"] == "pending" and own not in ("", row["selection"])
                    found[row["id"]] = Mark("taken" if others else row["state"], row["label"])
        return found

    def listed(self, pool: str, state: State, offset: int, limit: int) -> list[tuple[str, Mark]]:
        """Images of a state other than free, by id.

        Raises:
            RequestError: 404 no such pool.
        """
        with self._db.reading() as db:
            rows = db.execute(
                "SELECT id, state, label FROM images WHERE pool = :pool AND state = :state "
                f"AND {_STATE} = :state ORDER BY id LIMIT :limit OFFSET :offset",
                {
                    "pool": pool_row(db, pool)["number"],
                    "state": state,
                    "now": self.catalog.now(),
                    "limit": limit,
                    "offset": offset,
                },
            )
            return [(row["id"], Mark(row["state"], row["label"])) for row in rows]

    def batch(self, pool: str, name: str) -> HandedOut:
        """What was handed out to the request that a :class:`Batch` names.

        Raises:
            RequestError: 404 there is none such, or it is forgotten.
        """
        batch = Batch.parse(name)
        if batch is None or self.catalog.images.answer(pool, batch.key) is None:
            raise RequestError(404, "there is no such batch of this pool (any more); take another")
        return self.selections.select(pool, batch.wish, batch.key)

    def hold_again(self, pool: str, name: str, id: str) -> None:
        """Make an image of a batch pending again until the batch ends, if it is still free."""
        batch = self.batch(pool, name)
        score = next((image.score for image in batch.images if image.id == id), None)
        if score is None or batch.expires <= self.catalog.now():
            return
        try:
            self.catalog.images.hand_out(pool, batch.id, [(id, score)], batch.expires)
        except TakenError:
            return  # somebody else was quicker
