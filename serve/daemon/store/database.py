"""A SQLite file: how it is opened, its transactions, and errors that name a remedy."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.store.clock import Clock
from lloss.serve.daemon.store.schema import APPLICATION, STEPS, VERSION

from lloss.errors import LlossError, SettingsError

_BUSY_SECONDS = 5.0
"""How long to wait for another process that locked the file, such as a sqlite3 shell."""

_IDLE_READERS = 8

_CACHE_KIB = 64 << 10
"""Of the writer: a selection's images are spread over all pages."""

_MIN_FREE_BYTES = 256 << 10
"""A disk with less counts as full."""

_RETRY_SECONDS = 1.0
"""Between two checks whether a full disk can be written again."""

_PRAGMAS = (
    "foreign_keys = ON", "synchronous = FULL", "fullfsync = ON", "temp_store = MEMORY",
    "trusted_schema = OFF",
)  # fmt: skip

_WRITE_ERRORS = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)
_BUSY_ERRORS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGE_ERRORS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Database:
    """A SQLite file in WAL mode: one writer at a time, any number of concurrent readers.

    A committed transaction survives a power failure. ``restamped`` counts pending images that an
    earlier process handed out with a clock in the future; they count as handed out now.

    Raises:
        SettingsError: it is damaged, not a catalog, of a later version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restamped = 0
        self._lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._closed = False
        self._write_error, self._retried, self._damage = "", 0.0, ""
        # SQLite would take a file that was truncated to nothing for a new one.
        if (path.parent / "pools").is_dir() and path.is_file() and not path.stat().st_size:
            raise SettingsError(self._damaged("it is empty, but there are scores of pools"))
        try:
            self._writer = self._connect()
            try:
                self._open(self._writer)
                self._file = path.stat()
            except BaseException:
                self._writer.close()
                raise
        except sqlite3.Error as error:
            raise SettingsError(self._explain(error)[1]) from error

    def now(self) -> float:
        """The catalog's time; see :class:`.Clock`."""
        return self._clock.now()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction, which sees one state of the file whatever is written.

        Raises:
            RequestError: 503 it was closed, removed, or cannot be read now.
            LlossError: it is damaged.
        """
        with self._translated(503):
            reusable = True
            try:
                db = self._readers.pop()
            except IndexError:
                db = self._connect()
            try:
                db.execute("BEGIN")
                try:
                    yield db
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
            except sqlite3.Error:
                reusable = False
                raise
            finally:
                if reusable and not self._closed and len(self._readers) < _IDLE_READERS:
                    self._readers.append(db)
                else:
                    db.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all that the block writes is kept, or nothing.

        Raises:
            RequestError: 507 the disk is full or refuses to write, or the file was removed; 503
                another process locked the file, or it was closed.
            LlossError: it is damaged.
        """
        with self._lock, self._translated(507):
            db = self._writer
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("UPDATE clock SET latest = max(latest, ?)", [self.now()])
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # after some errors SQLite has rolled back already
                    db.execute("ROLLBACK")
                raise
            self._write_error = ""

    def problem(self) -> str:
        """Why it cannot be written now, or "". Cheap; damage is reported until the process ends."""
        if problem := self._damage or self._missing():
            return problem
        if not self._write_error:
            with contextlib.suppress(OSError):
                if shutil.disk_usage(self.path.parent).free < _MIN_FREE_BYTES:
                    return f"{self.path}: the disk is full; free some space"
        elif time.monotonic() - self._retried >= _RETRY_SECONDS:
            self._retried = time.monotonic()
            with contextlib.suppress(LlossError), self.writing():
                pass  # writes the clock
        return self._write_error

    def close(self) -> None:
        """Close all connections; may be called twice."""
        with self._lock:
            self._closed = True
            while self._readers:
                self._readers.pop().close()
            self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.row_factory = sqlite3.Row
        for pragma in _PRAGMAS:
            db.execute(f"PRAGMA {pragma}")
        return db

    def _open(self, db: sqlite3.Connection) -> None:
        """Check the file, create or upgrade its tables, and start the clock."""
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise SettingsError(self._damaged(state))
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if tables and owner != APPLICATION:
            raise SettingsError(
                f"{self.path}: is not a catalog of lloss; choose another --data-dir"
            )
        if version > VERSION:
            raise SettingsError(
                f"{self.path}: was written by a later lloss (schema {version}, this one reads "
                f"{VERSION}); update lloss, or choose another --data-dir"
            )
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("BEGIN IMMEDIATE")
        for step in range(version + 1, VERSION + 1):
            for statement in STEPS[step].split(";\n"):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        self._clock = Clock(db.execute("SELECT latest FROM clock").fetchone()[0])
        if self._clock.ahead:
            self._restamp(db)
        # Always a write, so that a read-only file fails here and not at a request.
        db.execute("UPDATE clock SET latest = ?", [self.now()])
        db.execute("COMMIT")

    def _restamp(self, db: sqlite3.Connection) -> None:
        """Replace times in the future by now; pending images expire after their full time."""
        now = {"now": self.now()}
        self.restamped = db.execute(
            "UPDATE images SET expires = :now + (expires - changed), changed = :now "
            "WHERE state = 'pending' AND changed > :now",
            now,
        ).rowcount
        db.execute("UPDATE images SET changed = :now WHERE changed > :now", now)
        db.execute("UPDATE answers SET created = :now WHERE created > :now", now)
        logs.event(
            "clock_was_ahead",
            logging.WARNING,
            seconds=round(self._clock.ahead),
            restamped_pending_images=self.restamped,
        )

    @contextlib.contextmanager
    def _translated(self, status: int) -> Iterator[None]:
        """Raise SQLite's errors as one line; ``status`` if the disk or a missing file is why."""
        if self._closed:
            raise RequestError(503, "the daemon is shutting down; try again when it is back", 5.0)
        if missing := self._missing():
            raise RequestError(status, missing)
        try:
            yield
        except sqlite3.Error as error:
            code, message = self._explain(error)
            if code in _BUSY_ERRORS:
                raise RequestError(503, message, 1.0) from error
            if code in _WRITE_ERRORS:
                self._write_error = message if status == 507 else self._write_error
                raise RequestError(status, message, 10.0) from error
            if code in _DAMAGE_ERRORS:
                self._damage = message
                raise LlossError(message) from error
            raise

    def _missing(self) -> str:
        """Why the path is not the open file any more: SQLite would go on with the lost one."""
        with contextlib.suppress(OSError):
            if os.path.samestat(self._file, self.path.stat()):
                return ""
        return (
            f"{self.path}: was removed or replaced while it was open, so that changes would be "
            "lost; stop the daemon, put the file back and start it again"
        )

    def _explain(self, error: sqlite3.Error) -> tuple[int, str]:
        """The primary result code, and what to do."""
        code = int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
        if code in _BUSY_ERRORS:
            return code, f"{self.path}: is locked by another process; end that, or try again"
        if code not in _WRITE_ERRORS:
            return code, self._damaged(str(error))
        free = 0
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.path.parent).free
        full = code == sqlite3.SQLITE_FULL or free < _MIN_FREE_BYTES
        remedy = "free some space" if full else "is the disk full, broken or mounted read-only?"
        return code, f"{self.path}: cannot be written: {error} ({free / 1e6:.1f} MB free); {remedy}"

    def _damaged(self, reason: str) -> str:
        return (
            f"{self.path}: the catalog is damaged ({' '.join(reason.split())}); only this file "
            "holds pools, labels and pending images: restore a copy, or try sqlite3's .recover; or "
            f"start with an empty one by moving {self.path.name}* away (lloss select still reads "
            f"the scores in {self.path.parent / 'pools'})"
        )
