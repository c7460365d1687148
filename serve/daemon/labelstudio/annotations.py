"""Annotations that the webhook told of, since a deleted one is told by its number alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lloss.errors import LlossError

from ..catalog.database import tells_damage
from ..failures import RequestError
from .exports import Age

FILE = "labelstudio.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS annotation (
    project TEXT NOT NULL, number INTEGER NOT NULL, pool TEXT NOT NULL, id TEXT NOT NULL,
    label TEXT NOT NULL, cancelled INTEGER NOT NULL, changed REAL NOT NULL,
    PRIMARY KEY (project, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS annotation_of ON annotation (pool, id);
"""

_SECONDS = 10.0
"""To wait for another who writes; only a second daemon's mistake makes one wait."""


@dataclass(frozen=True)
class Annotation:
    """An annotation of an image of a pool.

    Attributes:
        project: of Label Studio, and when it was made: numbers alone come again elsewhere.
        age: when it was changed, and its number in Label Studio.
        pool: the image's.
        id: the image's.
        label: see :func:`.exports.choice_of`.
        cancelled: whether the annotator skipped the image instead.
    """

    project: str
    age: Age
    pool: str
    id: str
    label: str
    cancelled: bool


@dataclass(frozen=True)
class Verdict:
    """What all annotations of an image together say: labeled (then how), skipped, or neither."""

    pool: str
    id: str
    label: str | None
    skipped: bool = False


class Annotations:
    """The file of them, open for one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    @contextmanager
    def opened(cls, data_dir: Path) -> Iterator[Annotations]:
        """Open or make the file; what the block writes stays only if the block ends well.

        Raises:
            LlossError: it is damaged.
            RequestError: 503, it cannot be written now.
        """
        path = data_dir / FILE
        try:
            with closing(sqlite3.connect(path, timeout=_SECONDS)) as connection:
                connection.executescript(f"PRAGMA journal_mode=WAL; {_SCHEMA}")
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    yield cls(connection)
        except sqlite3.Error as error:
            raise _explained(path, error) from error

    def write(self, annotations: Iterable[Annotation]) -> None:
        """Note annotations that were made or changed; what is older than what is known is not."""
        self._connection.executemany(
            "INSERT INTO annotation VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "pool=excluded.pool, id=excluded.id, label=excluded.label, "
            "cancelled=excluded.cancelled, changed=excluded.changed "
            "WHERE excluded.changed >= annotation.changed",
            [
                (a.project, a.age.id, a.pool, a.id, a.label, a.cancelled, a.age.changed)
                for a in annotations
            ],
        )

    def places(self, project: str, numbers: Sequence[int]) -> list[tuple[str, str]]:
        """Pools and ids of the images that annotations are of, each once."""
        places: dict[tuple[str, str], None] = {}
        for number in numbers:
            found = self._connection.execute(
                "SELECT pool, id FROM annotation WHERE project = ? AND number = ?",
                (project, number),
            )
            places.update(dict.fromkeys(found.fetchall()))
        return list(places)

    def delete(self, project: str, numbers: Sequence[int]) -> None:
        """Forget annotations."""
        self._connection.executemany(
            "DELETE FROM annotation WHERE project = ? AND number = ?",
            [(project, number) for number in numbers],
        )

    def verdict(self, pool: str, id: str) -> Verdict:
        """What is known of an image: its newest annotation that is no skip counts."""
        rows = self._connection.execute(
            "SELECT cancelled, label FROM annotation WHERE pool = ? AND id = ? "
            "ORDER BY cancelled, changed DESC, number DESC LIMIT 1",
            (pool, id),
        ).fetchall()
        if not rows:
            return Verdict(pool, id, None)
        ((cancelled, label),) = rows
        return Verdict(pool, id, None if cancelled else label, bool(cancelled))


def _explained(path: Path, error: sqlite3.Error) -> LlossError:
    if tells_damage(error):
        return LlossError(
            f"{path}: is damaged; remove it while the daemon is stopped: then annotations that "
            "were made before take no label back when they are deleted or skipped"
        )
    return RequestError(503, f"{path}: cannot be written: {error}", _SECONDS)
