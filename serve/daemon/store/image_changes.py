"""Changes to the states of images, all in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from lloss.serve.daemon.store.lookup import encodable, pool_row

AT_ONCE = 500
"""Ids asked for in one statement."""

_LABEL = (
    "INSERT INTO images (pool, id, state, label, changed) "
    "VALUES (?1, ?2, 'labeled', ?4, ?3) ON CONFLICT DO UPDATE SET state = 'labeled', "
    "label = iif(excluded.label = '' AND state = 'labeled', label, excluded.label), "
    "changed = excluded.changed, expires = 0, selection = ''"
)

_SKIP = (
    "INSERT INTO images (pool, id, state, changed) VALUES (?1, ?2, 'skipped', ?3) "
    "ON CONFLICT DO UPDATE SET state = 'skipped', changed = excluded.changed, "
    "expires = 0, selection = '' WHERE state IN ('pending', 'free')"
)

_UNLABEL = (
    "UPDATE images SET state = 'free', label = '', changed = ?3 "
    "WHERE pool = ?1 AND id = ?2 AND state = 'labeled'"
)

_RETURN = (
    "UPDATE images SET state = 'free', changed = ?3, expires = 0, selection = '' WHERE "
    "pool = ?1 AND id = ?2 AND ((?4 = '' AND state = 'skipped') OR "
    "(state = 'pending' AND expires > ?3 AND ?4 IN ('', selection)))"
)


class Marks:
    """Marks images within a transaction that its maker commits.

    All methods raise :class:`RequestError` 404 for a pool that is not there. Ids that are no text
    (half of a surrogate pair) are in no pool.

    Attributes:
        db: the transaction.
        freed: numbers of pools of which images became free.
    """

    def __init__(self, db: sqlite3.Connection, now: float) -> None:
        self.db, self._now = db, now
        self.freed: set[int] = set()

    def label(self, pool: str, labels: Mapping[str, str]) -> int:
        """Mark images labeled, whatever they were; returns how many.

        A label "" says that an image is labeled, not how: a label that it has already stays.
        """
        return self._each(pool, _LABEL, labels.items())

    def skip(self, pool: str, ids: Iterable[str]) -> int:
        """Mark images skipped, but for labeled ones; returns how many were not."""
        return self._each(pool, _SKIP, ((id,) for id in ids))

    def unlabel(self, pool: str, ids: Iterable[str]) -> int:
        """Free labeled images; returns how many were."""
        return self._each(pool, _UNLABEL, ((id,) for id in ids), frees=True)

    def give_back(self, pool: str, ids: Iterable[str], selection: str = "") -> int:
        """Free images; returns how many were not.

        Args:
            pool: its name.
            ids: of pending or skipped images; others are left as they are.
            selection: frees only those that are still pending by it; "" frees them from any.
        """
        return self._each(pool, _RETURN, ((id, selection) for id in ids), frees=True)

    def labeled(self, pool: str, ids: Iterable[str]) -> int:
        """How many of some ids have a label that is not ""."""
        return self._count(pool, ids, "state = 'labeled' AND label != ''", [])

    def with_labels(self, pool: str, labels: Mapping[str, str]) -> list[str]:
        """Those of some ids that have the very label given here."""
        number = pool_row(self.db, pool)["number"]
        found = "SELECT 1 FROM images WHERE pool = ? AND id = ? AND state = 'labeled' AND label = ?"
        return [
            id for id, label in labels.items()
            if self.db.execute(found, [number, id, label]).fetchone()
        ]  # fmt: skip

    def elsewhere(self, pool: str, ids: Iterable[str], selection: str) -> int:
        """How many of some ids are pending by another selection than this."""
        return self._count(
            pool,
            ids,
            "state = 'pending' AND expires > ? AND selection != ?",
            [self._now, selection],
        )

    def _count(self, pool: str, ids: Iterable[str], which: str, given: list[str | float]) -> int:
        number = pool_row(self.db, pool)["number"]
        wanted = list(filter(encodable, ids))
        count = 0
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            found = self.db.execute(
                f"SELECT count(*) FROM images WHERE pool = ? AND id IN ({marks}) AND {which}",
                [number, *some, *given],
            )
            count += found.fetchone()[0]
        return count

    def _each(
        self, pool: str, statement: str, rows: Iterable[tuple[str, ...]], frees: bool = False
    ) -> int:
        """Run a statement for each row; returns how many rows of the table it changed.

        It is given the pool's number, the id, the time, and what else a row has.
        """
        number = pool_row(self.db, pool)["number"]
        before = self.db.total_changes
        self.db.executemany(
            statement,
            ((number, row[0], self._now, *row[1:]) for row in rows if all(map(encodable, row))),
        )
        changed = self.db.total_changes - before
        if frees and changed:
            self.freed.add(number)
        return changed
