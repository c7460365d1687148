from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lloss.selection import excluded_ids as exclusion
from lloss.selection.excluded_ids import ExcludedIds
from lloss.selection.hashing import draw_hashes


@pytest.mark.parametrize("count", [0, 1, 17, 3000])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_the_mask_is_membership(count: int, kind: pa.DataType) -> None:
    random = np.random.default_rng(count)
    ids = [f"ü/{n}" for n in random.integers(0, 5000, 2000)]
    names = [f"ü/{n}" for n in random.permutation(5000)[:count]]
    rows = pa.array(ids, kind)
    found = ExcludedIds(set(names), 3).mask(rows, draw_hashes(rows, 3))
    assert found.tolist() == [id in set(names) for id in ids]


def test_ids_of_one_hash_are_told_apart_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(ids: pa.Array, seed: int) -> NDArray[np.uint64]:
        return np.full(len(ids), 5, np.uint64)

    monkeypatch.setattr(exclusion, "draw_hashes", same)
    excluded = ExcludedIds(["a", "b", "c"], 0)
    rows = pa.array(["c", "x", "a", "b", "", "cc"])
    assert excluded.mask(rows, same(rows, 0)).tolist() == [True, False, True, True, False, False]


def test_ids_that_no_column_can_hold_exclude_nothing() -> None:
    rows = pa.array(["a", "b"])
    excluded = ExcludedIds(["bad \udcff", "b"], 0)
    assert excluded.mask(rows, draw_hashes(rows, 0)).tolist() == [False, True]


def test_ids_that_no_row_had_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pa.array(["b", "x", "b"]), pa.array(["c"])]
    excluded = ExcludedIds(["a", "b", "c"], 0)
    assert excluded.absent == 3
    for some in rows:
        excluded.mask(some, draw_hashes(some, 0))
    assert excluded.absent == 1

    def same(ids: pa.Array, seed: int) -> NDArray[np.uint64]:
        return np.full(len(ids), 5, np.uint64)

    monkeypatch.setattr(exclusion, "draw_hashes", same)
    alike = ExcludedIds(["a", "b", "c"], 0)
    alike.mask(rows[0], same(rows[0], 0))
    assert alike.absent == 2
