"""Images by id: found by one walk, and cached within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lloss.serve.daemon.services import lazy_pool
from lloss.serve.daemon.services.lazy_pool import LazyPool

from lloss.pools import Pool, open_pool
from lloss.pools.table_pool import TablePool

from .conftest import in_threads


@pytest.fixture
def files(root: Path) -> Path:
    """A root with a list, a table, an array and a folder."""
    (root / "list.txt").write_text("cats/a.png\ncats/b.png\ncats/sub/c.png")
    table = pa.table({"id": [f"t{n}" for n in range(20)], "image": [bytes(1000)] * 20})
    pq.write_table(table, root / "t.parquet")
    np.save(root / "a.npy", np.zeros((5, 2, 2, 3), np.uint8))
    return root


def test_many_images_take_one_walk_and_none_the_next_time(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, walks = LazyPool(str(files / "list.txt"), open_pool), list[int]()
    walk = type(pool.open()).__iter__
    monkeypatch.setattr(type(pool.open()), "__iter__", lambda self: walks.append(1) or walk(self))  # type: ignore[func-returns-value]
    names = list(pool.open().ids())
    in_threads(lambda _: pool.items(names), 4)
    assert len(walks) == 1
    assert list(pool.items(["none", *reversed(names)])) == names[::-1]


@pytest.mark.parametrize("most", [5000, 500])
def test_cached_images_are_bounded(files: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(lazy_pool, "_MAX_BYTES", most)
    pool = LazyPool(str(files / "t.parquet"), open_pool)
    assert len(pool.items(f"t{n}" for n in range(20))) == 20
    assert len(pool._items) == max(1, most // 1100)


@pytest.mark.parametrize(
    ("uri", "ids"),
    [
        ("t.parquet", ["t3", "t19"]),
        ("a.npy", ["0", "4"]),
        ("cats", ["a.png", "sub/c.png"]),
        ("list.txt", ["cats/b.png"]),
    ],
)
def test_existing_ids_are_found_without_images(
    files: Path, monkeypatch: pytest.MonkeyPatch, uri: str, ids: list[str]
) -> None:
    monkeypatch.setattr(TablePool, "find", None)
    pool: Any = LazyPool(str(files / uri), open_pool)
    assert isinstance(pool.open(), Pool)
    assert pool.existing_ids([*ids, "none", "../a.png", "\0"]) == set(ids)
    assert pool.existing_ids(["none"]) == set()
    assert not pool._items
