"""The draw of images: seeded, disjoint, large enough or refused."""

from __future__ import annotations

import numpy as np
import pytest
from lloss.export.pool_sample import batches, draw_sample

from lloss.errors import PoolError, SettingsError
from lloss.images.decode import ImageSpec, decode
from lloss.pools import Item
from lloss.pools.arrays import ArrayPool

IMAGES = np.random.default_rng(0).integers(0, 256, (600, 4, 4, 3), np.uint8)


def pool(count: int) -> ArrayPool:
    return ArrayPool(IMAGES[:count], "images.npy")


def ids(items: object) -> list[str]:
    return [item.id for item in items]  # type: ignore[attr-defined]


def test_parts_are_disjoint_and_the_seeds() -> None:
    sample = draw_sample(pool(600), held_out=250, calibration=50, seed=3)
    parts = [
        ids(part) for part in (sample.held_out, sample.tuning, sample.calibration, sample.spare)
    ]
    assert [len(part) for part in parts] == [250, 250, 50, 50]
    assert len({id for part in parts for id in part}) == 600
    again = draw_sample(pool(600), held_out=250, calibration=50, seed=3)
    assert ids(again.held_out) == parts[0]
    other = draw_sample(pool(600), held_out=250, calibration=50, seed=4)
    assert ids(other.held_out) != parts[0]


def test_a_small_pool_is_shared_out() -> None:
    for count, judged, calibrating in [(600, 265, 70), (450, 200, 50), (401, 200, 1)]:
        sample = draw_sample(pool(count), held_out=2000, calibration=512)
        assert len(sample.held_out) == len(sample.tuning) == judged
        assert len(sample.calibration) == calibrating and not sample.spare
    whole = draw_sample(pool(300), held_out=2000, calibration=0)
    assert len(whole.held_out) == 300 and not whole.tuning and not whole.calibration


def test_one_calibration_image_of_a_pool_one_too_small_is_left() -> None:
    sample = draw_sample(pool(600), held_out=300, calibration=1)
    assert len(sample.held_out) == len(sample.tuning) == 299
    assert len(sample.calibration) == 1


def test_too_small_a_pool_is_refused_with_its_number() -> None:
    wanted = r"images.npy: has 400 images, .* 200 .* to judge .* 200 others to tune .* calibrate on"
    with pytest.raises(PoolError, match=wanted):
        draw_sample(pool(400), held_out=2000, calibration=512)
    with pytest.raises(PoolError, match=r"has 199 images, .* 200 are needed to judge"):
        draw_sample(pool(199), held_out=200, calibration=0)
    with pytest.raises(SettingsError, match="--held-out 50"):
        draw_sample(pool(600), held_out=50, calibration=0)


def test_batches_leave_out_what_cannot_be_decoded() -> None:
    spec = ImageSpec(4, 4)
    items = [Item(str(row), lambda row=row: IMAGES[row]) for row in range(7)]
    items[2] = Item("2", lambda: b"no image")
    found = list(batches(items, spec, "read", size=4))
    assert [chunk for chunk, _ in found] == [["0", "1", "3", "4"], ["5", "6"]]
    for chunk, pixels in found:
        assert np.array_equal(pixels, np.stack([decode(IMAGES[int(id)], spec) for id in chunk]))
