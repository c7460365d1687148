"""Small task lists of each task."""

from __future__ import annotations

import numpy as np

from lloss.annotations.label_types import PersonLabel
from lloss.annotations.prediction import ClassMask, Found, Prediction, found_objects
from lloss.annotations.task_lists.task_list import ListedPick, TaskImage, TaskList
from lloss.images.crop_box import CropBox

SIZE = (60, 80)  # height and width of every image
JOINTS = ("nose", "left_eye", "right_eye")


def prediction(label: Found, *scores: float) -> Prediction:
    return Prediction(label, np.array(scores, np.float32))


def pixels() -> np.ndarray:
    return np.arange(SIZE[0] * SIZE[1] * 3, dtype=np.uint8).reshape(*SIZE, 3)


def image(name: str, *found: Prediction | None, source: str = "") -> TaskImage:
    """An image; its ids are its name, or of persons those of a pool in MPII's dialect."""
    picks = []
    for rank, one in enumerate(found, 1):
        person = one is not None and isinstance(one.label, PersonLabel)
        region = CropBox(10 * rank, -5, 40) if person else None
        id = f"{name}@{10 * rank + 20},15,0.2" if person else name
        picks.append(ListedPick(id, rank, 2.5, region, one))
    return TaskImage(name, source, SIZE, tuple(picks), pixels)


def objects() -> TaskList:
    """Two objects on the first image, none on the second, no prediction for the third."""
    boxes = [[10, 5, 30.5, 25], [40, 0, 80, 60]]
    first = prediction(found_objects(["dog", "cat"], boxes, SIZE), 0.9, 0.5)
    nothing = prediction(found_objects([], [], SIZE))
    images = [image("a/1.png", first), image("a/2.png", nothing), image("b.png", None)]
    return TaskList(images, "detection", ("cat", "dog"), "abc123")


def classes() -> TaskList:
    images = [image("1.png", prediction("dog", 0.75)), image("2.png", prediction("cat", 0.5))]
    return TaskList(images, "classification", ("cat", "dog"), "abc123")


def persons() -> TaskList:
    """Two persons on one image; the second one's left eye was not found."""
    found = []
    for shift, eye in ((0, True), (20, False)):
        joints = np.array([[20.5, 12], [24, 10], [17, 10.25]]) + np.array([shift, 0])
        label = PersonLabel("", None, JOINTS, joints.astype(np.float32), np.array([1, eye, 1]) > 0)
        found.append(prediction(label, 0.9, 0.4, 0.2))
    return TaskList([image("1.png", *found)], "pose", JOINTS, "abc123")


def mask() -> np.ndarray:
    """Class 1 in a corner and in a block, class 2 on a diagonal; the rest is background, or 255."""
    numbers = np.zeros(SIZE, np.uint8)
    numbers[:7, :9] = numbers[20:31, 33:47] = 1
    numbers[range(40, 60), range(40, 60)] = 2
    numbers[50:, :5] = 255
    return numbers


def masks() -> TaskList:
    names = ("background", "disc", "line", "never")
    found = prediction(ClassMask(mask(), names), 0.9, 0.8, 0.7, 0)
    return TaskList([image("1.png", found)], "segmentation", names, "abc123")
