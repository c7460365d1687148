"""Jobs in the catalog; every method that writes is one transaction."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Sequence

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.pool_table import PoolTable
from lloss.serve.daemon.store.records import JobRow, PoolScores

_SELECT = "SELECT jobs.*, pools.name AS pool_name FROM jobs JOIN pools ON pools.number = jobs.pool "
_ACTIVE = "state IN ('queued', 'running')"


class JobTable:
    """The table of jobs.

    ::

        submitted ─▶ queued ─▶ running ─▶ done
                       ▲ │        │ ├───▶ failed
                       └─┼────────┘ │       │ submitted again, if it is resumable: queued
                 restart └─────▶ cancelled
    """

    def __init__(self, database: Database, pools: PoolTable) -> None:
        self._db, self._pools = database, pools

    def rows(self, pool: str | None = None) -> list[JobRow]:
        """All jobs, or those of a pool; the newest first. Raises RequestError: 404 no such pool."""
        if pool is None:
            return self._rows("ORDER BY jobs.number DESC")
        self._pools.row(pool)
        return self._rows("WHERE pools.name = ? ORDER BY jobs.number DESC", [pool])

    def row(self, id: str) -> JobRow:
        """One job. Raises RequestError: 404."""
        row = self._first("WHERE jobs.id = ?", [id])
        if row is None:
            raise RequestError(404, f"no job {id[:100]!r}; see GET /v1/jobs")
        return row

    def active(self) -> list[JobRow]:
        """Jobs that are queued or running, the newest first."""
        return self._rows(f"WHERE {_ACTIVE} ORDER BY jobs.number DESC")

    def newest(self, pool: str) -> JobRow | None:
        """The newest job of a pool, if it has one."""
        return self._first("WHERE pools.name = ? ORDER BY jobs.number DESC LIMIT 1", [pool])

    def next(self) -> JobRow | None:
        """The oldest queued job."""
        return self._first("WHERE jobs.state = 'queued' ORDER BY jobs.number LIMIT 1")

    def models(self) -> set[str]:
        """Models of jobs that are active or resumable."""
        return {row.model_sha256 for row in self._rows(f"WHERE {_ACTIVE} OR resumable = 1")}

    def submit(
        self, pool: str, model_sha256: str, batch_size: int, restart: bool = False
    ) -> JobRow:
        """The pool's active job; otherwise a failed one of this model, queued again; or a new one.

        ``restart`` never resumes; ``batch_size`` is of a new job.
        """
        with self._db.writing() as db:
            number = self._pools.number(db, pool)
            row = db.execute(
                f"SELECT id FROM jobs WHERE pool = ? AND ({_ACTIVE} OR (resumable = 1 AND "
                "model_sha256 = ? AND NOT ?)) ORDER BY resumable LIMIT 1",
                [number, model_sha256, restart],
            ).fetchone()
            if row is not None:
                id = row["id"]
                db.execute(
                    "UPDATE jobs SET state = 'queued', error = '', ended = NULL, resumable = 0 "
                    "WHERE id = ? AND state = 'failed'",
                    [id],
                )
            else:
                id = secrets.token_hex(8)
                failed = "SELECT folder FROM jobs WHERE pool = ? AND resumable = 1"
                self._pools.add_trash(db, failed, number)
                db.execute("UPDATE jobs SET resumable = 0 WHERE pool = ?", [number])
                db.execute(
                    "INSERT INTO jobs (id, pool, state, model_sha256, batch_size, created, folder) "
                    "VALUES (?, ?, 'queued', ?, ?, ?, ?)",
                    [id, number, model_sha256, batch_size, time.time(),
                     f"pools/{pool}/scores/{id}"],
                )  # fmt: skip
            return self._record(db.execute(f"{_SELECT} WHERE jobs.id = ?", [id]).fetchone())

    def requeue(self) -> None:
        """Queue jobs that were running when the process ended."""
        self._update("state = 'queued' WHERE state = 'running'")

    def begin(self, id: str, batch_size: int) -> bool:
        """Set a job running; a resumed one keeps its batch size. False if it was cancelled."""
        return self._update(
            "state = 'running', started = coalesce(started, ?), "
            "batch_size = iif(started IS NULL, ?, batch_size) WHERE id = ? AND state = 'queued'",
            [time.time(), batch_size, id],
        )

    def progress(self, id: str, scored: int, skipped: int, total: int | None) -> None:
        """Note how far a running job is."""
        self._update(
            "scored = ?, skipped = ?, total = ? WHERE id = ? AND state = 'running'",
            [scored, skipped, total, id],
        )

    def finish(self, id: str, scored: int, skipped: int) -> bool:
        """Make a job's scores those of its pool; False if it was cancelled."""
        with self._db.writing() as db:
            row = db.execute(
                "UPDATE jobs SET state = 'done', ended = ?, scored = ?, skipped = ?, total = ? "
                "WHERE id = ? AND state = 'running' RETURNING *",
                [time.time(), scored, skipped, scored + skipped, id],
            ).fetchone()
            if row is None:
                return False
            folder = self._pools.absolute(row["folder"])
            scores = PoolScores(folder, row["model_sha256"], scored, skipped)
            self._pools.set_scores(db, row["pool"], scores)
            return True

    def fail(self, id: str, error: str, resumable: bool) -> bool:
        """Set a job failed; only a resumable one keeps its parts. False if it was cancelled."""
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'failed', ended = ?, error = ?, resumable = ? "
                f"WHERE id = ? AND {_ACTIVE}",
                [time.time(), error, int(resumable), id],
            )
            if changed.rowcount and not resumable:
                self._pools.add_trash(db, "SELECT folder FROM jobs WHERE id = ?", id)
            return changed.rowcount == 1

    def cancel(self, id: str) -> bool:
        """Cancel a job and discard its parts; False if it had ended. Raises RequestError: 404."""
        self.row(id)
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = 'cancelled', ended = ?, resumable = 0 "
                f"WHERE id = ? AND ({_ACTIVE} OR resumable = 1)",
                [time.time(), id],
            )
            if changed.rowcount:
                self._pools.add_trash(db, "SELECT folder FROM jobs WHERE id = ?", id)
            return changed.rowcount == 1

    def _update(self, change: str, parameters: Sequence[object] = ()) -> bool:
        with self._db.writing() as db:
            return db.execute(f"UPDATE jobs SET {change}", parameters).rowcount > 0

    def _rows(self, where: str, parameters: Sequence[str] = ()) -> list[JobRow]:
        with self._db.reading() as db:
            return [self._record(row) for row in db.execute(f"{_SELECT} {where}", parameters)]

    def _first(self, where: str, parameters: Sequence[str] = ()) -> JobRow | None:
        return next(iter(self._rows(where, parameters)), None)

    def _record(self, row: sqlite3.Row) -> JobRow:
        fields = {**row, "pool": row["pool_name"], "resumable": bool(row["resumable"])}
        fields["folder"] = self._pools.absolute(row["folder"])
        names = JobRow.__dataclass_fields__.keys() & fields.keys()
        return JobRow(**{name: fields[name] for name in names})
