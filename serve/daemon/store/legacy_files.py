"""What an earlier version kept in files of their own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from lloss.serve.daemon.store.database import Database

from lloss.errors import SettingsError

_ANNOTATIONS = "labelstudio.sqlite"


def take_over(database: Database, data_dir: Path) -> None:
    """Take annotations of Label Studio's over; the file is renamed to ``….old``.

    Raises:
        SettingsError: the file is damaged or cannot be read.
    """
    path = data_dir / _ANNOTATIONS
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as file:
            rows = file.execute("SELECT * FROM annotation").fetchall()
        with database.writing() as db:
            marks = ", ".join("?" * 7)
            db.executemany(f"INSERT OR IGNORE INTO annotations VALUES ({marks})", rows)
        path.rename(path.with_name(f"{path.name}.old"))
    except (sqlite3.Error, OSError) as error:
        raise SettingsError(
            f"{path}: cannot be read: {error}; remove it: then annotations that were made before "
            "take no label back when they are deleted or skipped"
        ) from error
