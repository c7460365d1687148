"""The states of images: who has them, which are labeled, which are never to be handed out."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence

from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.pool_table import PoolTable
from lloss.serve.daemon.store.records import Counts, ImageRow, ImageState, Pending, StoredReply

_REPLY_SECONDS = 7 * 24 * 3600.0
"""How long the reply to a request with an idempotency key is kept."""

_TAKEN = "(state IN ('labeled', 'skipped') OR (state = 'pending' AND expires > :now))"

_SELECT = (
    "SELECT id, iif(state = 'pending' AND expires <= :now, 'free', state) AS state, label, "
    "selection FROM images WHERE pool = :pool "
)

# Parameters: pool, id, now, and what the method adds.
_HAND_OUT = (
    "INSERT INTO images (pool, id, state, changed, expires, selection, score, rank) "
    "VALUES (?1, ?2, 'pending', ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET "
    "state = 'pending', changed = ?3, expires = ?4, selection = ?5, score = ?6, rank = ?7 "
    "WHERE state = 'free' OR (state = 'pending' AND expires <= ?3)"
)
_LABEL = (
    "INSERT INTO images (pool, id, state, changed, label) "
    "VALUES (?1, ?2, 'labeled', ?3, ?4) ON CONFLICT DO UPDATE SET state = 'labeled', "
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
_GIVE_BACK = (
    "UPDATE images SET state = 'free', changed = ?3, expires = 0, selection = '' WHERE "
    "pool = ?1 AND id = ?2 AND ((?4 = '' AND state = 'skipped') OR "
    "(state = 'pending' AND expires > ?3 AND ?4 IN ('', selection)))"
)


class TakenError(Exception):
    """An image was labeled, skipped or handed out after it was selected."""


class ImageTable:
    """The states of the images of all pools.

    All methods take the pool's name, and raise :class:`RequestError` 404 if it does not exist; each
    is one transaction.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def counts(self, pool: str) -> Counts:
        """Images by state."""
        query = f"SELECT state, count(*) FROM images WHERE pool = :pool AND {_TAKEN} GROUP BY state"
        counts = dict(map(tuple, self._rows(pool, query)))
        return Counts(*(counts.get(state, 0) for state in ("labeled", "pending", "skipped")))

    def taken(self, pool: str) -> set[str]:
        """Ids that must not be handed out now."""
        rows = self._rows(pool, f"SELECT id FROM images WHERE pool = :pool AND {_TAKEN}")
        return {row["id"] for row in rows}

    def states(self, pool: str, ids: Iterable[str]) -> dict[str, ImageRow]:
        """The images that ever had a state, which proves that the pool has them."""
        states = {}
        with self._db.reading() as db:
            given = {"pool": PoolTable.number(db, pool), "now": time.time()}
            for id in ids:
                row = db.execute(f"{_SELECT} AND id = :id", {**given, "id": id}).fetchone()
                if row is not None:
                    states[id] = ImageRow(*row[1:])
        return states

    def listed(self, pool: str, state: ImageState, offset: int, limit: int) -> list[str]:
        """The ids of images that are labeled, pending or skipped, in order."""
        query = (
            f"SELECT id FROM images WHERE pool = :pool AND state = :state AND {_TAKEN} "
            "ORDER BY id LIMIT :limit OFFSET :offset"
        )
        rows = self._rows(pool, query, state=state, limit=limit, offset=offset)
        return [row["id"] for row in rows]

    def labels(self, pool: str) -> dict[str, str]:
        """All labels by id, in the order of ids."""
        labeled = (
            "SELECT id, label FROM images WHERE pool = :pool AND state = 'labeled' ORDER BY id"
        )
        return dict(map(tuple, self._rows(pool, labeled)))

    def label_names(self, pool: str) -> set[str]:
        """The distinct labels of a pool, without ""."""
        query = "SELECT DISTINCT label FROM images WHERE pool = :pool AND state = 'labeled'"
        return {row["label"] for row in self._rows(pool, query)} - {""}

    def pending(self, pool: str, limit: int) -> list[Pending]:
        """Images that are handed out, in the order in which they expire."""
        query = (
            "SELECT id, selection, expires, score, rank FROM images WHERE pool = :pool "
            "AND state = 'pending' AND expires > :now ORDER BY expires, rank, id LIMIT :limit"
        )
        return [Pending(*row) for row in self._rows(pool, query, limit=limit)]

    def limit_expiry(self, latest: float) -> None:
        """Make images that are pending longer than until this time expire then."""
        with self._db.writing() as db:
            db.execute(
                "UPDATE images SET expires = ?1 WHERE state = 'pending' AND expires > ?1", [latest]
            )

    def reply(self, pool: str, key: str) -> StoredReply | None:
        """The reply to the request with this idempotency key."""
        query = "SELECT request, answer FROM answers WHERE pool = :pool AND key = :key"
        rows = self._rows(pool, query, key=key)
        return StoredReply(*rows[0]) if rows else None

    def label(self, pool: str, labels: Mapping[str, str]) -> int:
        """Label images, whatever their state; "" keeps an earlier label. Returns how many."""
        return self._change(pool, _LABEL, labels.items())

    def skip(self, pool: str, ids: Iterable[str]) -> int:
        """Skip images that are not labeled; returns how many were not skipped yet."""
        return self._change(pool, _SKIP, ((id,) for id in ids))

    def unlabel(self, pool: str, ids: Iterable[str]) -> int:
        """Free labeled images; returns how many were."""
        return self._change(pool, _UNLABEL, ((id,) for id in ids))

    def give_back(self, pool: str, ids: Iterable[str], selection: str = "") -> int:
        """Free pending or skipped images, or those that a selection has; returns how many."""
        return self._change(pool, _GIVE_BACK, ((id, selection) for id in ids))

    def hand_out(
        self,
        pool: str,
        selection: str,
        images: Sequence[tuple[str, float | None]],
        expires: float,
        key: str = "",
        reply: StoredReply | None = None,
    ) -> None:
        """Set images (ids and scores, best first) pending and keep the reply, or neither.

        Raises TakenError: one of them is not free any more.
        """
        with self._db.writing() as db:
            number, now = PoolTable.number(db, pool), time.time()
            rows = (
                (number, id, now, expires, selection, score, place)
                for place, (id, score) in enumerate(images, 1)
            )
            if images and db.executemany(_HAND_OUT, rows).rowcount != len(images):
                raise TakenError
            db.execute("DELETE FROM answers WHERE created < ?", [now - _REPLY_SECONDS])
            if reply is not None:
                db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", [number, key, *reply, now])

    def _rows(self, pool: str, query: str, **parameters: str | float) -> list[sqlite3.Row]:
        with self._db.reading() as db:
            given = {"pool": PoolTable.number(db, pool), "now": time.time(), **parameters}
            return db.execute(query, given).fetchall()

    def _change(self, pool: str, statement: str, rows: Iterable[tuple[str, ...]]) -> int:
        """Run a statement for each row of an id and more; returns how many images changed."""
        with self._db.writing() as db:
            number, now = PoolTable.number(db, pool), time.time()
            given = ((number, id, now, *others) for id, *others in rows)
            return db.executemany(statement, given).rowcount
