from __future__ import annotations

import numpy as np
import pytest

from lloss.annotations.label_types import PersonLabel
from lloss.annotations.person_record import box_region
from lloss.annotations.prediction import ClassMask, found_objects
from lloss.annotations.task_lists.task_list import (
    ListedPick,
    MarkedPerson,
    MarkedPixels,
    marks_of,
    run_lengths,
    shows_nothing,
)
from lloss.images.crop_box import CropBox

from .lists import mask, masks, persons, prediction


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_give_the_values_back(seed: int) -> None:
    values = np.random.default_rng(seed).random(50) < 0.3
    values[0] = seed % 2
    runs = run_lengths(values)
    again = [bool(number % 2) for number, run in enumerate(runs) for _ in range(run)]
    assert again == values.tolist()
    assert all(runs[1:])


def test_run_lengths_of_nothing_and_of_one_value() -> None:
    assert run_lengths(np.zeros(0, bool)) == []
    assert run_lengths(np.zeros(3, bool)) == [3]
    assert run_lengths(np.ones(3, bool)) == [0, 3]


def test_the_pixels_of_each_class_but_the_background_are_marked() -> None:
    (image,) = masks().images
    marks = list(marks_of(image.picks[0]))
    assert [mark.name for mark in marks if isinstance(mark, MarkedPixels)] == ["disc", "line"]
    disc = marks[0]
    assert isinstance(disc, MarkedPixels)
    assert (disc.pixels == (mask() == 1)).all() and disc.score == pytest.approx(0.8)
    assert disc.box == (0, 0, 47, 31)


def test_the_box_of_a_person_leads_to_the_same_square() -> None:
    (image,) = persons().images
    for pick in image.picks:
        (mark,) = marks_of(pick)
        assert isinstance(mark, MarkedPerson)
        assert box_region(mark.box, None, "") == pick.region
    # An id of four numbers is the box itself.
    (mark,) = marks_of(ListedPick("a/b.png@3,4.5,20,30", 1, 0.0, CropBox(-6, 1, 38)))
    assert mark == MarkedPerson((3.0, 4.5, 20.0, 30.0), None, ())


def test_without_a_square_the_box_is_around_the_joints() -> None:
    joints = np.array([[3, 4], [30, 20], [7, 2]], np.float32)
    label = PersonLabel("", None, ("a", "b", "c"), joints, np.array([True, False, True]))
    (mark,) = marks_of(ListedPick("1.png", 1, 0.0, None, prediction(label, 0.9, 0.1, 0.3)))
    assert isinstance(mark, MarkedPerson)
    assert mark.box == (3, 2, 4, 2)
    assert [joint.name for joint in mark.joints] == ["a", "c"]
    assert not shows_nothing(ListedPick("1.png", 1, 0.0, None, prediction(label, 0.9, 0.1, 0.3)))
    nobody = PersonLabel("", None, ("a", "b", "c"), joints, np.zeros(3, bool))
    assert not list(marks_of(ListedPick("1.png", 1, 0.0, None, prediction(nobody, 0, 0, 0))))


def test_background_a_person_without_joints_and_no_object_are_nothing() -> None:
    nobody = PersonLabel("", None, ("a",), np.ones((1, 2), np.float32), np.zeros(1, bool))
    background = ClassMask(np.zeros((4, 4), np.uint8), ("background", "disc"))
    for region, found in (
        (CropBox(0, 0, 9), prediction(nobody, 0)),
        (None, prediction(background, 1, 0)),
        (None, prediction(found_objects([], []))),
    ):
        assert shows_nothing(ListedPick("1.png@5,5,0.1", 1, 0.0, region, found))
    assert not shows_nothing(ListedPick("1.png", 1, 0.0, None, prediction("dog", 0.1)))
