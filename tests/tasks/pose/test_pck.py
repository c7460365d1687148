from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lloss.annotations.joint_names import COCO, MPII
from lloss.tasks.pose.joint_targets import PersonTarget
from lloss.tasks.pose.pck import Pck, group_of

NAMES = ("r-ankle", "l-ankle", "pelvis", "thorax", "head-top")


def person(annotated: list[int], head: float, pixel: tuple[float, float]) -> PersonTarget:
    """All joints in the centre of an input of 64×64: heatmaps of 16×16."""
    return PersonTarget(
        names=NAMES,
        joints=torch.full((5, 2), 34.0),
        annotated=torch.tensor(annotated, dtype=torch.bool),
        size=64,
        pixel=pixel,
        head=head,
        side=100.0,
    )


def peaks(*columns: int) -> torch.Tensor:
    """Heatmaps [1, 1, 5, 16, 16] with one pixel each, in the row of the joint's own."""
    heatmaps = torch.zeros(1, 1, len(columns), 16, 16)
    for joint, column in enumerate(columns):
        heatmaps[0, 0, joint, 8, column] = 1
    return heatmaps


def test_pckh_by_hand() -> None:
    """The joints are at x = 34 = 4 × 8.5: in the middle of column 8, row 8 of the heatmaps.

    Person 1: head 24, an input pixel is 1.5 image pixels wide, so a column off is 4 × 1.5 = 6.
    r-ankle 0 off: 0. l-ankle 2 off: 12, the limit is 12: right. head-top 3 off: 18: wrong.
    Pelvis and thorax are right and wrong; neither counts.
    Person 2: head 10, a column is 4 × 0.5 = 2. r-ankle 3 off: 6 over 5: wrong. l-ankle is far off
    but not annotated. head-top 2 off: 4: right.
    Right: r-ankle 1 of 2, l-ankle 1 of 1, head-top 1 of 2: 3 of 5.
    """
    meter = Pck(NAMES, True)
    meter.update(peaks(8, 10, 8, 15, 11), [person([1, 1, 1, 1, 1], 24, (1.5, 1.5))])
    meter.update(peaks(11, 0, 8, 8, 6), [person([1, 0, 1, 1, 1], 10, (0.5, 0.5))])
    figures = meter.figures()
    assert next(iter(figures)) == "pck"
    assert figures == pytest.approx(
        {"pck": 3 / 5, "pckh": 3 / 5, "PCK ankle": 2 / 3, "PCK head": 1 / 2}
    )


def test_without_head_sizes_it_is_not_called_pckh() -> None:
    """5 % of the side of 100 are 5; a column off is 4 image pixels."""
    meter = Pck(NAMES, False)
    meter.update(peaks(9, 10, 8, 8, 8), [person([1, 1, 0, 0, 0], math.nan, (1.0, 1.0))])
    figures = meter.figures()
    assert figures["pck"] == 0.5
    assert "pckh" not in figures
    assert "PCK@0.05" in meter.notes()[0]
    assert "not PCKh" in meter.notes()[0]


@pytest.mark.parametrize("names", [MPII, COCO])
def test_joints_are_grouped_by_what_they_are(names: tuple[str, ...]) -> None:
    groups = {group_of(name) for name in names} - {"pelvis", "thorax"}
    assert groups == {"head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"}


def test_joints_that_the_network_does_not_have_are_missed_and_named() -> None:
    """Two persons with 1 and 2 right joints; 3 more are not known, pelvis does not count."""
    unknown = [{"r-knee", "nose"}, {"r-knee", "pelvis"}]
    meter = Pck(NAMES, True, unknown=unknown)
    meter.update(peaks(8, 8, 8, 8, 8), [person([1, 0, 0, 0, 0], 10, (1.0, 1.0))])
    meter.update(peaks(8, 8, 8, 8, 8), [person([1, 0, 0, 0, 1], 10, (1.0, 1.0))])
    assert meter.figures() == pytest.approx(
        {"pck": 3 / 6, "pckh": 3 / 6, "PCK ankle": 1, "PCK head": 1 / 2, "PCK knee": 0}
    )


def test_the_interval_is_of_draws_of_persons() -> None:
    random = np.random.default_rng(0)
    people = [person(list(random.integers(0, 2, 5)), 10, (1.0, 1.0)) for _ in range(5)]
    columns = random.integers(6, 11, (5, 5)).tolist()
    unknown = [{"r-knee"} if row % 2 else set[str]() for row in range(5)]
    meter = Pck(NAMES, True, unknown=unknown)
    for target, row in zip(people, columns):
        meter.update(peaks(*row), [target])
    weights = np.array([[2, 0, 1, 2, 0], [1, 1, 1, 1, 1]])
    found = meter.resampled(weights.astype(float))
    for draw, times in enumerate(weights):
        rows = np.repeat(np.arange(5), times)
        again = Pck(NAMES, True, unknown=[unknown[row] for row in rows])
        for row in rows:
            again.update(peaks(*columns[row]), [people[row]])
        drawn = {n: values[draw] for n, values in found.items() if not np.isnan(values[draw])}
        assert drawn == pytest.approx(again.figures())
    low, high = meter.intervals()["pckh"]
    assert low < meter.figures()["pckh"] < high
