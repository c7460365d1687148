from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from lloss.tasks.pose.joint_targets import PersonTarget
from lloss.tasks.pose.pose_augmentation import (
    DEGREES,
    SCALE,
    STORED_SCALE,
    TINT,
    View,
    draw_views,
    show,
)

SIZE = 64
STORED = round(SIZE * STORED_SCALE)
NAMES = ("r-ankle", "l-ankle", "nose")


def person(*joints: tuple[float, float]) -> PersonTarget:
    return PersonTarget(
        names=NAMES[: len(joints)],
        joints=torch.tensor(joints),
        annotated=torch.ones(len(joints), dtype=torch.bool),
        size=STORED,
        pixel=(3.0, 3.0),
        head=20.0,
        side=300.0,
    )


def dotted(joint: tuple[float, float]) -> Tensor:
    """A stored image with a soft bright dot at this place, uint8 [1, STORED, STORED, 3]."""
    at = np.arange(STORED) + 0.5
    dot = np.exp(-((at[:, None] - joint[1]) ** 2 + (at[None] - joint[0]) ** 2) / 8)
    return torch.from_numpy(np.rint(255 * dot).astype(np.uint8)[None, ..., None].repeat(3, 3))


def brightest(image: Tensor) -> list[float]:
    """Where the dot is: its centre of mass."""
    weight = image[..., 0].double()
    at = torch.arange(SIZE) + 0.5
    return [float((weight.sum(axis) * at).sum() / weight.sum()) for axis in (0, 1)]


VIEWS = [
    View(),
    View(zoom=0.75),
    View(degrees=-17),
    View(mirrored=True),
    View(zoom=1.2, degrees=-30, mirrored=True),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_bright_dot_is_found_where_the_joint_went(view: View) -> None:
    joint = (STORED / 2 + 9.3, STORED / 2 - 14.1)
    images, (target,) = show(dotted(joint), [person(joint)], [view], SIZE)
    assert images.shape == (1, SIZE, SIZE, 3)
    assert brightest(images[0]) == pytest.approx(target.joints[0].tolist(), abs=0.05)


def test_mirroring_swaps_left_and_right() -> None:
    right, left, nose = (50.0, 60.0), (70.0, 62.0), (61.0, 40.0)
    plain = person(right, left, nose)
    plain.annotated[1] = False  # the left one
    _, (target,) = show(dotted(nose), [plain], [View(mirrored=True)], SIZE)
    start = (STORED - SIZE) / 2
    mirrored = [[SIZE - (x - start), y - start] for x, y in (left, right, nose)]
    assert torch.allclose(target.joints, torch.tensor(mirrored), atol=1e-4)
    assert target.annotated.tolist() == [False, True, True]


def test_a_joint_whose_other_side_has_no_name_is_not_known_in_the_mirror() -> None:
    """A right ankle would be shown as one of the left."""
    middle = STORED / 2
    only = dataclasses.replace(person((middle, middle), (middle, middle)), names=("l-hip", "nose"))
    images = dotted((middle, middle))
    (plain,) = show(images, [only], [View()], SIZE)[1]
    (mirrored,) = show(images, [only], [View(mirrored=True)], SIZE)[1]
    assert plain.annotated.tolist() == [True, True]
    assert mirrored.annotated.tolist() == [False, True]
    assert only.annotated.tolist() == [True, True]


def test_a_joint_that_leaves_the_input_is_not_annotated_any_more() -> None:
    edge = (STORED + SIZE) / 2 - 2.0  # two pixels inside of the plain cut
    both = person((edge, STORED / 2), (STORED / 2, STORED / 2))
    images = dotted((edge, STORED / 2))
    for view, inside in [(View(), True), (View(zoom=1.25), False), (View(zoom=0.8), True)]:
        _, (target,) = show(images, [both], [view], SIZE)
        assert target.annotated.tolist() == [inside, True], view


def test_without_a_view_the_pixels_are_the_plain_cut() -> None:
    random = np.random.default_rng(0)
    stored = torch.from_numpy(random.integers(0, 256, (2, STORED, STORED, 3), np.uint8))
    images, _ = show(stored, [person((60.0, 60.0))] * 2, [View()] * 2, SIZE)
    start = (STORED - SIZE) // 2
    assert torch.equal(images, stored[:, start : start + SIZE, start : start + SIZE])


def test_views_come_from_the_generator_alone_and_stay_in_their_bounds() -> None:
    views = draw_views(4000, torch.Generator().manual_seed(3))
    assert views == draw_views(4000, torch.Generator().manual_seed(3))
    assert views != draw_views(4000, torch.Generator().manual_seed(4))
    zooms = [view.zoom for view in views]
    assert 1 - SCALE <= min(zooms) < 0.76
    assert 1.24 < max(zooms) <= 1 + SCALE
    turned = [view.degrees for view in views if view.degrees]
    assert max(map(abs, turned)) <= DEGREES
    assert max(turned) > 29
    assert min(turned) < -29
    assert abs(len(turned) / 4000 - 0.6) < 0.03
    assert abs(sum(view.mirrored for view in views) / 4000 - 0.5) < 0.03
    tints = [factor for view in views for factor in view.tint]
    assert max(abs(factor - 1) for factor in tints) <= TINT


def test_colours_are_multiplied_and_clipped() -> None:
    stored = torch.full((1, STORED, STORED, 3), 200, dtype=torch.uint8)
    view = View(tint=(0.8, 1.0, 1.3))
    images, _ = show(stored, [person((60.0, 60.0))], [view], SIZE)
    assert images[0, 32, 32].tolist() == [160, 200, 255]
