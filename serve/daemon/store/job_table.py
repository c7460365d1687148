"""Jobs in the catalog: each step of one is a transaction."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.lookup import JOBS, job_row, pool_row
from lloss.serve.daemon.store.records import JobRow, PoolScores

_KEPT = 100
"""Ended jobs of a pool that are remembered."""

_ACTIVE = "state IN ('queued', 'running')"


class JobTable:
    """The table of jobs.

    ::

        submitted ─▶ queued ─▶ running ─▶ done
                       ▲ │        │ ├───▶ failed
                       └─┼────────┘ │       │ submitted again, where it is resumable: queued
                 restart └─────▶ cancelled
    """

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._db, self._data_dir = database, data_dir

    def rows(self, pool: str | None = None) -> list[JobRow]:
        """All, or those of a pool; the newest first."""
        where, given = ("", []) if pool is None else ("WHERE pools.name = ?", [pool])
        with self._db.reading() as db:
            found = db.execute(f"{JOBS} {where} ORDER BY jobs.number DESC", given)
            return [self._row(row) for row in found]

    def row(self, id: str) -> JobRow:
        """One.

        Raises:
            RequestError: 404.
        """
        with self._db.reading() as db:
            return self._row(job_row(db, id))

    def active(self) -> list[JobRow]:
        """Those that wait or run, the newest first."""
        with self._db.reading() as db:
            found = db.execute(f"{JOBS} WHERE {_ACTIVE} ORDER BY jobs.number DESC")
            return [self._row(row) for row in found]

    def newest(self, pool: str) -> JobRow | None:
        """Of a pool; None where there is none, or no such pool."""
        return self._first("WHERE pools.name = ? ORDER BY jobs.number DESC", [pool])

    def next(self) -> JobRow | None:
        """The first that waits."""
        return self._first("WHERE jobs.state = 'queued' ORDER BY jobs.number")

    def _first(self, which: str, given: Sequence[str] = ()) -> JobRow | None:
        with self._db.reading() as db:
            row = db.execute(f"{JOBS} {which} LIMIT 1", given).fetchone()
            return None if row is None else self._row(row)

    def models(self) -> set[str]:
        """Of jobs that wait, run, or may be submitted again."""
        with self._db.reading() as db:
            found = db.execute(f"SELECT model_sha256 FROM jobs WHERE {_ACTIVE} OR resumable = 1")
            return {row["model_sha256"] for row in found}

    def submit(self, pool: str, model_sha256: str, batch_size: int, anew: bool = False) -> JobRow:
        """The job of a pool that is under way; else one that failed and goes on; else a new one.

        Args:
            pool: its name.
            model_sha256: of the model; a job of another one does not go on.
            batch_size: of a new job.
            anew: whether one that failed does not go on either.

        Raises:
            RequestError: 404.
        """
        with self._db.writing() as db:
            number = pool_row(db, pool)["number"]
            row = db.execute(
                f"SELECT id FROM jobs WHERE pool = ? AND ({_ACTIVE} OR (resumable = 1 AND "
                "model_sha256 = ? AND NOT ?)) ORDER BY resumable LIMIT 1",
                [number, model_sha256, anew],
            ).fetchone()
            if row is None:
                self._discard(db, number)
                id = self._add(db, pool, number, model_sha256, batch_size)
            else:
                id = row["id"]
                db.execute(
                    "UPDATE jobs SET state = 'queued', error = '', ended = NULL, resumable = 0 "
                    "WHERE id = ? AND state = 'failed'",
                    [id],
                )
            return self._row(job_row(db, id))

    def _add(
        self, db: sqlite3.Connection, pool: str, number: int, model_sha256: str, batch_size: int
    ) -> str:
        id = secrets.token_hex(8)
        db.execute(
            "INSERT INTO jobs (id, pool, state, model_sha256, batch_size, created, folder) "
            "VALUES (?, ?, 'queued', ?, ?, ?, ?)",
            [id, number, model_sha256, batch_size, self._db.now(), f"pools/{pool}/scores/{id}"],
        )
        return id

    def _discard(self, db: sqlite3.Connection, number: int) -> None:
        """What failed jobs left goes, and jobs so old that nobody asks for them."""
        left = "FROM jobs WHERE pool = ? AND resumable = 1"
        db.execute(f"INSERT OR IGNORE INTO trash SELECT folder {left}", [number])
        db.execute("UPDATE jobs SET resumable = 0 WHERE pool = ?", [number])
        db.execute(
            f"DELETE FROM jobs WHERE pool = ?1 AND NOT {_ACTIVE} AND number < (SELECT number FROM "
            "jobs WHERE pool = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2) "
            "AND folder NOT IN (SELECT scores FROM pools WHERE scores IS NOT NULL)",
            [number, _KEPT],
        )

    def requeue(self) -> None:
        """Jobs that were running when the process ended wait again."""
        with self._db.writing() as db:
            db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def begin(self, id: str, batch_size: int, provider: str = "") -> bool:
        """A job runs from now on; returns False if it was cancelled.

        Args:
            id: of the job.
            batch_size: of a job that begins; one that goes on keeps its own.
            provider: that scores it, likewise.
        """
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'running', started = coalesce(started, ?), "
                "batch_size = CASE WHEN started IS NULL THEN ? ELSE batch_size END, "
                "provider = CASE WHEN started IS NULL THEN ? ELSE provider END "
                "WHERE id = ? AND state = 'queued'",
                [self._db.now(), batch_size, provider, id],
            )
            return changed.rowcount == 1

    def progress(self, id: str, scored: int, skipped: int, total: int | None) -> None:
        """How far a running job is."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE jobs SET scored = ?, skipped = ?, total = ? "
                "WHERE id = ? AND state = 'running'",
                [scored, skipped, total, id],
            )

    def finish(self, id: str, scored: int, skipped: int) -> bool:
        """A job is done: its scores are the pool's now. Returns False if it was cancelled."""
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'done', ended = ?, scored = ?, skipped = ?, "
                "total = ? WHERE id = ? AND state = 'running'",
                [self._db.now(), scored, skipped, scored + skipped, id],
            )
            if changed.rowcount != 1:
                return False
            row = job_row(db, id)
            folder = self._data_dir / row["folder"]
            scores = PoolScores(folder, row["model_sha256"], scored, skipped)
            self.point(db, row["pool"], scores)
            return True

    def point(self, db: sqlite3.Connection, number: int, scores: PoolScores) -> None:
        """In a transaction: make these a pool's scores; older ones of this daemon are trash."""
        stored = self.stored(scores.folder)
        db.execute(
            "INSERT OR IGNORE INTO trash SELECT folder FROM jobs JOIN pools "
            "ON pools.scores = jobs.folder WHERE pools.number = ? AND folder != ?",
            [number, stored],
        )
        db.execute(
            "UPDATE pools SET scores = ?, model_sha256 = ?, scored = ?, skipped = ? "
            "WHERE number = ?",
            [stored, scores.model_sha256, scores.scored, scores.skipped, number],
        )

    def fail(self, id: str, error: str, resumable: bool) -> bool:
        """A job failed; what it wrote stays if it is resumable. Returns False if cancelled."""
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'failed', ended = ?, error = ?, resumable = ? "
                "WHERE id = ? AND state IN ('queued', 'running')",
                [self._db.now(), error, int(resumable), id],
            )
            if changed.rowcount and not resumable:
                db.execute("INSERT OR IGNORE INTO trash SELECT folder FROM jobs WHERE id = ?", [id])
            return changed.rowcount == 1

    def cancel(self, id: str) -> bool:
        """A job shall not go on; what it wrote is trash. Returns False if it had ended before.

        Raises:
            RequestError: 404.
        """
        with self._db.writing() as db:
            job_row(db, id)
            changed = db.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ?, resumable = 0 "
                f"WHERE id = ? AND ({_ACTIVE} OR resumable = 1)",
                [self._db.now(), id],
            )
            if changed.rowcount:
                db.execute("INSERT OR IGNORE INTO trash SELECT folder FROM jobs WHERE id = ?", [id])
            return changed.rowcount == 1

    def check_idle(self, db: sqlite3.Connection, number: int) -> None:
        """In a transaction: no job of a pool is under way.

        Raises:
            RequestError: 409.
        """
        found = db.execute(f"SELECT id FROM jobs WHERE pool = ? AND {_ACTIVE}", [number]).fetchone()
        if found is not None:
            raise RequestError(
                409, f"job {found['id']} scores it; cancel that first: DELETE /v1/jobs/{found[0]}"
            )

    def stored(self, folder: Path) -> str:
        """A folder as it is kept: relative to the data dir, which may be moved, if it is in it."""
        inside = folder.is_relative_to(self._data_dir)
        return str(folder.relative_to(self._data_dir) if inside else folder)

    def _row(self, row: sqlite3.Row) -> JobRow:
        return JobRow(
            id=row["id"],
            pool=row["pool_name"],
            state=row["state"],
            model_sha256=row["model_sha256"],
            created=row["created"],
            started=row["started"],
            ended=row["ended"],
            done=row["scored"] + row["skipped"],
            total=row["total"],
            scored=row["scored"],
            skipped=row["skipped"],
            error=row["error"],
            folder=self._data_dir / row["folder"],
            batch_size=row["batch_size"],
            resumable=bool(row["resumable"]),
            provider=row["provider"],
        )
