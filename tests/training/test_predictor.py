from __future__ import annotations

import numpy as np
import torch
from torch import nn

import lloss
from lloss.annotations.prediction import ClassMask, Prediction
from lloss.pools import ArrayPool
from lloss.training.predictor import Predictor


class Brightness(nn.Module):
    """Logits of dark and bright, of a pixel or of the image."""

    def __init__(self, by_pixel: bool) -> None:
        super().__init__()
        self.by_pixel = by_pixel
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 3, 1) for _ in range(4)),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        light = images.mean(1, keepdim=True)
        self.features(images)
        logits = torch.cat([0.5 - light, light - 0.5], 1) * 20
        return logits if self.by_pixel else logits.mean((2, 3))


def predictor(task: str) -> Predictor:
    model = lloss.attach(
        Brightness(task == "segmentation"), task=task, classes=("dark", "bright"), size=16,
        mean=(0, 0, 0), std=(1, 1, 1), fit="stretch",
        taps=[f"features.{number}" for number in range(4)],
    )  # fmt: skip
    return Predictor.of_attached(model)


def found_on(images: np.ndarray, task: str) -> list[Prediction | None]:
    items = list(ArrayPool(images, "made up"))
    return predictor(task).of([(item, item.read()) for item in items])


def test_an_attached_classifier_predicts() -> None:
    images = np.zeros((3, 20, 30, 3), np.uint8)
    images[1] = 255
    labels = [found and found.label for found in found_on(images, "classification")]
    assert labels == ["dark", "bright", "dark"]


def test_an_attached_segmenter_predicts_in_pixels_of_the_image() -> None:
    images = np.zeros((1, 32, 64, 3), np.uint8)
    images[0, :, 40:] = 255
    (found,) = found_on(images, "segmentation")
    assert found is not None and isinstance(found.label, ClassMask)
    assert (found.label.pixels == (images[0, :, :, 0] > 0)).mean() > 0.95


def test_images_that_cannot_be_decoded_have_no_prediction() -> None:
    item = next(iter(ArrayPool(np.zeros((1, 8, 8, 3), np.uint8), "made up")))
    found = predictor("classification").of([(item, b"no image"), (item, item.read())])
    assert found[0] is None and found[1] is not None
    assert predictor("classification").of([(item, b"")]) == [None]


def test_a_task_of_ones_own_has_no_labels_to_show() -> None:
    class Own:
        def loss_per_image(self, output: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return output.mean(1)

    taps = [f"features.{number}" for number in range(4)]
    model = lloss.attach(Brightness(False), task=Own(), size=16, taps=taps)
    item = next(iter(ArrayPool(np.zeros((1, 8, 8, 3), np.uint8), "made up")))
    assert Predictor.of_attached(model).of([(item, item.read())]) == [None]
