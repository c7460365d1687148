"""Images by id: found by one walk, kept within bounds."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lloss.serve.daemon.services.pool_registry import Pools

from lloss.pools import Pool


def test_many_images_take_one_walk_and_none_the_next_time(
    pools: Pools, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"cats/{name}" for name in ("a.png", "b.png", "sub/c.png")]
    (root / "list.txt").write_text("\n".join(names))
    pools.put("list", str(root / "list.txt"))
    pool, walks = pools.get("list").open(), 0
    walk = type(pool).__iter__

    def counted(self: Pool) -> Any:
        nonlocal walks
        walks += 1
        return walk(self)

    monkeypatch.setattr(type(pool), "__iter__", counted)
    threads = [threading.Thread(target=pools.get("list").items, args=(names,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert walks == 1
    assert list(pools.get("list").items(["none", *reversed(names)])) == names[::-1]
    before = walks
    assert pools.get("list").items(["none"]) == {} and walks == before


@pytest.mark.parametrize("size", [10_000, 1000])
def test_items_that_carry_their_bytes_are_bounded(
    pools: Pools, root: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    import pyarrow.parquet as pq
    from lloss.serve.daemon.services import lazy_pool as found

    monkeypatch.setattr(found, "_MAX_BYTES", 5 * size)
    table = pa.table({"id": [str(n) for n in range(20)], "image": [bytes(size)] * 20})
    pq.write_table(table, root / "t.parquet")
    pools.put("t", str(root / "t.parquet"))
    assert len(pools.get("t").items(map(str, range(20)))) == 20
    kept = pools.get("t")
    assert len(kept._items) == 5 and kept._bytes == 5 * size


@pytest.mark.parametrize("kind", ["table", "array", "folder", "list"])
def test_whether_the_pool_has_ids_is_told_without_their_images(
    pools: Pools, root: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import pyarrow.parquet as pq

    from lloss.pools.table import TablePool

    table = pa.table({"id": [f"t{n}" for n in range(20)], "image": [bytes(10)] * 20})
    pq.write_table(table, root / "t.parquet")
    np.save(root / "a.npy", np.zeros((5, 2, 2, 3), np.uint8))
    (root / "list.txt").write_text("cats/a.png\ncats/b.png")
    uri, has = {
        "table": ("t.parquet", ["t3", "t19"]),
        "array": ("a.npy", ["0", "4"]),
        "folder": ("cats", ["a.png", "sub/c.png"]),
        "list": ("list.txt", ["cats/b.png"]),
    }[kind]
    pools.put("p", str(root / uri))
    monkeypatch.setattr(TablePool, "find", None)
    assert pools.get("p").existing_ids([*has, "none", "../a.png", "\0"]) == set(has)
    assert pools.get("p").existing_ids(["none"]) == set()
    kept = pools.get("p")
    assert not kept._items and "none" in kept._missing
