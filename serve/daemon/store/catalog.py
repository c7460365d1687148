"""Pools, jobs, labels, pending images and selections, in SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.image_table import ImageTable
from lloss.serve.daemon.store.job_table import JobTable
from lloss.serve.daemon.store.lookup import pool_row
from lloss.serve.daemon.store.records import Counts, JobRow, JobState, Pending, PoolRow, PoolScores

from lloss.errors import SettingsError
from lloss.files import explained, locked
from lloss.pools.uri import without_secrets

__all__ = ["Catalog", "Counts", "JobRow", "JobState", "Pending", "PoolRow", "PoolScores"]

T = TypeVar("T")


class Catalog:
    """What the daemon must not forget, in ``data_dir/catalog.sqlite`` (WAL).

    Whatever a method wrote when it returns survives the loss of power. Any thread may call any
    method; writers wait for each other. Besides what they raise by themselves, all of them raise
    :class:`RequestError` 507 where the disk does not take what they write, and 503 after
    :meth:`close`.

    Attributes:
        job_table: jobs, to write.
        images: what is known of the images of pools.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open or make it.

        Raises:
            SettingsError: it is damaged, of a later version, or another daemon holds ``data_dir``.
        """
        self.data_dir = data_dir.expanduser().resolve()
        with contextlib.ExitStack() as held:
            self._hold(held)
            self._db = Database(self.data_dir / "catalog.sqlite")
            self._held = held.pop_all()
        self.job_table = JobTable(self._db, self.data_dir)
        self.images = ImageTable(self._db)

    def _hold(self, held: contextlib.ExitStack) -> None:
        busy = SettingsError(
            f"{self.data_dir}: another lloss serve works in this data dir; end it, "
            "or choose another --data-dir"
        )
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(self.data_dir, busy))
        except OSError as error:
            raise SettingsError(str(explained(error, self.data_dir))) from error

    def now(self) -> float:
        """Unix seconds that never go backwards, also over restarts."""
        return self._db.now()

    @property
    def restamped(self) -> int:
        """Pending images that were handed out in the future; see :class:`.database.Clock`."""
        return self._db.restamped

    def problem(self) -> str:
        """Why it cannot be written just now; "" when it can."""
        return self._db.problem()

    def reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """One state of all tables; see :meth:`.database.Database.reading`."""
        return self._db.reading()

    def pools(self) -> list[PoolRow]:
        """All, by name."""
        with self._db.reading() as db:
            return [self._pool(row) for row in db.execute("SELECT * FROM pools ORDER BY name")]

    def each(self, view: Callable[[PoolRow], T], page: slice = slice(None)) -> list[T]:
        """What is made of each pool, by name, without those that are removed meanwhile.

        Args:
            view: raises 404 where it finds that the pool is gone.
            page: which of them.
        """
        found = []
        for row in self.pools()[page]:
            try:
                found.append(view(row))
            except RequestError as error:
                if error.status != 404:
                    raise
        return found

    def pool(self, name: str) -> PoolRow:
        """One.

        Raises:
            RequestError: 404.
        """
        with self._db.reading() as db:
            return self._pool(pool_row(db, name))

    def put_pool(self, name: str, uri: str, scored: PoolScores | None = None) -> PoolRow:
        """Add a pool, or have one of this very uri; with scores, make those its newest.

        Raises:
            RequestError: 409 there is one of this name and another uri.
        """
        with self._db.writing() as db:
            db.execute(
                "INSERT INTO pools (name, uri, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [name, uri, self.now()],
            )
            row = pool_row(db, name)
            if row["uri"] != uri:
                held = without_secrets(row["uri"])
                raise RequestError(
                    409, f"the pool {name!r} is {held}; choose another name, or delete it"
                )
            if scored is not None:
                self.job_table.point(db, row["number"], scored)
            return self._pool(pool_row(db, name))

    def remove_pool(self, name: str) -> None:
        """Forget a pool with its jobs, labels and scores; their folders become :meth:`trash`.

        Raises:
            RequestError: 404, or 409 a job of it is under way.
        """
        with self._db.writing() as db:
            number = pool_row(db, name)["number"]
            self.job_table.check_idle(db, number)
            db.execute(
                "INSERT OR IGNORE INTO trash SELECT folder FROM jobs WHERE pool = ?", [number]
            )
            db.execute("DELETE FROM pools WHERE number = ?", [number])
            # Known by the name, which another pool may have next.
            db.execute("DELETE FROM annotations WHERE pool = ?", [name])
        self.images.forget(number)

    def jobs(self, pool: str | None = None) -> list[JobRow]:
        """All, or those of a pool; the newest first."""
        if pool is not None:
            self.pool(pool)
        return self.job_table.rows(pool)

    def job(self, id: str) -> JobRow:
        """One.

        Raises:
            RequestError: 404.
        """
        return self.job_table.row(id)

    def counts(self, pool: str) -> Counts:
        """What is known of a pool's images."""
        return self.images.counts(pool)

    def trash(self) -> list[Path]:
        """Folders of scores that nobody needs any more, absolute."""
        with self._db.reading() as db:
            return [self.data_dir / row["folder"] for row in db.execute("SELECT * FROM trash")]

    def removed(self, folder: Path) -> None:
        """Take a folder off the :meth:`trash`: it is gone."""
        with self._db.writing() as db:
            db.execute("DELETE FROM trash WHERE folder = ?", [self.job_table.stored(folder)])

    def close(self) -> None:
        """Close it, and let go of the data dir."""
        self._db.close()
        self._held.close()

    def _pool(self, row: sqlite3.Row) -> PoolRow:
        return PoolRow(
            name=row["name"],
            uri=row["uri"],
            created=row["created"],
            scores=None if row["scores"] is None else self.data_dir / row["scores"],
            model_sha256=row["model_sha256"],
            scored=row["scored"],
            skipped=row["skipped"],
        )
