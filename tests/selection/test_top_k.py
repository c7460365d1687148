from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from lloss.selection.top_k import Best, Found


def _found(ids: list[str]) -> Found:
    places = np.tile(np.arange(len(ids))[:, None], 3)
    return Found(pa.array(ids, pa.string()), np.zeros(len(ids)), places)


@pytest.mark.parametrize("kind", [np.float64, np.uint64])
@pytest.mark.parametrize("kinds_of_keys", [1, 3, 10_000])
@pytest.mark.parametrize("limit", [1, 30, 700, 5000])
def test_the_best_are_those_of_a_sort(kind: type, kinds_of_keys: int, limit: int) -> None:
    random = np.random.default_rng(0)
    keys = random.integers(0, kinds_of_keys, 4000).astype(kind)
    ids = [f"{n:x}" for n in random.permutation(4000)]
    best = Best(limit)
    for start in range(0, 4000, 333):
        some = slice(start, start + 333)
        admitted = np.flatnonzero(best.admits(keys[some]))
        best.add(keys[some][admitted], _found(ids[some]).take(admitted))
        assert best._held <= 2 * limit + 256 + 333
    expected = sorted(zip(keys.tolist(), ids, strict=True))[:limit]
    assert best.rows().ids.to_pylist() == [id for _, id in expected]


def test_what_cannot_be_among_the_best_is_not_admitted() -> None:
    best = Best(2)
    assert best.admits(np.array([9.0])).tolist() == [True]
    best.add(np.array([3.0, 1.0, 2.0]), _found(["a", "b", "c"]))
    assert best.rows().ids.to_pylist() == ["b", "c"]
    assert best.admits(np.array([1.0, 2.0, 2.5])).tolist() == [True, True, False]


def test_places_stay_with_their_rows() -> None:
    best = Best(2)
    best.add(np.array([3.0, 1.0, 2.0]), _found(["a", "b", "c"]))
    assert best.rows().places.tolist() == [[1, 1, 1], [2, 2, 2]]


def test_nothing_added_is_nothing() -> None:
    assert len(Best(3).rows()) == 0
