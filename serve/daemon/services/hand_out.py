"""Hand images out to label: no image to two labelers at once, none that is labeled or skipped."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.name_matching import match_exclusion
from lloss.serve.daemon.services.pool_registry import PoolRegistry
from lloss.serve.daemon.services.score_summary import score_summary
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.image_table import TakenError
from lloss.serve.daemon.store.records import StoredReply

from lloss.errors import SelectionError, SettingsError
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection, SelectionSettings, select
from lloss.selection.selection import COMPARED_MOST
from lloss.selection.strategies import get_strategy
from lloss.selection.ties import tie_note
from lloss.text.clean_names import is_text

_AT_ONCE = 16
"""Selections that run at once, each of another pool."""

_ATTEMPTS = 5
"""Selections that are repeated because an image was labeled or skipped during one."""


@dataclass(frozen=True)
class Ranked:
    """A selected image: its rank from 1, and why it was chosen."""

    id: str
    score: float
    rank: int
    reason: str = ""


@dataclass(frozen=True)
class HandedOut:
    """A selection that was handed out, or replayed for the same idempotency key.

    Attributes:
        expires: when images that are still pending become free again, Unix seconds.
        eligible: images to choose from.
        unknown: names to exclude that match no scored image.
        by_name: names to exclude that match one but are not its id.
        labeled: images that are taken, or excluded, and that the choice took into account.
    """

    id: str
    pool: str
    model_sha256: str
    images: Sequence[Ranked]
    expires: float
    eligible: int
    replayed: bool = False
    unknown: int = 0
    by_name: int = 0
    notes: Sequence[str] = ()
    labeled: int = 0

    def to_bytes(self) -> bytes:
        """Compressed JSON, for :meth:`replay`."""
        images = [(image.id, image.score, image.reason) for image in self.images]
        fields = {**vars(self), "images": images}
        return zlib.compress(json.dumps(fields).encode(), 1)

    @classmethod
    def replay(cls, content: bytes) -> HandedOut:
        """From :meth:`to_bytes`."""
        fields = json.loads(zlib.decompress(content))
        return cls(**{**fields, "images": _ranked(fields["images"]), "replayed": True})


class Selections:
    """Hands out the K images of a pool that are best to label next.

    A selection takes memory and cores: one of a pool runs at a time, and few of all pools. One that
    waits for another of its pool holds no thread, nor one of the places that other pools need.
    """

    def __init__(
        self, settings: ServeSettings, catalog: Catalog, pools: PoolRegistry, metrics: DaemonMetrics
    ) -> None:
        self._settings, self._catalog, self._pools = settings, catalog, pools
        self._metrics, self._images = metrics, catalog.images
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        # Images that were handed out by a clock in the future count as handed out now.
        self._images.limit_expiry(time.time() + settings.pending_seconds)

    async def select(
        self,
        pool: str,
        settings: SelectionSettings,
        exclude: Sequence[str] = (),
        key: str = "",
        check: Callable[[HandedOut], object] | None = None,
    ) -> HandedOut:
        """Run :meth:`hand_out` in a thread, as soon as no other selection of the pool runs."""
        async with self._locks.setdefault(pool, asyncio.Lock()):
            return await anyio.to_thread.run_sync(
                self.hand_out, pool, settings, exclude, key, check, limiter=self._limiter
            )

    def hand_out(
        self,
        pool: str,
        settings: SelectionSettings,
        exclude: Sequence[str] = (),
        key: str = "",
        check: Callable[[HandedOut], object] | None = None,
    ) -> HandedOut:
        """Select K images of a scored pool, but none of these ids or names, and set them pending.

        ``check`` raises for a selection that is not to be handed out. For a week the same
        idempotency ``key`` gives the same reply. Raises, besides RequestError, SettingsError
        for a selection that costs too much, and SelectionError if too few are left.
        """
        compares = settings.strategy and get_strategy(settings.strategy).vectors
        if (compares or settings.min_distance) and settings.k > COMPARED_MOST:
            which = "min_distance" if settings.min_distance else f"strategy {settings.strategy}"
            raise SettingsError(
                f"k = {settings.k}: {which} hands out at most {COMPARED_MOST:,} at a time, since "
                "other requests wait; ask for fewer, or with strategy top"
            )
        if not all(map(is_text, exclude)):
            raise RequestError(422, "exclude: an id has an unpaired surrogate")
        self._catalog.pools.row(pool)
        fingerprint = _fingerprint(settings, exclude)
        if key and (reply := self._images.reply(pool, key)):
            if reply.request != fingerprint:
                raise RequestError(
                    422, f"the Idempotency-Key {key!r} was used for another request; take a new one"
                )
            return HandedOut.replay(reply.content)
        for _ in range(_ATTEMPTS):
            handed = self._selected(pool, settings, exclude)
            if check is not None:
                check(handed)
            reply = StoredReply(fingerprint, handed.to_bytes()) if key else None
            pairs = [(image.id, image.score) for image in handed.images]
            try:
                self._images.hand_out(pool, handed.id, pairs, handed.expires, key, reply)
            except TakenError:
                continue
            self._metrics.selected(len(handed.images))
            return handed
        raise RequestError(503, f"the pool {pool!r} changes too fast to choose from; try again", 1)

    def preview(self, pool: str, k: int) -> list[Ranked]:
        """The K images that are next, as ``select`` chooses, or fewer; cheap if repeated."""
        with self._pools.reading(pool) as (_, folder):
            return _ranked(score_summary(folder).next_free(self._images, pool, k))

    def _selected(
        self, pool: str, settings: SelectionSettings, exclude: Sequence[str]
    ) -> HandedOut:
        with self._pools.reading(pool) as (scores, folder):
            exclusion = match_exclusion(folder, exclude)
            taken = self._images.taken(pool).union(exclusion.ids)
            chosen = _select(folder, settings, taken)
            tied = tie_note(folder, chosen).removeprefix("warning: ")
        return HandedOut(
            secrets.token_hex(8),
            pool,
            scores.model_sha256,
            _ranked(zip(chosen.ids, chosen.scores.tolist(), chosen.reasons)),
            time.time() + self._settings.pending_seconds,
            chosen.eligible,
            unknown=exclusion.unknown,
            by_name=exclusion.by_name,
            notes=[
                *chosen.unusable(),
                *chosen.remarks(),
                *filter(None, [settings.assumption(chosen), tied, chosen.collapse()]),
            ],
            labeled=chosen.labeled,
        )


def _fingerprint(settings: SelectionSettings, exclude: Sequence[str]) -> str:
    """Equal for equal requests, whatever the order of ``exclude``."""
    fields = {**vars(settings), "subset": float(settings.subset), "exclude": sorted(set(exclude))}
    for added in (
        "min_distance",
        "balance",
        "class_weight",
    ):  # requests from before these were fields stay equal
        if not fields[added]:
            del fields[added]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _select(folder: ScoresFolder, settings: SelectionSettings, exclude: set[str]) -> Selection:
    try:
        return select(folder, settings, exclude)
    except SelectionError as error:  # the same remedies, as parameters of a request
        message = str(error).replace("pass --at-most", "ask with at_most").replace("-k", "k")
        message = message.replace("choose --strategy", "ask with strategy")
        raise SelectionError(message) from error


def _ranked(images: Iterable[Sequence[Any]]) -> list[Ranked]:
    """Number images, each an id, a score and, since it is given, a reason."""
    return [Ranked(id, score, rank, *why) for rank, (id, score, *why) in enumerate(images, 1)]
