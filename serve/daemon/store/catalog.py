"""The daemon's state on disk: pools, jobs, and the states of images."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.image_table import ImageTable
from lloss.serve.daemon.store.job_table import JobTable
from lloss.serve.daemon.store.pool_table import PoolTable

from lloss.errors import SettingsError
from lloss.files import explained, locked


class Catalog:
    """Pools, jobs, labels and selections, in ``data_dir/catalog.sqlite``.

    What a method has written survives a power failure. All methods, also those of the tables, are
    thread-safe, and raise :class:`RequestError` 507 if the disk refuses a write and 503 after
    :meth:`close`.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open the catalog, or create it.

        Raises:
            SettingsError: it is damaged, of a later version, or another daemon uses ``data_dir``.
        """
        self.data_dir = data_dir.expanduser().resolve()
        with contextlib.ExitStack() as opened:
            self._lock(opened)
            self._db = Database(self.data_dir / "catalog.sqlite")
            self._opened = opened.pop_all()
        self.pools = PoolTable(self._db, self.data_dir)
        self.jobs = JobTable(self._db, self.pools)
        self.images = ImageTable(self._db)

    @property
    def restamped(self) -> int:
        """See :class:`.Database`."""
        return self._db.restamped

    def now(self) -> float:
        """Unix seconds that never decrease, also after a restart."""
        return self._db.now()

    def problem(self) -> str:
        """Why it cannot be written now, or ""."""
        return self._db.problem()

    def reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """See :meth:`.Database.reading`."""
        return self._db.reading()

    def close(self) -> None:
        """Close it, and unlock the data dir."""
        self._db.close()
        self._opened.close()

    def _lock(self, opened: contextlib.ExitStack) -> None:
        busy = SettingsError(
            f"{self.data_dir}: another lloss serve works in this data dir; end it, "
            "or choose another --data-dir"
        )
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            opened.enter_context(locked(self.data_dir, busy))
        except OSError as error:
            raise SettingsError(str(explained(error, self.data_dir))) from error
