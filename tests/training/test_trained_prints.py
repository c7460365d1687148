"""Prints kept beside a checkpoint: those of the images, decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lloss.data.near_copies import SIDE, middles_of
from lloss.pools import Item
from lloss.training import trained_prints
from lloss.training.trained_prints import PRINTS, add_prints, keep_prints, read_prints

from ..data.test_near_copies import item_of, scene


def _items(numbers: range) -> list[Item]:
    return [item_of(scene(number), f"{number}.png") for number in numbers]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_what_is_kept_is_what_decoding_gives(tmp_path: Path) -> None:
    items = _items(range(5))
    keep_prints(tmp_path, items)
    kept = read_prints(tmp_path)
    assert kept is not None and np.array_equal(kept, middles_of(items))
    assert kept.dtype == np.float16 and kept.shape == (5, 192)
    assert (tmp_path / PRINTS).stat().st_size < 5 * 500 + 1000
    assert kept.size < SIDE * SIDE * 3 * 5 / 4
    products = kept.astype(float) @ kept.T.astype(float)
    assert np.allclose(np.diag(products), 1, atol=2e-3)


def test_images_that_a_run_before_has_are_not_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _folder(tmp_path / "1"), _folder(tmp_path / "2")
    items = _items(range(8))
    keep_prints(first, items[:5])
    changed = item_of(scene(99), "3.png")  # another image under the same id
    now = [items[6], items[4], items[0], changed, items[2]]
    decoded, small = list[str](), trained_prints.middles_of

    def counted(some: list[Item]) -> np.ndarray:
        decoded.extend(item.id for item in some)
        return small(some)

    monkeypatch.setattr(trained_prints, "middles_of", counted)
    keep_prints(second, now, first)
    assert decoded == ["6.png", "3.png"]
    kept = read_prints(second)
    assert kept is not None and np.array_equal(kept, middles_of(now))


def test_other_files_of_equal_middles_are_decoded(tmp_path: Path) -> None:
    """A trace is of a file's middle: arrays that differ elsewhere have the same one."""
    one, other = scene(1, 128).copy(), scene(1, 128).copy()
    other[:32] = scene(2, 128)[:32]
    items = [
        Item(name, lambda pixels=pixels: pixels) for name, pixels in (("a", one), ("b", other))
    ]
    keep_prints(_folder(tmp_path / "1"), items[:1])
    keep_prints(_folder(tmp_path / "2"), items[1:], tmp_path / "1")
    kept = read_prints(tmp_path / "2")
    assert kept is not None and np.array_equal(kept, middles_of(items[1:]))


def test_a_warm_start_has_seen_its_images_too(tmp_path: Path) -> None:
    first, second = _folder(tmp_path / "1"), _folder(tmp_path / "2")
    items = _items(range(6))
    keep_prints(first, items[:4])
    keep_prints(second, items[2:])
    add_prints(second, first)
    kept = read_prints(second)
    assert kept is not None and np.array_equal(kept, middles_of([*items[2:], *items[:2]]))
    add_prints(second, tmp_path / "without")
    assert np.array_equal(read_prints(second), kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no archive"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / PRINTS).write_bytes(content)
    assert read_prints(tmp_path) is None
    keep_prints(tmp_path, _items(range(2)), tmp_path)
    assert read_prints(tmp_path) is not None
