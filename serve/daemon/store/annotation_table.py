"""Label Studio's annotations, since its webhook names a deleted one by its number alone."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class AnnotationRow(NamedTuple):
    """An annotation of a pool's image; ``label`` is "" if it does not choose one class."""

    project: str  # other installations of Label Studio use the same numbers
    number: int
    pool: str
    id: str
    label: str
    skipped: bool
    changed: float  # Unix seconds


class Verdict(NamedTuple):
    """What all annotations of an image together say.

    Attributes:
        label: of the newest annotation that is not a skip; None without one.
        skipped: whether all its annotations are skips.
        disputed: whether they give it different classes.
    """

    label: str | None = None
    skipped: bool = False
    disputed: bool = False


class AnnotationTable:
    """The annotations, in a transaction of the catalog."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def write(self, rows: Iterable[AnnotationRow]) -> None:
        """Add or update annotations; one older than the stored one changes nothing."""
        self._db.executemany(
            "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "pool=excluded.pool, id=excluded.id, label=excluded.label, "
            "cancelled=excluded.cancelled, changed=excluded.changed "
            "WHERE excluded.changed >= annotations.changed",
            rows,
        )

    def delete(self, project: str, numbers: Iterable[int]) -> None:
        """Mark annotations as deleted, so that an older event that arrives later changes nothing.

        Label Studio never uses a number twice.
        """
        self.write(AnnotationRow(project, n, "", "", "", False, math.inf) for n in numbers)

    def images(self, project: str, numbers: Sequence[int]) -> list[tuple[str, str]]:
        """The pools and ids of the images of these annotations, each once."""
        query = "SELECT pool, id FROM annotations WHERE project = ? AND number = ? AND id != ''"
        rows = [row for n in numbers for row in self._db.execute(query, (project, n))]
        return list(dict.fromkeys((pool, id) for pool, id in rows))

    def verdict(self, pool: str, id: str) -> Verdict:
        """What the annotations of an image say."""
        rows = self._db.execute(
            "SELECT cancelled, label FROM annotations WHERE pool = ? AND id = ? "
            "ORDER BY cancelled, changed DESC, number DESC",
            (pool, id),
        ).fetchall()
        if not rows:
            return Verdict()
        skipped, label = rows[0]
        disputed = len({name for skip, name in rows if name and not skip}) > 1
        return Verdict(None if skipped else label, bool(skipped), disputed)
