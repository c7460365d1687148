from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lloss.annotations import PersonLabel
from lloss.errors import LabelError
from lloss.images.crop_box import CropBox
from lloss.images.decode import Frame, ImageSpec, Pixels, decode
from lloss.pools import Item
from lloss.pools.person_crop_pool import CropItem
from lloss.tasks.pose.person_examples import read_person
from lloss.tasks.pose.pose_augmentation import STORED_SCALE
from lloss.tasks.task import Decoding

NAMES = ("r-knee", "l-knee", "nose")
JOINTS = np.array([[40.5, 30.5], [60.5, 50.5], [0, 0]], np.float32)
ANNOTATED = np.array([True, True, False])


@pytest.fixture
def image(encoded: Callable[..., bytes]) -> Item:
    """90 wide, 70 high: noise, with a white block of 3×3 pixels around each annotated joint."""
    pixels = np.random.default_rng(0).integers(0, 60, (70, 90, 3), np.uint8)
    for x, y in JOINTS[:2].astype(int):
        pixels[y - 1 : y + 2, x - 1 : x + 2] = 255
    file = encoded(pixels)
    return Item("a.png", lambda: file)


def label(names: tuple[str, ...] = NAMES, annotated: np.ndarray = ANNOTATED) -> PersonLabel:  # type: ignore[type-arg]
    return PersonLabel("a.png", None, names, JOINTS[: len(names)], annotated[: len(names)], 12.0)


def blocks(out: Pixels) -> list[tuple[float, float]]:
    """The centres of the two white blocks, the upper one first: they are apart in y."""
    ys, xs = np.nonzero(out[..., 0] > 128)
    parts = [ys < ys.mean(), ys >= ys.mean()]
    return [(float(xs[p].mean()) + 0.5, float(ys[p].mean()) + 0.5) for p in parts]


def read(item: Item, side: int, for_training: bool) -> tuple[Pixels, list[list[float]], object]:
    spec = ImageSpec(side, side, "pad")
    out = np.full((side, side, 3), 9, np.uint8)
    target = read_person(item, label(), Decoding(NAMES, spec, for_training), out)
    return out, target.joints[:2].tolist(), target


@pytest.mark.parametrize("for_training", [False, True])
@pytest.mark.parametrize(
    "region", [None, CropBox(20, 10, 60), CropBox(35, 25, 32), CropBox(-9, 3, 80)]
)
def test_joints_are_where_their_pixels_went(
    image: Item, for_training: bool, region: CropBox | None
) -> None:
    item = CropItem.of("a@1", image, region) if region else image
    out, joints, _ = read(item, 448 if for_training else 256, for_training)
    for found, expected in zip(blocks(out), joints):
        assert found == pytest.approx(expected, abs=0.6)  # of white pixels some 3 to 8 wide


def test_without_margin_the_pixels_are_what_a_scorer_decodes(image: Item) -> None:
    spec = ImageSpec(64, 64, "pad")
    for item in (image, CropItem.of("a@1", image, CropBox(20, 10, 60))):
        out, _, _ = read(item, 64, for_training=False)
        assert np.array_equal(out, decode(item.read(), spec))


def test_with_margin_the_middle_is_the_plain_cut(image: Item) -> None:
    """Of a region but for the rounding of the grown square; of a whole image exactly."""
    side, stored = 64, round(64 * STORED_SCALE)
    start = (stored - side) // 2
    middle = (slice(start, start + side),) * 2
    whole, joints, _ = read(image, stored, for_training=True)
    plain, plain_joints, _ = read(image, side, for_training=False)
    assert np.array_equal(whole[middle], plain)
    assert np.allclose(np.array(joints) - start, plain_joints)
    assert not whole[:start].any()
    item = CropItem.of("a@1", image, CropBox(20, 4, 64))
    out, joints, _ = read(item, stored, for_training=True)
    plain, plain_joints, _ = read(item, side, for_training=False)
    assert np.array_equal(out[middle], plain)
    assert np.allclose(np.array(joints) - start, plain_joints)


def test_what_pckh_needs_is_in_pixels_of_the_image(image: Item) -> None:
    item = CropItem.of("a@1", image, CropBox(20, 10, 60))
    target = read_person(item, label(), Decoding(NAMES, ImageSpec(120, 120, "pad")), _out(120))
    assert target.pixel == (0.5, 0.5)
    assert (target.head, target.side, target.size) == (12.0, 60.0, 120)
    frame = Frame.of((70, 90), ImageSpec(64, 64, "pad"))
    target = read_person(image, label(), Decoding(NAMES, ImageSpec(64, 64, "pad")), _out(64))
    assert target.pixel == pytest.approx((1 / frame.scale[0], 1 / frame.scale[1]))
    assert target.side == 90.0


def _out(side: int) -> Pixels:
    return np.empty((side, side, 3), np.uint8)


def test_joints_come_in_the_order_of_the_network(image: Item) -> None:
    names = ("nose", "l-knee", "tail", "r-knee")
    target = read_person(image, label(), Decoding(names, ImageSpec(90, 90, "pad")), _out(90))
    assert target.names == names
    assert target.annotated.tolist() == [False, True, False, True]
    assert target.joints[[3, 1]].tolist() == [[40.5, 40.5], [60.5, 60.5]]  # 10 rows of padding


def test_two_joints_of_one_name_are_refused(image: Item) -> None:
    doubled = label(("nose", "nose"))
    with pytest.raises(LabelError, match=r"'a\.png': two joints of one name"):
        read_person(image, doubled, Decoding(NAMES, ImageSpec(64, 64, "pad")), _out(64))
