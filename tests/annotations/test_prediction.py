from __future__ import annotations

import numpy as np
import pytest

from lloss.annotations.label_types import NO_CLASS, ObjectLabel, PersonLabel
from lloss.annotations.prediction import ClassMask, Found, Prediction, found_objects, shapes_of
from lloss.images.crop_box import CropBox
from lloss.images.decode import Fit, Frame, ImageSpec

FITS = pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
SIZES = pytest.mark.parametrize("size", [(60, 180), (180, 60), (77, 77)])


def predicted(label: Found, *scores: float) -> Prediction:
    return Prediction(label, np.array(scores, np.float32))


def boxes(prediction: Prediction) -> list[list[float]]:
    assert isinstance(prediction.label, ObjectLabel)
    found: list[list[float]] = prediction.label.boxes.tolist()
    return found


@FITS
@SIZES
def test_an_object_is_in_its_place_on_the_image(fit: Fit, size: tuple[int, int]) -> None:
    """A box in the middle of the image, carried into the input and back."""
    spec = ImageSpec(40, 50, fit)
    frame = Frame.of(size, spec)
    box = np.array([0.45, 0.4, 0.55, 0.7]) * np.array([*size[::-1], *size[::-1]])
    scale, offset = np.array(frame.scale * 2), np.array(frame.offset * 2)
    shares = (box * scale + offset) / np.array([50, 40, 50, 40])
    prediction = predicted(found_objects(["cat"], [shares], shares=True), 0.5)
    (found,) = boxes(prediction.on_image(size, spec))
    assert found == pytest.approx(box.tolist(), rel=1e-5)


def test_what_is_outside_of_the_image_is_cut_off() -> None:
    every = [[0, 0, 1, 1], [0, 0, 1, 0.2], [0.2, 0.3, 0.4, 0.6]]
    prediction = predicted(found_objects(["a", "b", "c"], every, shares=True), 0.9, 0.8, 0.7)
    padded = prediction.on_image((30, 90), ImageSpec(60, 60, "pad"))
    assert boxes(padded)[0] == [0, 0, 90, 30]
    assert isinstance(padded.label, ObjectLabel)
    assert padded.label.names == ("a", "c")  # the second one is in the padding alone
    assert padded.label.size == (30, 90)
    assert padded.scores.tolist() == pytest.approx([0.9, 0.7])
    cut = prediction.on_image((30, 90), ImageSpec(60, 60, "crop"))
    assert boxes(cut)[0] == pytest.approx([30, 0, 60, 30])


def test_joints_outside_of_the_image_are_not_found() -> None:
    joints = np.array([[0.5, 0.5], [0.5, 0.1]], np.float32)
    label = PersonLabel("", None, ("nose", "neck"), joints, np.ones(2, bool))
    found = predicted(label, 0.9, 0.8).on_image((30, 90), ImageSpec(60, 60, "pad")).label
    assert isinstance(found, PersonLabel)
    assert found.joints[0].tolist() == [45, 15] and found.annotated.tolist() == [True, False]


@FITS
@SIZES
def test_a_mask_covers_the_pixels_that_its_image_has(fit: Fit, size: tuple[int, int]) -> None:
    """Each of the image's pixels has the class of the input's pixel that its centre is in."""
    spec = ImageSpec(40, 50, fit)
    values = np.random.default_rng(0).integers(0, 3, (20, 25)).astype(np.uint8)  # half the input
    found = predicted(ClassMask(values, ("a", "b", "c")), 1, 1, 1).on_image(size, spec).label
    assert isinstance(found, ClassMask) and found.pixels.shape == size
    frame = Frame.of(size, spec)
    for y in range(0, size[0], 7):
        for x in range(0, size[1], 7):
            column = ((x + 0.5) * frame.scale[0] + frame.offset[0]) / 50 * 25
            row = ((y + 0.5) * frame.scale[1] + frame.offset[1]) / 40 * 20
            inside = 0 <= column < 25 and 0 <= row < 20
            expected = values[int(row), int(column)] if inside else NO_CLASS
            assert found.pixels[y, x] == expected


def test_a_crop_is_put_back_into_its_image() -> None:
    region = CropBox(-2, 3, 6)
    found = predicted(found_objects(["a"], [[1, 1, 5, 4]], (6, 6)), 0.5)
    assert boxes(found.around_crop(region, (7, 20))) == [[0, 4, 3, 7]]
    joints = np.array([[1, 1], [5.5, 2]], np.float32)
    person = predicted(PersonLabel("", None, ("a", "b"), joints, np.ones(2, bool)), 1, 1)
    moved = person.around_crop(region, (20, 20)).label
    assert isinstance(moved, PersonLabel)
    assert moved.joints.tolist() == [[-1, 4], [3.5, 5]]
    assert moved.annotated.tolist() == [False, True]
    pixels = np.arange(36, dtype=np.uint8).reshape(6, 6) % 3
    pasted = predicted(ClassMask(pixels, ("a", "b", "c")), 1, 1, 1).around_crop(region, (7, 20))
    assert isinstance(pasted.label, ClassMask)
    assert (pasted.label.pixels[3:7, :4] == pixels[:4, 2:]).all()
    assert (pasted.label.pixels == NO_CLASS).sum() == 7 * 20 - 16


def test_words_and_confidence() -> None:
    objects = predicted(found_objects(["b", "a", "b"], np.eye(3, 4)), 0.9, 0.5, 0.3)
    assert (objects.words, objects.at_least().words) == ("2 b, 1 a", "1 a, 1 b")
    assert objects.at_least(0.95).words == "nothing"
    assert objects.confidence == pytest.approx(0.9)
    person = PersonLabel("", None, ("a", "b", "c"), np.ones((3, 2), np.float32), np.ones(3, bool))
    joints = predicted(person, 1.2, 0.05, 0.15)
    assert joints.at_least().words == "2 of 3 joints"
    assert joints.at_least(0.5).words == "1 of 3 joints"
    assert joints.confidence == pytest.approx((1 + 0.05 + 0.15) / 3)
    pixels = np.array([[0, 0, 0, 1], [1, 255, 255, 255]], np.uint8)
    mask = predicted(ClassMask(pixels, ("a", "b", "c")), 0.9, 0.5, 0)
    assert mask.words == "38% a, 25% b"
    assert mask.confidence == pytest.approx((3 * 0.9 + 2 * 0.5) / 5)
    assert predicted("dog", 0.75).words == "dog" and predicted("dog", 0.75).confidence == 0.75
    assert predicted("dog", 0.1).at_least(0.5).words == "dog"


def test_boxes_are_drawn_in_the_colours_of_their_classes_the_surest_on_top() -> None:
    found = predicted(found_objects(["cat", "dog"], [[0, 0, 10, 20], [5, 5, 20, 10]]), 0.9, 0.5)
    dog, cat = shapes_of(found, (20, 40), ("cow", "cat", "dog"))
    assert (dog.text, dog.color, dog.points) == ("dog", 2, (5 / 40, 5 / 20, 20 / 40, 10 / 20))
    assert (cat.text, cat.color, cat.kind) == ("cat", 1, "box")


def test_a_skeleton_joins_the_joints_that_are_found() -> None:
    names = ("r-knee", "r-ankle", "r-hip", "nose")
    joints = np.array([[4, 4], [8, 4], [0, 0], [2, 2]], np.float32)
    label = PersonLabel("", None, names, joints, np.array([True, True, False, True]))
    (limb,) = shapes_of(predicted(label, 1, 1, 0, 1), (8, 16), names)
    assert limb.kind == "line"
    assert {limb.points[:2], limb.points[2:]} == {(0.25, 0.5), (0.5, 0.5)}
    assert shapes_of(predicted("dog", 1), (8, 8), ("dog",)) == ()
