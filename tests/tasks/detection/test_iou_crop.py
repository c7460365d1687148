from __future__ import annotations

import pytest
import torch
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from lloss.images.decode import Fit
from lloss.tasks.detection.box_augmentation import IoUCrop, fitted

HEIGHT, WIDTH = 240, 320
BOXES = torch.tensor([[20.0, 30, 180, 200], [200, 100, 310, 230], [5, 5, 60, 60]])


def _crops(crop: v2.RandomIoUCrop, count: int, *fit: Fit) -> list[dict[str, int]]:
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    torch.manual_seed(0)
    return [crop.make_params([boxes], *fit) for _ in range(count)]


def _rectangle(cut: dict[str, int]) -> torch.Tensor:
    left, top = cut["left"], cut["top"]
    return torch.tensor([[left, top, left + cut["width"], top + cut["height"]]]).float()


@pytest.mark.parametrize("least", [0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize(
    ("kind", "fit"),
    [(IoUCrop, ()), (v2.RandomIoUCrop, ()), (IoUCrop, ("crop",)), (IoUCrop, ("pad",))],
)
def test_the_least_iou_is_enforced(
    kind: type[v2.RandomIoUCrop], fit: tuple[Fit, ...], least: float
) -> None:
    """Of the boxes whose centre is within the crop, one overlaps it by the drawn minimum."""
    smallest = 1.0
    for cut in _crops(kind(sampler_options=[least]), 60, *fit):
        crop = _rectangle(cut)[0]
        assert not fit or cut["width"] == cut["height"]
        centre = (BOXES[:, :2] + BOXES[:, 2:]) / 2
        held = ((centre > crop[:2]) & (centre < crop[2:])).all(1)
        assert held.any()
        smallest = min(smallest, float(box_iou(BOXES[held], crop[None]).max()))
    assert least <= smallest < least + 0.2


def test_a_crop_is_in_the_image_and_has_the_sizes_of_the_paper() -> None:
    for cut in _crops(IoUCrop(sampler_options=[0.0]), 200):
        assert cut["left"] >= 0 and cut["left"] + cut["width"] <= WIDTH
        assert cut["top"] >= 0 and cut["top"] + cut["height"] <= HEIGHT
        assert cut["width"] >= 0.3 * WIDTH - 1 and cut["height"] >= 0.3 * HEIGHT - 1
        assert 0.5 <= cut["width"] / cut["height"] <= 2


def test_one_draw_in_seven_keeps_the_image() -> None:
    """And so does a draw whose trials all fail, in the end."""
    whole = sum(not cut for cut in _crops(IoUCrop(), 400))
    assert 30 < whole < 160


def test_crops_are_as_large_as_torchvisions() -> None:
    ours, theirs = (
        torch.tensor([[c["width"], c["height"]] for c in _crops(kind(sampler_options=[0.3]), 300)])
        .float()
        .mean(0)
        for kind in (IoUCrop, v2.RandomIoUCrop)
    )
    assert (ours - theirs).abs().max() < 15


def test_an_input_shows_the_middle_of_a_rectangle_or_what_is_around() -> None:
    rectangles = torch.tensor([[10, 20, 40, 31], [-5, 0, 5, 21], [1, 2, 4, 5]])
    assert torch.equal(fitted(rectangles, "stretch"), rectangles)
    assert fitted(rectangles, "crop").tolist() == [[19, 20, 30, 31], [-5, 5, 5, 15], [1, 2, 4, 5]]
    assert fitted(rectangles, "pad").tolist() == [[10, 10, 40, 40], [-11, 0, 10, 21], [1, 2, 4, 5]]
