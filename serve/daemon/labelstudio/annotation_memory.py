"""Annotations that the webhook told of, since a deleted one is told by its number alone."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lloss.serve.daemon.labelstudio.json_export import Age


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
    """What all annotations of an image together say: labeled (then how), skipped, or neither.

    ``disputed`` is whether they give it different classes.
    """

    pool: str
    id: str
    label: str | None
    skipped: bool = False
    disputed: bool = False


class Annotations:
    """The notes of them, in a transaction of the catalog's."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._connection = db

    def write(self, annotations: Iterable[Annotation]) -> None:
        """Note annotations that were made or changed; what is older than what is known is not."""
        self._connection.executemany(
            "INSERT INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "pool=excluded.pool, id=excluded.id, label=excluded.label, "
            "cancelled=excluded.cancelled, changed=excluded.changed "
            "WHERE excluded.changed >= annotations.changed",
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
                "SELECT pool, id FROM annotations WHERE project = ? AND number = ? AND id != ''",
                (project, number),
            )
            places.update(((pool, id), None) for pool, id in found)
        return list(places)

    def delete(self, project: str, numbers: Sequence[int]) -> None:
        """Forget of which images annotations were; what comes of them later came too late.

        Events may overtake each other, and Label Studio never uses a number twice.
        """
        self._connection.executemany(
            "INSERT INTO annotations VALUES (?, ?, '', '', '', 0, ?) ON CONFLICT DO UPDATE SET "
            "pool='', id='', label='', cancelled=0, changed=excluded.changed",
            [(project, number, math.inf) for number in numbers],
        )

    def verdict(self, pool: str, id: str) -> Verdict:
        """What is known of an image: its newest annotation that is no skip counts."""
        rows = self._connection.execute(
            "SELECT cancelled, label FROM annotations WHERE pool = ? AND id = ? "
            "ORDER BY cancelled, changed DESC, number DESC",
            (pool, id),
        ).fetchall()
        if not rows:
            return Verdict(pool, id, None)
        cancelled, label = rows[0]
        disputed = len({name for skip, name in rows if name and not skip}) > 1
        return Verdict(pool, id, None if cancelled else label, bool(cancelled), disputed)
