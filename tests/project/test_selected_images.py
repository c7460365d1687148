from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.annotations.prediction import Prediction, found_objects
from lloss.images.decode import ImageSpec
from lloss.images.thumbnail import PALETTE
from lloss.pools import ArrayPool, Item
from lloss.project.pick_predictions import PickModel
from lloss.project.selected_images import describe_picks
from lloss.selection import Selection, SelectionSettings


class Boxes:
    """Finds the same boxes on every image, in its pixels."""

    def __init__(self, *boxes: list[float]) -> None:
        self.boxes = boxes

    def of(self, images: Any) -> list[Prediction | None]:
        label = found_objects(["cat"] * len(self.boxes), self.boxes)
        scores = np.linspace(0.9, 0.1, max(len(self.boxes), 1), dtype=np.float32)
        return [Prediction(label, scores[: len(self.boxes)])] * len(images)


def _pick(model: PickModel, height: int = 300, width: int = 900) -> Any:
    images = np.full((1, height, width, 3), 7, np.uint8)
    images[:, :, width // 3 : 2 * width // 3] = 250
    chosen = Selection(["0"], np.array([1.5]), 1, 0, 0, 1, SelectionSettings(k=1))
    (pick,) = describe_picks(chosen, ArrayPool(images, "made up"), model, ImageSpec(64, 64))
    return pick


def _shown(pick: Any) -> Image.Image:
    return Image.open(io.BytesIO(pick.thumbnail))


def test_a_thumbnail_is_of_the_whole_image_in_its_own_shape() -> None:
    pick = _pick(PickModel())
    assert (pick.guess, pick.rank, pick.score) == ("", 1, 1.5)
    image = _shown(pick)
    assert image.size == (96, 32)
    row = np.asarray(image)[16, :, 0].astype(int)
    assert row[:28].max() < 40 and row[36:60].min() > 200 and row[68:].max() < 40


def test_a_box_is_drawn_where_the_object_is() -> None:
    """Around the middle third of the image, from a quarter of its height to three."""
    boxes = Boxes([300, 75, 600, 225], [0, 0, 10, 10])
    pick = _pick(PickModel("detection", ("dog", "cat"), "", boxes))
    assert (pick.guess, pick.drawn) == ("1 cat", True)  # the other is not sure enough
    assert pick.confidence == pytest.approx(0.9)
    image = _shown(pick)
    assert image.size == (192, 64)
    pixels = np.asarray(image).astype(int)
    for y, x in ((32, 65), (32, 127), (16, 96), (47, 96)):  # the middle of each edge
        near = np.abs(pixels[y - 2 : y + 3, x - 2 : x + 3] - PALETTE[1]).sum(2)
        assert near.min() < 150, (y, x)
    assert pixels[32, 96].min() > 200  # nothing inside


def test_nothing_found_is_said() -> None:
    pick = _pick(PickModel("detection", ("dog", "cat"), "", Boxes()))
    assert (pick.guess, pick.confidence, pick.drawn) == ("nothing", 0.0, False)


def test_an_image_that_cannot_be_read_any_more_is_listed() -> None:
    class Gone(ArrayPool):
        def find(self, ids: Any) -> list[Item]:
            return [Item("0", lambda: b"no image")]

    chosen = Selection(["0"], np.array([1.5]), 1, 0, 0, 1, SelectionSettings(k=1))
    pool = Gone(np.zeros((1, 8, 8, 3), np.uint8), "made up")
    (pick,) = describe_picks(chosen, pool, PickModel(), ImageSpec(8, 8))
    assert pick.thumbnail is None and pick.id == "0"
