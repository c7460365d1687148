"""Draws of images: seeded, disjoint, large enough or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from lloss.export import export_model, pool_sample
from lloss.export.export_model import export_artifact
from lloss.export.fidelity import Predicted
from lloss.export.pool_sample import ReferenceSample, batches, draw_sample

from lloss import Scorer
from lloss.errors import PoolError, SettingsError
from lloss.images.decode import ImageSpec, decode
from lloss.pools import Item, SubsetPool
from lloss.pools.array_pool import ArrayPool
from lloss.statistics.loss_distribution import LossReference
from lloss.training.checkpoint import load_checkpoint

IMAGES = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), np.uint8)
SPEC = ImageSpec(8, 8)


def pool(count: int = 600, uri: str = "images.npy") -> ArrayPool:
    return ArrayPool(IMAGES[:count], uri)


def ids(items: Sequence[Item]) -> list[str]:
    return [item.id for item in items]


def test_parts_are_disjoint_and_depend_on_the_seed() -> None:
    sample = draw_sample(pool(), held_out=250, calibration=50, seed=3)
    parts = [ids(p) for p in (sample.held_out, sample.tuning, sample.calibration)]
    assert [len(part) for part in parts] == [250, 250, 50]
    assert len({id for part in parts for id in part}) == 550
    again = draw_sample(pool(), held_out=250, calibration=50, seed=3)
    other = draw_sample(pool(), held_out=250, calibration=50, seed=4)
    assert ids(again.held_out) == parts[0] != ids(other.held_out)


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


def test_a_reference_has_the_scorers_predictions(artifact: Path) -> None:
    found = ReferenceSample(pool=pool()).measure(artifact, SPEC)
    with Scorer(artifact, "cpu") as scorer:
        wanted = LossReference.of(scorer.score(IMAGES).loss, "images.npy")
    assert found is not None and (found.images, found.pool) == (600, "images.npy")
    np.testing.assert_allclose(found.quantiles, wanted.quantiles, atol=1e-4)


def test_a_reference_is_bounded_and_leaves_out_ids(artifact: Path) -> None:
    excluded = {str(row) for row in range(0, 600, 2)}
    sample = ReferenceSample(pool=pool(), exclude=excluded, images=250)
    drawn = set(ids(sample.items))
    assert len(drawn) == 250 and not drawn & excluded
    found = sample.measure(artifact, SPEC)
    assert found is not None and found.images == 250


def test_unreadable_images_do_not_count(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def readable(count: int) -> None:
        predicted = Predicted([], np.arange(count, dtype=np.float32), 0)
        monkeypatch.setattr(pool_sample, "predict", lambda *_: predicted)

    readable(210)
    found = ReferenceSample(pool=pool(240)).measure(artifact, SPEC)
    assert found is not None and found.images == 210
    readable(190)
    with pytest.raises(PoolError, match="only 190 of its images have a predicted loss"):
        ReferenceSample(pool=pool(240)).measure(artifact, SPEC)
    assert ReferenceSample(pool=pool(240), required=False).measure(artifact, SPEC) is None
    small = SubsetPool(pool(), {str(row) for row in range(500)})
    assert ReferenceSample(pool=small, required=False).measure(artifact, SPEC) is None


def test_a_small_pool_is_refused_before_the_export(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_model, "ScoringGraph", None)
    few = ReferenceSample(pool=pool(150, "few.npy"))
    with pytest.raises(PoolError, match=r"few.npy: has 150 images; a reference needs 200"):
        export_artifact(load_checkpoint(trained), tmp_path / "m.onnx", reference=few)
    assert list(tmp_path.iterdir()) == []
