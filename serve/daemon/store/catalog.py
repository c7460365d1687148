"""The daemon's state on disk: pools, jobs, and the states of images."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.image_table import ImageTable
from lloss.serve.daemon.store.job_table import JobTable
from lloss.serve.daemon.store.pool_table import PoolTable

from lloss.errors import SettingsError
from lloss.files import locked, write_error


class Catalog(Database):
    """Pools, jobs, labels and selections, in ``data_dir/catalog.sqlite``.

    All methods, also those of the tables, are thread-safe. They raise :class:`RequestError` 507 if
    the disk refuses a write, and 503 after :meth:`close`.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open or create it. Raises SettingsError, also if another daemon uses ``data_dir``."""
        self.data_dir = data_dir.expanduser().resolve()
        busy = SettingsError(
            f"{self.data_dir}: another lloss serve works in this data dir; end it, "
            "or choose another --data-dir"
        )
        with contextlib.ExitStack() as lock:
            try:
                self.data_dir.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(self.data_dir, busy))
            except OSError as error:
                raise SettingsError(str(write_error(error, self.data_dir))) from error
            super().__init__(self.data_dir / "catalog.sqlite")
            self._data_dir_lock = lock.pop_all()
        self.pools = PoolTable(self, self.data_dir)
        self.jobs = JobTable(self, self.pools)
        self.images = ImageTable(self)

    def close(self) -> None:
        """Close it, and unlock the data dir."""
        super().close()
        self._data_dir_lock.close()
