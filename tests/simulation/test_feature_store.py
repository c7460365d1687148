from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lloss.errors import LlossError
from lloss.simulation import feature_store
from lloss.simulation.feature_store import FeatureStore
from lloss.simulation.results import SimulationError

KEYS = ["a", "b", "c", "b", "d", "e"]


class _Compute:
    """Features that say which key they are of; fails at some place."""

    def __init__(self, keys: Sequence[str], fail_at: int = -1) -> None:
        self.keys, self.fail_at, self.places = keys, fail_at, list[int]()

    def __call__(self, places: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        for place in places:
            if place == self.fail_at:
                raise KeyboardInterrupt
            self.places.append(place)
            yield np.full((1, 2), ord(self.keys[place]), np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "BLOCK", 2)


def _read(store: FeatureStore, keys: Sequence[str]) -> list[str]:
    return [chr(int(row[0])) for row in store.rows(keys)]


def test_each_key_is_computed_once_and_read_in_any_order(tmp_path: Path) -> None:
    compute = _Compute(KEYS)
    FeatureStore(tmp_path).fill(KEYS, compute)
    assert compute.places == [0, 1, 2, 4, 5]
    store = FeatureStore(tmp_path)
    assert store.missing(KEYS) == []
    assert _read(store, ["e", "a", "a", "d"]) == ["e", "a", "a", "d"]
    assert store.rows(["a"]).dtype == np.float32


def test_an_interruption_loses_a_block_at_most_and_more_keys_are_added(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        FeatureStore(tmp_path).fill(KEYS, _Compute(KEYS, fail_at=5))
    assert FeatureStore(tmp_path).missing(KEYS) == [5]
    compute = _Compute([*KEYS, "z"])
    FeatureStore(tmp_path).fill([*KEYS, "z"], compute)
    assert compute.places == [5, 6]
    assert _read(FeatureStore(tmp_path), ["z", "c"]) == ["z", "c"]


def test_what_another_process_added_is_not_computed_again(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    FeatureStore(tmp_path).fill(KEYS, _Compute(KEYS))
    compute = _Compute(KEYS)
    store.fill(KEYS, compute)
    assert compute.places == [] and _read(store, ["d"]) == ["d"]


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_damaged_blocks_are_said(tmp_path: Path, suffix: str) -> None:
    FeatureStore(tmp_path).fill(KEYS, _Compute(KEYS))
    (tmp_path / f"block-00001{suffix}").write_text("[", encoding="utf-8")
    with pytest.raises(SimulationError, match="is damaged; remove the folder"):
        FeatureStore(tmp_path).rows(KEYS)


def test_a_full_disk_is_named_and_leaves_no_block(disk: Path) -> None:
    store, rows = FeatureStore(disk / "features"), np.ones((2, 1 << 20), np.float32)
    free = shutil.disk_usage(disk).free - rows.nbytes // 2  # so that a part of them can be written
    (disk / "ballast").write_bytes(bytes(free))
    with pytest.raises(LlossError, match=r"block-00000\.npy: the disk is full; free some space"):
        store.fill(["a", "b"], lambda _: iter([rows]))
    assert not (disk / "features").exists()
    (disk / "ballast").unlink()
    store.fill(["a", "b"], lambda _: iter([rows]))
    assert np.array_equal(FeatureStore(disk / "features").rows(["b", "a"]), rows)
