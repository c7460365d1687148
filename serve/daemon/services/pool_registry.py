"""Pools under the configured roots, and their scores."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services.item_cache import FoundItems
from lloss.serve.daemon.services.pool_roots import Roots
from lloss.serve.daemon.services.score_adoption import adopted
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog, PoolRow, PoolScores

from lloss.data.id_matching import Matches
from lloss.errors import LlossError, MissingExtraError
from lloss.pools import Item, Pool, open_pool
from lloss.pools.uri import PoolUri
from lloss.scores.scores_folder import ScoresFolder

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a pool may be called."""

_log = logging.getLogger(__name__)


class Pools:
    """Opens pools that lie under ``settings.pool_roots``, and nothing else.

    Links, lists and tables inside of a pool that lead out of the roots are refused too, image by
    image, when they are read.
    """

    def __init__(self, settings: ServeSettings, catalog: Catalog) -> None:
        self._catalog = catalog
        self._roots = Roots(settings.pool_roots)
        self._lock = threading.Lock()
        self._opened: dict[str, _Opened] = {}
        self._held: Counter[Path] = Counter()
        self._sweeping = threading.Lock()

    def put(self, name: str, uri: str, scores: str | None = None) -> PoolRow:
        """Name a pool.

        Args:
            name: for the pool.
            uri: of it; the same as before does nothing.
            scores: a complete scores folder of it that ``lloss score`` made, under a root as well.
                It stays where it is, and is never removed by the daemon.

        Raises:
            RequestError: 403 outside the roots, 409 another pool has the name, 422 a bad name, or
                scores that are not of this pool.
            PoolError: it cannot be opened.
        """
        if not re.fullmatch(NAME, name, re.ASCII):
            raise RequestError(
                422, f"the name {name[:100]!r}: up to 100 letters, digits, '.', '_' and '-', "
                "of which the first is a letter or a digit"
            )  # fmt: skip
        checked = self._roots.check(uri)
        before = next((row for row in self._catalog.pools() if row.name == name), None)
        if before is not None and (before.uri != uri or scores is None):
            return self._catalog.put_pool(name, uri)  # which says what is wrong, if anything is
        pool = self._open(checked)
        taken_over = None if scores is None else self._adopted(scores, pool)
        row = self._catalog.put_pool(name, uri, taken_over)
        self._forget(name)
        self.sweep()
        return row

    def remove(self, name: str) -> None:
        """Forget a pool, its jobs, labels and scores (of this daemon); not its images.

        Raises:
            RequestError: 404; 409 a job of it is under way.
        """
        self._catalog.remove_pool(name)
        self._forget(name)
        self.sweep()
        folder = self._catalog.data_dir / "pools" / name
        with contextlib.suppress(OSError):  # somebody reads in it, or one of that name is new
            (folder / "scores").rmdir()
            folder.rmdir()

    def open(self, name: str) -> Pool:
        """The pool; opened once and kept.

        Raises:
            RequestError: 404; 403 it lies under no root any more.
            PoolError: it cannot be opened.
        """
        return self._kept(name).found().pool

    def reopen(self, name: str) -> Pool:
        """The pool as it is now, which may have changed since it was opened; kept from now on."""
        self._forget(name)
        return self.open(name)

    def items(self, name: str, ids: Iterable[str]) -> dict[str, Item]:
        """The images of these ids, those that the pool has; kept for the next who asks.

        Ask for many at once: for some kinds of pools this is a walk over all of it.
        """
        return self._kept(name).found().items(ids)

    def kept_ids(self, name: str, ids: Iterable[str]) -> set[str]:
        """Those of these ids whose images were found lately; neither waits nor opens anything."""
        return self._kept(name).kept(ids)

    def held_ids(self, name: str, ids: Iterable[str]) -> set[str]:
        """Those of these ids that the pool has; unlike :meth:`items` it holds no image for that."""
        return self._kept(name).found().held(ids)

    def matches(self, name: str, names: Iterable[str]) -> Matches:
        """What names mean among the ids of the pool: a walk over all of it."""
        return self._kept(name).found().matches(names)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[tuple[PoolRow, ScoresFolder]]:
        """Its newest complete scores, which are not removed before the block is done.

        Raises:
            RequestError: 404 no such pool, 409 it was not scored yet.
            ScoresError: they are gone or damaged.
        """
        while True:
            path = self._scores(name)
            with self.holding(path):
                row = self._catalog.pool(name)
                if row.scores == path:  # else they were exchanged, and perhaps removed, meanwhile
                    yield row, ScoresFolder(path).opened()
                    return

    @contextlib.contextmanager
    def holding(self, folder: Path) -> Iterator[None]:
        """Keep a folder of scores from being removed; when it is left, what is not needed goes."""
        with self._lock:
            self._held[folder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[folder] -= 1
                last = not self._held[folder]
                if last:
                    del self._held[folder]
            if last:
                with contextlib.suppress(LlossError):  # closed, or a full disk: the next time then
                    self.sweep()

    def sweep(self) -> None:
        """Remove folders of scores that nobody needs or reads."""
        with self._sweeping:
            for folder in self._catalog.trash():
                with self._lock:
                    if folder in self._held:
                        continue
                try:
                    _remove(folder)
                except OSError as error:
                    _log.warning("%s: cannot be removed: %s", folder, error.strerror or error)
                    continue
                self._catalog.removed(folder)

    def _scores(self, name: str) -> Path:
        row = self._catalog.pool(name)
        if row.scores is None:
            raise RequestError(
                409, f"the pool {name!r} has no scores yet; POST /v1/pools/{name}/score makes them"
            )
        return row.scores

    def _kept(self, name: str) -> _Opened:
        uri = self._catalog.pool(name).uri
        with self._lock:
            kept = self._opened.get(name)
            if kept is None or kept.uri != uri:
                kept = self._opened[name] = _Opened(self, uri)
            return kept

    def _forget(self, name: str) -> None:
        with self._lock:
            self._opened.pop(name, None)

    def _open(self, uri: PoolUri) -> Pool:
        try:
            return open_pool(uri, self._roots.within)
        except MissingExtraError as error:
            raise RequestError(422, str(error)) from error

    def _adopted(self, scores: str, pool: Pool) -> PoolScores:
        path = self._roots.check_path(scores)
        if path.is_relative_to(self._catalog.data_dir):
            raise RequestError(422, f"{scores}: lies in the data dir; give a folder of your own")
        return adopted(path, pool, self._roots.within)


class _Opened:
    """A pool that is opened when it is first asked for, by one thread while others wait."""

    def __init__(self, pools: Pools, uri: str) -> None:
        self.uri = uri
        self._pools = pools
        self._lock = threading.Lock()
        self._found: FoundItems | None = None

    def found(self) -> FoundItems:
        """Its images."""
        with self._lock:
            if self._found is None:
                self._found = FoundItems(self._pools._open(self._pools._roots.check(self.uri)))
            return self._found

    def kept(self, ids: Iterable[str]) -> set[str]:
        """See :meth:`FoundItems.kept`; none where the pool is not opened."""
        return set() if self._found is None else self._found.kept(ids)


def _remove(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
