"""Pools under the configured roots, and their scores."""

from __future__ import annotations

from collections.abc import Iterable

from lloss.pools import Item, Pool
from lloss.scores import ScoresFolder

from .catalog import Catalog, PoolRow
from .settings import ServeSettings


class Pools:
    """Opens pools that lie under ``settings.pool_roots``, and nothing else."""

    def __init__(self, settings: ServeSettings, catalog: Catalog) -> None:
        raise NotImplementedError

    def put(self, name: str, uri: str, scores: str | None = None) -> PoolRow:
        """Name a pool.

        Args:
            name: for the pool.
            uri: of it; the same as before does nothing.
            scores: a complete scores folder of it that ``lloss score`` made, under a root as well.

        Raises:
            RequestError: 403 outside the roots, 409 another pool has the name, 422 a bad name.
            PoolError: it cannot be opened.
        """
        raise NotImplementedError

    def remove(self, name: str) -> None:
        """Forget a pool, its jobs, labels and scores (of this daemon); not its images."""
        raise NotImplementedError

    def open(self, name: str) -> Pool:
        """The pool; opened once and kept."""
        raise NotImplementedError

    def items(self, name: str, ids: Iterable[str]) -> dict[str, Item]:
        """The images of these ids, those that the pool has; kept for the next who asks."""
        raise NotImplementedError

    def scores(self, name: str) -> ScoresFolder:
        """Its newest complete scores.

        Raises:
            RequestError: 404 no such pool, 409 it was not scored yet.
        """
        raise NotImplementedError
