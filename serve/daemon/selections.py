"""Which K are next, and who has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .catalog import Catalog
from .pools import Pools
from .settings import ServeSettings


@dataclass(frozen=True)
class Ranked:
    """An image that was chosen; rank from 1."""

    id: str
    score: float
    rank: int


@dataclass(frozen=True)
class Wish:
    """As :class:`lloss.selection.SelectionSettings`, and ids to leave out."""

    k: int
    strategy: str = "top"
    by: str = "loss"
    subset: float = 0
    seed: int = 0
    at_most: bool = False
    exclude: Sequence[str] = ()


@dataclass(frozen=True)
class HandedOut:
    """A selection that was made and is remembered.

    Attributes:
        id: of the selection.
        pool: its name.
        model_sha256: of the model whose scores decided.
        images: best first.
        expires: when those of them that are still pending become free again, Unix seconds.
        eligible: images the choice was made from.
        replayed: whether an earlier request with the same key had made it.
    """

    id: str
    pool: str
    model_sha256: str
    images: Sequence[Ranked]
    expires: float
    eligible: int
    replayed: bool = False


class Selections:
    """Hands out images to label: no image twice at a time, none that is labeled or skipped."""

    def __init__(self, settings: ServeSettings, catalog: Catalog, pools: Pools) -> None:
        raise NotImplementedError

    def select(self, pool: str, wish: Wish, key: str = "") -> HandedOut:
        """Choose K images and note them as pending.

        Args:
            pool: its name; it must have scores.
            wish: what is asked for.
            key: of the caller (``Idempotency-Key``): the same key gives the same answer again.

        Raises:
            RequestError: 404, 409; 422 the key was used for another wish.
            SelectionError: fewer than K are left.
        """
        raise NotImplementedError

    def preview(self, pool: str, k: int) -> list[Ranked]:
        """The best K that ``select`` would give now (or fewer), without handing them out."""
        raise NotImplementedError

    def label(self, pool: str, labels: Mapping[str, str]) -> int:
        """Mark images labeled; "" where the label itself is kept elsewhere. Returns how many.

        Raises:
            RequestError: 422 an id is not in the pool; then none is marked.
        """
        raise NotImplementedError

    def unlabel(self, pool: str, ids: Sequence[str]) -> int:
        """Take labels back, such as when an annotation was deleted."""
        raise NotImplementedError

    def skip(self, pool: str, ids: Sequence[str]) -> int:
        """Never hand these out."""
        raise NotImplementedError

    def give_back(self, pool: str, ids: Sequence[str]) -> int:
        """Free pending (or skipped) images for the next who asks."""
        raise NotImplementedError

    def labels(self, pool: str) -> dict[str, str]:
        """All labels of a pool by id."""
        raise NotImplementedError
