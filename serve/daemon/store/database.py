"""A SQLite file: how it is opened, its transactions, and errors that name a remedy."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.schema import APPLICATION, STEPS, VERSION

from lloss.errors import LlossError, SettingsError

_BUSY_SECONDS = 5.0
"""How long to wait for another process that locked the file, such as a sqlite3 shell."""

_CACHE_KIB = 64 << 10
"""Cache of the writer: a selection's images are spread over all pages."""

_MIN_FREE_BYTES = 256 << 10
"""A disk with less counts as full."""

_RETRY_SECONDS = 1.0
"""Between two checks whether a full disk can be written again."""

_PRAGMAS = (
    "foreign_keys = ON", "synchronous = FULL", "fullfsync = ON", "temp_store = MEMORY",
    "trusted_schema = OFF",
)  # fmt: skip


class Database:
    """A SQLite file in WAL mode: one writer at a time, any number of concurrent readers.

    A committed transaction survives a power failure.

    Raises:
        SettingsError: it is damaged, not a catalog, of a later version, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
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
        except sqlite3.OperationalError as error:
            raise SettingsError(self._unusable(error)) from error
        except sqlite3.Error as error:
            raise SettingsError(self._damaged(str(error))) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read transaction, which sees one state of the file whatever is written.

        Raises RequestError: 503 it was closed, removed, or cannot be read now.
        """
        with self._translated(503), contextlib.closing(self._connect()) as db:
            db.execute("BEGIN")
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all that the block writes is kept, or nothing.

        Raises RequestError: 507 the disk is full or refuses to write, or the file was removed; 503
        another process locked the file, or it was closed.
        """
        with self._lock, self._translated(507):
            db = self._writer
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
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
        if self._free_bytes() < _MIN_FREE_BYTES:
            return f"{self.path}: the disk is full; free some space"
        if self._write_error and time.monotonic() - self._retried >= _RETRY_SECONDS:
            self._retried = time.monotonic()
            with contextlib.suppress(LlossError), self.writing() as db:
                _write_version(db)
        return self._write_error

    def close(self) -> None:
        """Close it; may be called twice."""
        with self._lock:
            self._closed = True
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
        """Check the file, and create or upgrade its tables."""
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
        _write_version(db)  # always, so that a read-only file fails here and not at a request
        db.execute("COMMIT")

    @contextlib.contextmanager
    def _translated(self, status: int) -> Iterator[None]:
        """Raise SQLite's errors as one line; ``status`` if the disk or a missing file is why."""
        if self._closed:
            raise RequestError(503, "the daemon is shutting down; try again when it is back", 5.0)
        if missing := self._missing():
            raise RequestError(status, missing)
        try:
            yield
        except UnicodeEncodeError as error:
            raise RequestError(422, f"unpaired surrogate in {error.object[:100]!r}") from error
        except sqlite3.OperationalError as error:
            message = self._unusable(error)
            if _is_busy(error):
                raise RequestError(503, message, 1.0) from error
            self._write_error = message if status == 507 else self._write_error
            raise RequestError(status, message, 10.0) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # a mistake of the program
                raise
            self._damage = self._damaged(str(error))
            raise LlossError(self._damage) from error

    def _missing(self) -> str:
        """Why the path is not the open file any more: SQLite would go on with the lost one."""
        with contextlib.suppress(OSError):
            if os.path.samestat(self._file, self.path.stat()):
                return ""
        return (
            f"{self.path}: was removed or replaced while it was open, so that changes would be "
            "lost; stop the daemon, put the file back and start it again"
        )

    def _unusable(self, error: sqlite3.OperationalError) -> str:
        if _is_busy(error):
            return f"{self.path}: is locked by another process; end that, or try again"
        return (
            f"{self.path}: cannot be written: {error} ({self._free_bytes() / 1e6:.1f} MB free); "
            "free some space, or check whether the disk is broken or mounted read-only"
        )

    def _free_bytes(self) -> float:
        try:
            return shutil.disk_usage(self.path.parent).free
        except OSError:
            return math.inf

    def _damaged(self, reason: str) -> str:
        return (
            f"{self.path}: the catalog is damaged ({' '.join(reason.split())}); only this file "
            "holds pools, labels and pending images: restore a copy, or try sqlite3's .recover; or "
            f"start with an empty one by moving {self.path.name}* away (lloss select still reads "
            f"the scores in {self.path.parent / 'pools'})"
        )


def _write_version(db: sqlite3.Connection) -> None:
    """Write to the file, although nothing changes."""
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute(f"PRAGMA user_version = {VERSION}")


def _is_busy(error: sqlite3.OperationalError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0)  # the module raises some without a code
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
