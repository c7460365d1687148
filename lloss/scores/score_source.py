"""Where a selection reads scores: in pieces, and in them only the columns that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event, Lock
from typing import Protocol, TypeAlias, runtime_checkable

import pyarrow as pa

from lloss.errors import ScoresError


class Rows(Protocol):
    """Some consecutive rows of a source."""

    def read(self, *columns: str) -> list[pa.Array]:
        """Columns of these rows, read now.

        Raises:
            ScoresError: there is no such column, or it cannot be read.
        """


Piece: TypeAlias = Callable[[], Iterator[Rows]]
"""A part of a source. Called, it gives its rows, the same in the same order every time."""


class ScoreSource(Protocol):
    """Scores that can be read more than once; ``id`` is one of every source's columns."""

    def pieces(self) -> Iterator[Piece]:
        """The pieces, the same in the same order every time; several may be read at once."""


@runtime_checkable
class ScannedSource(Protocol):
    """Scores that can also be gone through without a note of where each row lies.

    With many small parts that is the faster way: nothing is opened, or waits for the
    interpreter's lock, part by part.
    """

    def scan(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, with these columns, in any order."""


@dataclass(frozen=True, slots=True)
class TableScores:
    """Scores at hand, as a :class:`ScoreSource`."""

    table: pa.Table

    def pieces(self) -> Iterator[Piece]:
        """See :class:`ScoreSource`: the whole table is one piece."""
        yield lambda: map(BatchRows, self.table.to_batches())


@dataclass(frozen=True, slots=True)
class BatchRows:
    """A record batch, as :class:`Rows`."""

    batch: pa.RecordBatch

    def read(self, *columns: str) -> list[pa.Array]:
        """See :class:`Rows`."""
        names = self.batch.schema.names
        for name in columns:
            if name not in names:
                has = ", ".join(names)
                raise ScoresError(f"the scores have no column {name!r} (they have {has})")
        return [self.batch.column(name) for name in columns]


def visit(
    source: ScoreSource,
    use: Callable[[int, int, Rows], None],
    only: Mapping[int, Iterable[int]] | None = None,
) -> None:
    """Read a source with as many threads as pyarrow uses (``pyarrow.cpu_count()``).

    Args:
        source: of the rows.
        use: called with the number of a piece, the number of the rows in it, and the rows; from
            several threads, in no order.
        only: numbers of the pieces, and of the rows in each, that are wanted; all by default.
            Other pieces are not opened.
    """

    pieces = (
        (number, piece)
        for number, piece in enumerate(source.pieces())
        if only is None or number in only
    )
    lock = Lock()
    stopped = Event()

    def work() -> None:
        # Threads fetch their pieces themselves: to be handed them costs a switch each.
        try:
            while not stopped.is_set():
                with lock:
                    number, piece = next(pieces, (-1, None))
                if piece is None:
                    return
                wanted = None if only is None else frozenset(only[number])
                for place, rows in enumerate(piece()):
                    if wanted is None or place in wanted:
                        use(number, place, rows)
        except BaseException:
            stopped.set()
            raise

    workers = pa.cpu_count()
    with ThreadPoolExecutor(workers, "lloss-select") as threads:
        try:
            for done in [threads.submit(work) for _ in range(workers)]:
                done.result()
        finally:
            stopped.set()
