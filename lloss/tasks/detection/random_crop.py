"""A crop that overlaps an object enough (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2

from lloss.images.decode import Fit


def fitted(rectangles: Tensor, fit: Fit) -> Tensor:
    """What of rectangles an input of equal sides shows: squares, or all where the fit stretches.

    Args:
        rectangles: x0, y0, x1, y1 in whole pixels, [T, 4].
        fit: ``crop`` shows the middle, ``pad`` also what lies around.
    """
    if fit == "stretch":
        return rectangles
    sides = rectangles[:, 2:] - rectangles[:, :2]
    side = sides.amin(1, keepdim=True) if fit == "crop" else sides.amax(1, keepdim=True)
    corner = rectangles[:, :2] + (sides - side).div(2, rounding_mode="floor")
    return torch.cat([corner, corner + side], 1)


class IoUCrop(v2.RandomIoUCrop):  # type: ignore[misc]
    """torchvision's transform with all trials of a draw made at once: twenty times as fast.

    Of the boxes whose centre lies in the crop, one overlaps it by the drawn minimum IoU or more.
    """

    def make_params(self, flat_inputs: list[Any], fit: Fit = "stretch") -> dict[str, Any]:
        """The crop's ``left``, ``top``, ``width`` and ``height``; nothing where all is kept.

        Args:
            flat_inputs: of ``tv_tensors.BoundingBoxes`` as XYXY, one; images are not looked at.
            fit: how the crop comes to the input's square. What that shows of a crop is what has to
                overlap a box, and what is given; with ``pad`` it may reach over the image.
        """
        (boxes,) = (x for x in flat_inputs if isinstance(x, tv_tensors.BoundingBoxes))
        height, width = boxes.canvas_size
        while True:
            least = self.options[int(torch.randint(len(self.options), ()))]
            if least >= 1:
                return {}
            crops = fitted(self._drawn(width, height), fit)
            crops = crops[self._overlap(crops, boxes.as_subclass(Tensor)) >= least]
            if len(crops):
                left, top, right, bottom = map(int, crops[0].tolist())
                return {"left": left, "top": top, "width": right - left, "height": bottom - top}

    def _drawn(self, width: int, height: int) -> Tensor:
        """Rectangles in whole pixels of allowed sizes and shapes: float [T, 4], T <= trials."""
        draws = torch.rand(self.trials, 4)
        full = torch.tensor([width, height])
        sides = (full * (self.min_scale + (self.max_scale - self.min_scale) * draws[:, :2])).floor()
        corner = ((full - sides) * draws[:, 2:]).floor()
        aspect = sides[:, 0] / sides[:, 1]
        allowed = (aspect >= self.min_aspect_ratio) & (aspect <= self.max_aspect_ratio)
        return torch.cat([corner, corner + sides], 1)[allowed & (sides >= 1).all(1)]

    def _overlap(self, crops: Tensor, boxes: Tensor) -> Tensor:
        """The largest IoU of each crop with a box whose centre it holds; -1 where it holds none."""
        centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[None]
        held = ((centre > crops[:, None, :2]) & (centre < crops[:, None, 2:])).all(2)
        overlap: Tensor = box_iou(crops, boxes).masked_fill(~held, -1).amax(1)
        return overlap
