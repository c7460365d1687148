"""What is known of images: who has them, which are labeled, which are never to be shown."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.store.database import Database
from lloss.serve.daemon.store.lookup import pool_row
from lloss.serve.daemon.store.records import Counts, ImageRow, ImageState, Pending

from lloss.text.clean_names import is_text

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

_ANSWER_SECONDS = 7 * 24 * 3600.0
"""How long an answer to a request with a key is kept."""

_TAKEN = "(state IN ('labeled', 'skipped') OR (state = 'pending' AND expires > ?))"

_STATE = "iif(state = 'pending' AND expires <= ?, 'free', state)"

_HAND_OUT = (
    "INSERT INTO images (pool, id, state, changed, expires, selection, score, rank) "
    "VALUES (?1, ?2, 'pending', ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO UPDATE SET "
    "state = 'pending', changed = ?3, expires = ?4, selection = ?5, score = ?6, rank = ?7 "
    "WHERE state = 'free' OR (state = 'pending' AND expires <= ?3)"
)


@dataclass(frozen=True)
class Answer:
    """What was answered to a request with a key.

    Attributes:
        request: digest of what was asked for.
        content: the answer, as it was given to :meth:`ImageTable.hand_out`.
    """

    request: str
    content: bytes


class TakenError(Exception):
    """An image was labeled, skipped or handed out since it was chosen."""


class ImageTable:
    """The states of the images of all pools; pools are given by name.

    All methods raise :class:`RequestError` 404 for a pool that is not there. Ids that are no text
    (half of a surrogate pair) are in no pool.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._versions: defaultdict[int, int] = defaultdict(int)
        self._lock = threading.Lock()

    def counts(self, pool: str) -> Counts:
        """How many are what."""
        with self._db.reading() as db:
            number = pool_row(db, pool)["number"]
            found = db.execute(
                "SELECT state, count(*) FROM images WHERE pool = ? AND state != 'free' "
                "AND (state != 'pending' OR expires > ?) GROUP BY state",
                [number, self._db.now()],
            )
            counted = dict(found.fetchall())
        names = ("labeled", "pending", "skipped")
        return Counts(**{name: counted.get(name, 0) for name in names})

    def version(self, pool: str) -> tuple[int, int]:
        """What changes whenever an image becomes free; expiry aside. Of this process."""
        with self._db.reading() as db:
            number: int = pool_row(db, pool)["number"]
        with self._lock:
            return number, self._versions[number]

    def taken(self, pool: str) -> set[str]:
        """The ids that must not be handed out now: labeled, pending or skipped."""
        with self._db.reading() as db:
            found = db.execute(
                f"SELECT id FROM images WHERE pool = ? AND {_TAKEN}",
                [pool_row(db, pool)["number"], self._db.now()],
            )
            return {row[0] for row in found}

    def taken_of(self, pool: str, ids: Iterable[str]) -> set[str]:
        """Those of some ids that must not be handed out now."""
        now = self._db.now()
        return {row["id"] for row in self._of(pool, ids, "id", f"AND {_TAKEN}", after=[now])}

    def known(self, pool: str, ids: Iterable[str]) -> set[str]:
        """Those of some ids that are known to be of the pool, since they once had a state."""
        return {row["id"] for row in self._of(pool, ids, "id")}

    def states(self, pool: str, ids: Iterable[str]) -> dict[str, ImageRow]:
        """What is known of some ids; those that never had a state are left out."""
        columns = f"id, {_STATE} AS state, label, selection"
        rows = self._of(pool, ids, columns, before=[self._db.now()])
        return {row["id"]: _image(row) for row in rows}

    def listed(
        self, pool: str, state: ImageState, offset: int, limit: int
    ) -> list[tuple[str, ImageRow]]:
        """Images of a state other than free, by id."""
        with self._db.reading() as db:
            found = db.execute(
                "SELECT id, state, label, selection FROM images WHERE pool = ? AND state = ? "
                f"AND {_STATE} = state ORDER BY id LIMIT ? OFFSET ?",
                [pool_row(db, pool)["number"], state, self._db.now(), limit, offset],
            )
            return [(row["id"], _image(row)) for row in found]

    def _of(
        self,
        pool: str,
        ids: Iterable[str],
        columns: str,
        also: str = "",
        before: Sequence[float] = (),
        after: Sequence[float] = (),
    ) -> list[sqlite3.Row]:
        """Columns of some ids; what is ``before`` and ``after`` them are the parameters of both."""
        found: list[sqlite3.Row] = []
        with self._db.reading() as db:
            number = pool_row(db, pool)["number"]
            wanted = list(filter(is_text, ids))
            for start in range(0, len(wanted), AT_ONCE):
                some = wanted[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = db.execute(
                    f"SELECT {columns} FROM images WHERE pool = ? AND id IN ({marks}) {also}",
                    [*before, number, *some, *after],
                )
                found += rows.fetchall()
        return found

    def labels(self, pool: str) -> dict[str, str]:
        """All labels by id, in the order of ids."""
        with self._db.reading() as db:
            found = db.execute(
                "SELECT id, label FROM images WHERE pool = ? AND state = 'labeled' ORDER BY id",
                [pool_row(db, pool)["number"]],
            )
            return {row["id"]: row["label"] for row in found}

    def pending(self, pool: str, limit: int) -> list[Pending]:
        """Images that somebody has, those that become free first at the head."""
        with self._db.reading() as db:
            found = db.execute(
                "SELECT id, selection, expires, score, rank FROM images WHERE pool = ? "
                "AND state = 'pending' AND expires > ? ORDER BY expires, rank, id LIMIT ?",
                [pool_row(db, pool)["number"], self._db.now(), limit],
            )
            return [Pending(**row) for row in found]

    def known_labels(self, pool: str) -> set[str]:
        """The labels that images of a pool have, without ""."""
        with self._db.reading() as db:
            found = db.execute(
                "SELECT DISTINCT label FROM images WHERE pool = ? AND state = 'labeled'",
                [pool_row(db, pool)["number"]],
            )
            return {row[0] for row in found} - {""}

    @contextlib.contextmanager
    def marking(self) -> Iterator[Marks]:
        """Mark images: all that the block does stays, or nothing of it."""
        with self._db.writing() as db:
            marks = Marks(db, self._db.now())
            yield marks
        with self._lock:
            for number in marks.freed:
                self._versions[number] += 1

    def label(self, pool: str, labels: Mapping[str, str]) -> int:
        """See :meth:`Marks.label`."""
        with self.marking() as marks:
            return marks.label(pool, labels)

    def skip(self, pool: str, ids: Iterable[str]) -> int:
        """See :meth:`Marks.skip`."""
        with self.marking() as marks:
            return marks.skip(pool, ids)

    def unlabel(self, pool: str, ids: Iterable[str]) -> int:
        """See :meth:`Marks.unlabel`."""
        with self.marking() as marks:
            return marks.unlabel(pool, ids)

    def answer(self, pool: str, key: str) -> Answer | None:
        """What was answered to the request with this key."""
        with self._db.reading() as db:
            row = db.execute(
                "SELECT request, answer FROM answers WHERE pool = ? AND key = ?",
                [pool_row(db, pool)["number"], key],
            ).fetchone()
            return None if row is None else Answer(row["request"], row["answer"])

    def hand_out(
        self,
        pool: str,
        selection: str,
        images: Sequence[tuple[str, float | None]],
        expires: float,
        key: str = "",
        answer: Answer | None = None,
        rank: int = 1,
    ) -> None:
        """Note images as pending and the answer to a request with a key, both or neither.

        Args:
            pool: its name.
            selection: its id.
            images: ids and scores, best first.
            expires: when they are free again.
            key: of the request; "" for none.
            answer: to keep under that key.
            rank: of the first image; the others follow.

        Raises:
            TakenError: one of them is not free any more.
            RequestError: 409 another request had the key just now.
        """
        with self._db.writing() as db:
            number, now = pool_row(db, pool)["number"], self._db.now()
            before = db.total_changes
            rows = (
                (number, id, now, expires, selection, score, place)
                for place, (id, score) in enumerate(images, rank)
            )
            db.executemany(_HAND_OUT, rows)
            if db.total_changes - before != len(images):
                raise TakenError
            db.execute("DELETE FROM answers WHERE created < ?", [now - _ANSWER_SECONDS])
            if answer is not None:
                self._keep(db, number, key, answer, now)

    def _keep(
        self, db: sqlite3.Connection, number: int, key: str, answer: Answer, now: float
    ) -> None:
        try:
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?)",
                [number, key, answer.request, answer.content, now],
            )
        except sqlite3.IntegrityError as error:
            raise RequestError(409, f"the key {key!r} is in use just now; try again", 1) from error

    def forget(self, number: int) -> None:
        """A pool is gone."""
        with self._lock:
            self._versions.pop(number, None)


def _image(row: sqlite3.Row) -> ImageRow:
    return ImageRow(row["state"], row["label"], row["selection"])


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
        wanted = list(filter(is_text, ids))
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
            ((number, row[0], self._now, *row[1:]) for row in rows if all(map(is_text, row))),
        )
        changed = self.db.total_changes - before
        if frees and changed:
            self.freed.add(number)
        return changed
