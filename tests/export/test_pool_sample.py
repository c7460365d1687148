"""Draws of images: seeded, disjoint, large enough or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from lloss.export import pool_sample
from lloss.export.fidelity import Predicted
from lloss.export.pool_sample import ReferenceSample, batches, draw_sample

from lloss import Scorer
from lloss.errors import PoolError, SettingsError
from lloss.images.decode import ImageSpec, decode
from lloss.pools import Item, SubsetPool
from lloss.pools.array_pool import ArrayPool
from lloss.selection.hashing import draw_ids
from lloss.statistics.loss_distribution import LossReference

IMAGES = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), np.uint8)
SPEC = ImageSpec(8, 8)


def pool(count: int = 600, uri: str = "images.npy") -> ArrayPool:
    return ArrayPool(IMAGES[:count], uri)


def ids(items: Sequence[Item]) -> list[str]:
    return [item.id for item in items]


def test_parts_are_disjoint() -> None:
    sample = draw_sample(pool(), held_out=250, calibration=50)
    parts = [ids(p) for p in (sample.held_out, sample.tuning, sample.calibration)]
    assert [len(part) for part in parts] == [250, 250, 50]
    assert len({id for part in parts for id in part}) == 550


@pytest.mark.parametrize(
    ("count", "asked", "judged", "calibrating"),
    [
        (600, (2000, 512), 265, 70),
        (450, (2000, 512), 200, 50),
        (401, (2000, 512), 200, 1),
        (600, (300, 1), 299, 1),
        (300, (2000, 0), 300, 0),
    ],
)
def test_a_small_pool_is_divided(
    count: int, asked: tuple[int, int], judged: int, calibrating: int
) -> None:
    sample = draw_sample(pool(count), *asked)
    assert len(sample.held_out) == judged
    assert len(sample.tuning) == (judged if calibrating else 0)
    assert len(sample.calibration) == calibrating


def test_too_small_a_pool_is_refused_with_its_number() -> None:
    wanted = r"images.npy: has 400 images, .* 200 .* to judge .* 200 others to tune .* calibrate on"
    with pytest.raises(PoolError, match=wanted):
        draw_sample(pool(400), held_out=2000, calibration=512)
    with pytest.raises(PoolError, match=r"has 199 images, .* 200 are needed to judge"):
        draw_sample(pool(199), held_out=200, calibration=0)
    with pytest.raises(SettingsError, match="--held-out 50"):
        draw_sample(pool(), held_out=50, calibration=0)


def test_batches_leave_out_undecodable_images() -> None:
    items = [Item(str(row), lambda row=row: IMAGES[row]) for row in range(7)]  # type: ignore[misc]
    items[2] = Item("2", lambda: b"no image")
    found = list(batches(items, SPEC, "read", size=4))
    assert [chunk for chunk, _ in found] == [["0", "1", "3", "4"], ["5", "6"]]
    for chunk, pixels in found:
        assert np.array_equal(pixels, np.stack([decode(IMAGES[int(id)], SPEC) for id in chunk]))


# A reference


def test_a_reference_is_bounded_and_leaves_out_ids(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    excluded = {str(row) for row in range(0, 600, 2)}
    monkeypatch.setattr(pool_sample, "REFERENCE_IMAGES", 250)
    drawn = draw_ids((str(row) for row in range(1, 600, 2)), 250, 0)
    with Scorer(onnx_file, "cpu") as scorer:
        losses = scorer.score(IMAGES[[int(id) for id in drawn]]).loss
    found = ReferenceSample(pool=SubsetPool(pool(), excluded)).measure(onnx_file, SPEC)
    assert found is not None and found.images == 250
    wanted = LossReference.of(losses, "images.npy").quantiles
    np.testing.assert_allclose(found.quantiles, wanted, atol=1e-4)


def test_unreadable_images_do_not_count(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def readable(count: int) -> None:
        predicted = Predicted([], np.arange(count, dtype=np.float32), 0)
        monkeypatch.setattr(pool_sample, "predict", lambda *_: predicted)

    readable(210)
    found = ReferenceSample(pool=pool(240)).measure(onnx_file, SPEC)
    assert found is not None and found.images == 210
    readable(190)
    with pytest.raises(PoolError, match="only 190 of its images have a predicted loss"):
        ReferenceSample(pool=pool(240)).measure(onnx_file, SPEC)
    assert ReferenceSample(pool=pool(240), required=False).measure(onnx_file, SPEC) is None
