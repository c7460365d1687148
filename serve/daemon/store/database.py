"""A SQLite file: its schema, its transactions, and what is said when it cannot be used."""

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
from lloss.serve.daemon.store.schema import APPLICATION, SCHEMA, STEPS, VERSION

from lloss.errors import LlossError, SettingsError

_BUSY_SECONDS = 5.0
"""How long to wait for a stranger, such as a shell of sqlite3, who holds the file."""

_IDLE = 8
"""Reading connections that are kept open while nobody reads."""

_CACHE = 64 << 20
"""Bytes of the file that the writer keeps: images are written in the order of no page."""

_LEAST_FREE = 256 << 10
"""Bytes below which a disk counts as full."""

_PROBE_SECONDS = 1.0
"""Between two looks whether a disk that was full has room again."""

_AHEAD_SECONDS = 24 * 3600.0
"""Less than this a clock may be set back without harm: pending images expire so much later."""

_WRITTEN = 1_767_225_600.0
"""The year 2026 began: a clock that says less is wrong."""

_WRITE_ERRORS = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)
_BUSY_ERRORS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGE_ERRORS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Clock:
    """Unix seconds that never go backwards while a process runs.

    Over restarts they go back only where an earlier process evidently saw a clock that stood in the
    future: the system's time is :data:`_AHEAD_SECONDS` or more behind what it saw, and not of
    before this program was written, as on a machine whose own clock has lost its battery.

    Args:
        latest: the latest time that an earlier process saw.

    Attributes:
        ahead: seconds that the earlier process was in the future; 0 where it was not.
    """

    def __init__(self, latest: float) -> None:
        self._lock = threading.Lock()
        now, self._at = time.time(), time.monotonic()
        ahead = latest - now
        self.ahead = ahead if ahead >= _AHEAD_SECONDS and now >= _WRITTEN else 0.0
        self._latest = now if self.ahead else max(latest, now)

    def now(self) -> float:
        """The system's time, or where that went back, the time that has passed since."""
        with self._lock:
            at = time.monotonic()
            self._latest = max(self._latest + at - self._at, time.time())
            self._at = at
            return self._latest


class Database:
    """A SQLite file in WAL mode: one writer at a time, any number of readers beside it.

    A transaction that was committed survives the loss of power.

    Args:
        path: of the file; made when it is not there, never removed.

    Attributes:
        restamped: pending images that an earlier process handed out in the future, and that count
            as handed out when this one began.

    Raises:
        SettingsError: it is damaged, no catalog, of a later version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._failed, self._probed, self._broken = "", 0.0, ""
        self.restamped = 0
        # One that is cut off to nothing would pass for a new one.
        if (path.parent / "pools").is_dir() and path.is_file() and not path.stat().st_size:
            raise SettingsError(self._damaged("it is empty, and there are scores of pools"))
        try:
            self._writer = self._connected()
            self._writer.execute(f"PRAGMA cache_size = -{_CACHE >> 10}")
            try:
                self._prepare()
                self._file = path.stat()
            except BaseException:
                self._writer.close()
                raise
        except sqlite3.Error as error:
            raise SettingsError(self._explained_opening(error)) from error

    def now(self) -> float:
        """The catalog's time; see :class:`Clock`."""
        return self._clock.now()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the file, whoever writes meanwhile.

        Raises:
            RequestError: 503 it was closed, removed, or cannot be read just now.
            LlossError: it is damaged.
        """
        with self._told(503):
            self._check_there(503)
            db = self._taken()
            try:
                db.execute("BEGIN")
                try:
                    yield db
                finally:
                    if db.in_transaction:
                        db.execute("ROLLBACK")  # nothing was written
            except sqlite3.Error:
                db.close()
                raise
            except BaseException:
                self._put_back(db)
                raise
            self._put_back(db)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: what the block does is kept as a whole, or not at all.

        Raises:
            RequestError: 507 the disk is full or does not take it, or the file was removed; 503 the
                file is held by another process, or was closed.
            LlossError: it is damaged.
        """
        with self._lock, self._told(507):
            if self._closed:
                raise _closed()
            self._check_there(507)
            db = self._writer
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("UPDATE clock SET latest = max(latest, ?)", [self.now()])
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has ended it itself after some failures
                    db.execute("ROLLBACK")
                raise
            self._failed = ""

    def problem(self) -> str:
        """Why it cannot be written just now; "" when it can. Costs next to nothing.

        A file that was found damaged is told of until the process ends.
        """
        if told := self._broken or self._gone():
            return told
        if not self._failed:
            with contextlib.suppress(OSError):
                if shutil.disk_usage(self.path.parent).free < _LEAST_FREE:
                    return f"{self.path}: the disk is full; make room"
            return ""
        if time.monotonic() - self._probed >= _PROBE_SECONDS:
            self._probed = time.monotonic()
            with contextlib.suppress(LlossError), self.writing():
                pass  # which tells the time
        return self._failed

    def _check_there(self, status: int) -> None:
        if gone := self._gone():
            raise RequestError(status, gone)

    def _gone(self) -> str:
        """SQLite itself goes on with a file that nobody will find again."""
        with contextlib.suppress(OSError):
            if os.path.samestat(self._file, self.path.stat()):
                return ""
        return (
            f"{self.path}: was removed or exchanged while it is open, so that what is written is "
            "lost; end the daemon, put the file back and start it again"
        )

    def close(self) -> None:
        """Close it; calls after it do nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            idle, self._idle = self._idle, []
            for db in (*idle, self._writer):
                db.close()

    def _connected(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.row_factory = sqlite3.Row
        for pragma in ("foreign_keys = ON", "synchronous = FULL", "fullfsync = ON",
                       "temp_store = MEMORY", "trusted_schema = OFF"):  # fmt: skip
            db.execute(f"PRAGMA {pragma}")
        return db

    def _prepare(self) -> None:
        """Check what is there, or make it."""
        db = self._writer
        found = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise SettingsError(self._damaged(found[0]))
        version = db.execute("PRAGMA user_version").fetchone()[0]
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        empty = not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if not empty and owner != APPLICATION:
            raise SettingsError(f"{self.path}: is no catalog of lloss; choose another --data-dir")
        if version > VERSION:
            raise SettingsError(
                f"{self.path}: was written by a later lloss (schema {version}, this one knows "
                f"{VERSION}); update lloss, or choose another --data-dir"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("BEGIN IMMEDIATE")
        if empty:
            for statement in SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION}")
        for step in range(1 if empty else version, VERSION):
            for statement in STEPS[step + 1]:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
        # A write, so that a file that cannot be written is refused now and not by a request.
        self._clock = Clock(db.execute("SELECT latest FROM clock").fetchone()[0])
        if self._clock.ahead:
            self._come_back()
        db.execute("UPDATE clock SET latest = ?", [self.now()])
        db.execute("COMMIT")

    def _come_back(self) -> None:
        """An earlier process wrote times of the future: what it wrote was written now.

        What was handed out then is pending for as long as it was to be, from now on.
        """
        given = {"now": self.now()}
        moved = self._writer.execute(
            "UPDATE images SET expires = :now + (expires - changed), changed = :now "
            "WHERE state = 'pending' AND changed > :now",
            given,
        )
        self.restamped = moved.rowcount
        self._writer.execute("UPDATE images SET changed = :now WHERE changed > :now", given)
        self._writer.execute("UPDATE answers SET created = :now WHERE created > :now", given)
        logs.event(
            "clock_was_ahead",
            logging.WARNING,
            seconds=round(self._clock.ahead),
            restamped_pending_images=self.restamped,
        )

    def _taken(self) -> sqlite3.Connection:
        if self._closed:
            raise _closed()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connected()

    def _put_back(self, db: sqlite3.Connection) -> None:
        if self._closed or len(self._idle) >= _IDLE:
            db.close()
        else:
            self._idle.append(db)

    @contextlib.contextmanager
    def _told(self, status: int) -> Iterator[None]:
        """What SQLite raises as one line; ``status`` where the disk is to blame."""
        try:
            yield
        except sqlite3.Error as error:
            code = _code(error)
            if code in _BUSY_ERRORS:
                raise RequestError(
                    503, f"{self.path}: is held by another process; try again", 1.0
                ) from error
            if code in _WRITE_ERRORS:
                told = self._unwritable(error)
                self._failed = told if status == 507 else self._failed
                raise RequestError(status, told, 10.0) from error
            if tells_damage(error):
                self._broken = self._damaged(str(error))
                raise LlossError(self._broken) from error
            raise

    def _explained_opening(self, error: sqlite3.Error) -> str:
        code = _code(error)
        if code in _BUSY_ERRORS:
            return f"{self.path}: is held by another process; end it first"
        return self._unwritable(error) if code in _WRITE_ERRORS else self._damaged(str(error))

    def _unwritable(self, error: sqlite3.Error) -> str:
        free = 0.0
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.path.parent).free / 1e6
        full = _code(error) == sqlite3.SQLITE_FULL or free * 1e6 < _LEAST_FREE
        remedy = "make room" if full else "is the disk full, broken or mounted read-only?"
        return f"{self.path}: cannot be written: {error} ({free:.1f} MB free); {remedy}"

    def _damaged(self, what: str) -> str:
        told = " ".join(what.split())
        return (
            f"{self.path}: the catalog is damaged ({told}); pools, labels and pending images stand "
            "in it alone: restore a copy, or try sqlite3's .recover; or start afresh by moving "
            f"{self.path.name}* away (scores under {self.path.parent / 'pools'} stay readable "
            "to lloss select)"
        )


def tells_damage(error: sqlite3.Error) -> bool:
    """Whether the file is damaged, or none of SQLite's."""
    return _code(error) in _DAMAGE_ERRORS


def _code(error: sqlite3.Error) -> int:
    """The primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _closed() -> RequestError:
    return RequestError(503, "the daemon is ending; try again when it is back", 5.0)
