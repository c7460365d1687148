"""Pools in the catalog, their newest scores, and scores folders to remove."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.records import PoolRow, PoolScores

from lloss.pools.uri import without_secrets

T = TypeVar("T")


class PoolTable:
    """The table of pools. Folders inside ``data_dir``, which can be moved, are stored relative."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._db, self._data_dir = database, data_dir

    def rows(self) -> list[PoolRow]:
        """All pools, by name."""
        with self._db.reading() as db:
            return [self._record(row) for row in db.execute("SELECT * FROM pools ORDER BY name")]

    def row(self, name: str) -> PoolRow:
        """One pool. Raises RequestError: 404."""
        with self._db.reading() as db:
            return self._record(_pool(db, name))

    def each(self, view: Callable[[PoolRow], T]) -> list[T]:
        """``view`` of each pool, by name, without pools that it finds removed (404)."""
        views = []
        for row in self.rows():
            try:
                views.append(view(row))
            except RequestError as error:
                if error.status != 404:
                    raise
        return views

    @staticmethod
    def number(db: sqlite3.Connection, name: str) -> int:
        """The key of a pool, in a transaction; it is never used twice. RequestError 404."""
        number: int = _pool(db, name)["number"]
        return number

    def put(self, name: str, uri: str, scores: PoolScores | None = None) -> PoolRow:
        """Add or get a pool, with its newest scores. RequestError 409: the URI differs."""
        with self._db.writing() as db:
            db.execute(
                "INSERT INTO pools (name, uri, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [name, uri, time.time()],
            )
            row = _pool(db, name)
            if row["uri"] != uri:
                other = without_secrets(row["uri"])
                raise RequestError(
                    409, f"the pool {name!r} is {other}; choose another name, or delete it"
                )
            if scores is not None:
                self.set_scores(db, row["number"], scores)
            return self._record(_pool(db, name))

    def remove(self, name: str) -> None:
        """Forget a pool; its folders become trash. RequestError 404, or 409 with an active job."""
        with self._db.writing() as db:
            number = self.number(db, name)
            job = db.execute(
                "SELECT id FROM jobs WHERE pool = ? AND state IN ('queued', 'running')", [number]
            ).fetchone()
            if job is not None:
                raise RequestError(
                    409, f"job {job[0]} scores it; cancel that first: DELETE /v1/jobs/{job[0]}"
                )
            self.add_trash(db, "SELECT folder FROM jobs WHERE pool = ?", number)
            db.execute("DELETE FROM pools WHERE number = ?", [number])

    def set_scores(self, db: sqlite3.Connection, number: int, scores: PoolScores) -> None:
        """Make these the newest, in a transaction; a job's earlier scores become trash."""
        folder = self._stored(scores.folder)
        db.execute(
            "INSERT OR IGNORE INTO trash SELECT folder FROM jobs JOIN pools "
            "ON pools.scores = jobs.folder WHERE pools.number = ? AND folder != ?",
            [number, folder],
        )
        db.execute(
            "UPDATE pools SET scores = ?, model_sha256 = ?, scored = ?, skipped = ? "
            "WHERE number = ?",
            [folder, scores.model_sha256, scores.scored, scores.skipped, number],
        )

    @staticmethod
    def add_trash(db: sqlite3.Connection, folders: str, parameter: int | str) -> None:
        """Note the folders of a query for removal, in a transaction."""
        db.execute(f"INSERT OR IGNORE INTO trash {folders}", [parameter])

    def trash(self) -> list[Path]:
        """Absolute scores folders that are not needed any more."""
        with self._db.reading() as db:
            return [self.absolute(row["folder"]) for row in db.execute("SELECT * FROM trash")]

    def trash_removed(self, folder: Path) -> None:
        """Note that a folder does not exist any more."""
        with self._db.writing() as db:
            db.execute("DELETE FROM trash WHERE folder = ?", [self._stored(folder)])

    def absolute(self, folder: str) -> Path:
        """A folder of the catalog, absolute."""
        return self._data_dir / folder

    def _stored(self, folder: Path) -> str:
        inside = folder.is_relative_to(self._data_dir)
        return str(folder.relative_to(self._data_dir) if inside else folder)

    def _record(self, row: sqlite3.Row) -> PoolRow:
        name, uri, created, folder, *model_and_counts = tuple(row)[1:]
        scores = PoolScores(self.absolute(folder), *model_and_counts) if folder else None
        return PoolRow(name, uri, created, scores)


def _pool(db: sqlite3.Connection, name: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM pools WHERE name = ?", [name]).fetchone()
    if row is None:
        raise RequestError(404, f"no pool {name[:100]!r}; PUT it first, or see GET /v1/pools")
    return row
