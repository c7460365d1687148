from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Lock

import pyarrow as pa
import pytest

from lloss.scores.score_source import BatchRows, Piece, Rows, TableScores, visit


class _Pieces:
    """Piece n holds n rows, a batch each; opening one may fail."""

    def __init__(self, count: int, broken: int = -1) -> None:
        self.count, self.broken = count, broken
        self.opened: list[int] = []

    def pieces(self) -> Iterator[Piece]:
        for number in range(self.count):
            yield partial(self._rows, number)

    def _rows(self, number: int) -> Iterator[Rows]:
        self.opened.append(number)
        if number == self.broken:
            raise ValueError("broken")
        for place in range(number):
            yield BatchRows(pa.record_batch({"id": [f"{number}/{place}"]}))


def _seen(source: _Pieces, only: dict[int, list[int]] | None = None) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    lock = Lock()

    def use(piece: int, place: int, rows: Rows) -> None:
        with lock:
            assert (piece, place) not in found
            found[piece, place] = rows.read("id")[0][0].as_py()

    visit(source, use, only)
    return found


def test_every_row_is_seen_once_under_its_number() -> None:
    found = _seen(_Pieces(40))
    assert found == {(n, place): f"{n}/{place}" for n in range(40) for place in range(n)}


def test_only_the_wanted_pieces_are_opened() -> None:
    source = _Pieces(40)
    assert _seen(source, {3: [0, 2], 39: [5]}) == {(3, 0): "3/0", (3, 2): "3/2", (39, 5): "39/5"}
    assert sorted(source.opened) == [3, 39]


def test_an_error_in_a_thread_stops_all_and_is_raised() -> None:
    source = _Pieces(5000, broken=2)
    with pytest.raises(ValueError, match="broken"):
        _seen(source)
    assert len(source.opened) < 5000


def test_a_table_is_one_piece_that_can_be_read_again() -> None:
    table = pa.table({"id": ["a", "b"], "loss": [1.0, 2.0]})
    source = TableScores(pa.concat_tables([table, table]))
    (piece,) = source.pieces()
    for _ in range(2):
        read = [rows.read("loss", "id") for rows in piece()]
        assert [ids.to_pylist() for _, ids in read] == [["a", "b"]] * 2
