from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from lloss.data import near_copies as module
from lloss.data.near_copies import (
    ALIKE,
    CELL,
    EVEN,
    REACH,
    SIDE,
    groups_of,
    middles_of,
    near_copies,
    prints_of,
)
from lloss.pools import Item
from lloss.simulation.image_variants import variant_of


def scene(seed: int, side: int = 64) -> np.ndarray:
    """An image of some blobs of colour, none near black or white, uint8 [side, side, 3]."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(40, 200, (4, 4, 3), np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def item_of(pixels: np.ndarray, name: str = "image.png") -> Item:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Item(name, file.getvalue)


def _correlates(later: np.ndarray, earlier: np.ndarray) -> bool:
    """The rule, written out for one pair."""
    inner = SIDE - 2 * REACH

    def part(image: np.ndarray, top: int, left: int) -> np.ndarray:
        cut = image[top : top + inner, left : left + inner].astype(float)
        rows = range(0, inner, CELL)
        cells = [cut[r : r + CELL, c : c + CELL].mean((0, 1)) for r in rows for c in rows]
        return (np.array(cells) - np.mean(cells, 0)).ravel()

    middle, places = part(earlier, REACH, REACH), range(2 * REACH + 1)
    parts = [part(later, top, left) for top in places for left in places]
    if middle.std() <= EVEN:
        return False
    return any(each.std() > EVEN and np.corrcoef(each, middle)[0, 1] >= ALIKE for each in parts)


def _linked(prints: Sequence[np.ndarray]) -> list[int]:
    """The first image of each one's group, by going from image to image."""
    near = {
        (later, earlier)
        for later in range(len(prints))
        for earlier in range(later)
        if _correlates(prints[later], prints[earlier])
    }
    first = list(range(len(prints)))
    for _ in prints:
        for one, other in near:
            first[one] = first[other] = min(first[one], first[other])
    return first


def test_jitters_of_an_image_are_one_group_and_other_images_are_not() -> None:
    images = [item_of(scene(seed)) for seed in range(6)]
    items = [variant_of(item, variant, True) for variant in (0, 1, 2) for item in images]
    prints = prints_of(items)
    found = groups_of(prints)
    assert found.first.tolist() == _linked(list(prints))
    assert found.first.tolist() == 3 * list(range(6)) and found.copies == 12
    assert str(found) == (
        "12 of 18 labeled images are near-duplicates of others: held out together with these"
    )


def test_images_that_are_like_a_copy_are_of_its_group() -> None:
    """A camera that moves: the last image is not like the first one."""
    wide = np.concatenate([scene(1), scene(2)], 1)
    shift = 64 * REACH // SIDE
    frames = [wide[:, shift * step : shift * step + 64] for step in range(4)]
    others = [scene(seed) for seed in range(10, 16)]
    prints = prints_of([item_of(pixels) for pixels in [*frames, *others]])
    assert not _correlates(prints[3], prints[0])
    assert groups_of(prints).first.tolist() == [0, 0, 0, 0, *range(4, 10)]


def test_even_and_unreadable_images_are_like_none() -> None:
    even = [item_of(np.full((20, 20, 3), level, np.uint8)) for level in (90, 90, 200)]
    even.append(item_of(np.full((20, 20, 3), (200, 0, 0), np.uint8)))
    broken = [Item(name, lambda: b"no image") for name in "ab"]
    found = groups_of(prints_of([*even, *broken]))
    assert found.first.tolist() == [0, 1, 2, 3, 4, 5] and str(found) == ""


def test_images_of_a_fixed_camera_are_groups_of_their_own() -> None:
    alike = [variant_of(item_of(scene(0)), variant, True) for variant in range(6)]
    found = groups_of(prints_of([*alike, *(item_of(scene(seed)) for seed in range(1, 6))]))
    assert found.first.tolist() == list(range(11)) and found.copies == 0
    assert str(found).startswith("6 of 11 labeled images are near-duplicates of each other, so")


def test_too_many_images_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    items = [item_of(scene(seed // 2)) for seed in range(4)]
    found = groups_of(prints_of(items))
    assert found.first.tolist() == [0, 1, 2, 3] and "more than 3 images" in str(found)
    assert groups_of(prints_of(items[:3])).first.tolist() == [0, 0, 2]


def test_images_to_measure_on_that_are_like_trained_ones_are_counted() -> None:
    trained = [item_of(scene(seed)) for seed in range(5)]
    measured = [variant_of(trained[0], 1, True), variant_of(trained[3], 2, True)]
    measured += [item_of(scene(seed)) for seed in range(20, 25)]
    assert near_copies(measured, middles_of(trained)) == {"near_copies": 2, "near_copies_of": 7}
    assert near_copies(measured, middles_of([])) == {"near_copies": 0, "near_copies_of": 7}
