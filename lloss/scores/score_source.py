"""Where a selection reads scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from lloss.errors import ScoresError


class ScoreSource(Protocol):
    """Scores that can be read more than once; each row has an ``id``."""

    def columns(self) -> Sequence[str]:
        """Name the columns; ScoresError where the scores cannot be read."""

    def scan(
        self, columns: Sequence[str], ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read columns of all rows, or of the rows of some ids, in any order.

        ScoresError where the scores cannot be read or lack a column.
        """


def ids_of(source: ScoreSource) -> Iterator[str]:
    """Yield the ids of all rows."""
    for batch in source.scan(["id"]):
        yield from batch["id"].to_pylist()


@dataclass(frozen=True, slots=True)
class TableScores:
    """A table in memory as a :class:`ScoreSource`."""

    table: pa.Table

    def columns(self) -> Sequence[str]:
        """Name the table's columns."""
        names: list[str] = self.table.schema.names
        return names

    def scan(
        self, columns: Sequence[str], ids: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Read from the table."""
        has = self.table.schema.names
        if missing := [name for name in columns if name not in has]:
            raise ScoresError(
                f"the scores have no column {missing[0]!r} (they have {', '.join(has)})"
            )
        table = self.table.select(list(columns))
        if ids is not None:
            table = table.filter(pc.is_in(table["id"], pa.array(ids, table["id"].type)))
        yield from table.to_batches()
