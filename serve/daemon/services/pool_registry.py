"""The daemon's pools: opened under the configured roots, with their newest scores."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.services.lazy_pool import LazyPool
from lloss.serve.daemon.services.pool_roots import PoolRoots
from lloss.serve.daemon.services.score_adoption import adopted_scores
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolRow, PoolScores

from lloss.errors import LlossError, MissingExtraError
from lloss.pools import Pool, open_pool
from lloss.scores.scores_folder import ScoresFolder

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""Names of pools, also of their folders; the API refuses others."""


class PoolRegistry:
    """Opens pools inside ``settings.pool_roots``, and nothing else.

    Links, lists and tables inside a pool that lead out of the roots are refused too, image by
    image, when they are read.
    """

    def __init__(self, settings: ServeSettings, catalog: Catalog) -> None:
        self._catalog = catalog
        self._roots = PoolRoots(settings.pool_roots)
        self._lock = threading.Lock()
        self._opened: dict[str, LazyPool] = {}
        self._readers: Counter[Path] = Counter()
        self._sweeping = threading.Lock()

    def put(self, name: str, uri: str, scores: str | None = None) -> PoolRow:
        """Name a pool, by a :data:`NAME`; repeating it has no effect.

        ``scores`` is a complete scores folder of it that ``lloss score`` made, inside a root too,
        which the daemon never removes.
        """
        pool = self._open(uri)
        adopted = None if scores is None else self._adopted(scores, pool)
        row = self._catalog.pools.put(name, uri, adopted)
        self._forget(name)
        self.sweep()
        return row

    def remove(self, name: str) -> None:
        """Forget a pool, its jobs, labels and the daemon's scores of it; not its images."""
        self._catalog.pools.remove(name)
        self._forget(name)
        self.sweep()
        folder = self._catalog.data_dir / "pools" / name
        with contextlib.suppress(OSError):  # not empty: it is read, or the name is used again
            (folder / "scores").rmdir()
            folder.rmdir()

    def get(self, name: str) -> LazyPool:
        """The pool, which is opened on first use and kept. Raises RequestError: 404."""
        uri = self._catalog.pools.row(name).uri
        with self._lock:
            opened = self._opened.get(name)
            if opened is None or opened.uri != uri:
                opened = self._opened[name] = LazyPool(uri, self._open)
            return opened

    def reopen(self, name: str) -> Pool:
        """The pool as it is now, which may have changed since it was opened."""
        self._forget(name)
        return self.get(name).open()

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[tuple[PoolScores, ScoresFolder]]:
        """The newest complete scores, which are not removed during the block.

        Raises RequestError: 404 no such pool; 409 it is not scored yet.
        """
        while True:
            scores = self._catalog.pools.row(name).scores
            if scores is None:
                raise RequestError(
                    409,
                    f"the pool {name!r} has no scores yet; POST /v1/pools/{name}/score makes them",
                )
            with self.holding(scores.folder):
                if self._catalog.pools.row(name).scores == scores:  # else they were replaced now
                    yield scores, ScoresFolder(scores.folder).opened()
                    return

    @contextlib.contextmanager
    def holding(self, folder: Path) -> Iterator[None]:
        """Protect a scores folder from :meth:`sweep`, which runs after the last reader."""
        with self._lock:
            self._readers[folder] += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers[folder] -= 1
                last = not self._readers[folder]
                if last:
                    del self._readers[folder]
            if last:
                with contextlib.suppress(LlossError):  # it is closed or full: the next one sweeps
                    self.sweep()

    def sweep(self) -> None:
        """Remove scores folders that are not needed or read any more."""
        with self._sweeping:
            for folder in self._catalog.pools.trash():
                with self._lock:
                    if folder in self._readers:
                        continue
                try:
                    with contextlib.suppress(FileNotFoundError):
                        shutil.rmtree(folder)
                except OSError as error:
                    reason = error.strerror or str(error)
                    logs.event(
                        "folder_not_removed", logging.WARNING, folder=str(folder), reason=reason
                    )
                    continue
                self._catalog.pools.trash_removed(folder)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._opened.pop(name, None)

    def _open(self, uri: str) -> Pool:
        try:
            return open_pool(self._roots.check(uri), self._roots.confinement)
        except MissingExtraError as error:
            raise RequestError(422, str(error)) from error

    def _adopted(self, scores: str, pool: Pool) -> PoolScores:
        path = self._roots.check_path(scores)
        if path.is_relative_to(self._catalog.data_dir):
            raise RequestError(
                422, f"{scores}: is in the daemon's data dir; give a folder of your own"
            )
        return adopted_scores(path, pool, self._roots.confinement)
