"""Networks with the attributes of Ultralytics' that the adapter reads."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

INSTALLED = importlib.util.find_spec("ultralytics") is not None


class Head(nn.Module):
    """Raw maps in train mode, decoded boxes too in eval mode; ``older`` ones have no dict."""

    def __init__(self, classes: int, older: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.nc, self.f, self.older, self.twice = classes, [0, 1], older, twice
        self.stride = torch.tensor([8.0, 16.0])
        self.cv2 = nn.ModuleList(nn.Conv2d(8, 4, 1) for _ in self.f)
        self.cv3 = nn.ModuleList(nn.Conv2d(8, classes, 1) for _ in self.f)

    def forward(self, maps: list[Tensor]) -> Any:
        boxes = [layer(found) for layer, found in zip(self.cv2, maps)]
        logits = [layer(found) for layer, found in zip(self.cv3, maps)]
        raw: Any = {
            "boxes": torch.cat([b.flatten(2) for b in boxes], 2),
            "scores": torch.cat([s.flatten(2) for s in logits], 2),
            "feats": maps,
        }
        if self.older:
            raw = [torch.cat(pair, 1) for pair in zip(boxes, logits)]
        if self.twice:
            raw = {"one2many": raw, "one2one": {**raw, "scores": 2 * raw["scores"]}}
        return raw if self.training else (torch.zeros(len(maps[0]), 4 + self.nc, 9), raw)


class Criterion:
    """Divides by all boxes of the batch and multiplies by its size, as YOLO's does."""

    def __init__(self, network: Any) -> None:
        self.gain = network.args.box

    def __call__(self, raw: Any, batch: dict[str, Tensor]) -> tuple[Tensor, None]:
        if "one2one" in raw:
            raw = raw["one2many"]
        scores = raw["scores"] if isinstance(raw, dict) else torch.cat(
            [found[:, 4:].flatten(2) for found in raw], 2
        )  # fmt: skip
        wanted = torch.zeros_like(scores)
        for image, name, box in zip(batch["batch_idx"], batch["cls"].view(-1), batch["bboxes"]):
            wanted[int(image), int(name), 0] = box.sum()
        cells = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none").sum()
        terms = torch.stack([cells, self.gain * batch["bboxes"].sum()])
        return terms / max(1, len(batch["bboxes"])) * len(scores), None


class DetectionModel(nn.Module):
    """What the adapter reads of Ultralytics' class of this name."""

    __module__ = "ultralytics.nn.tasks"

    def __init__(self, **head: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 2, 2), Head(2, **head))
        self.names, self.args = {0: "cell", 1: "platelet"}, {"imgsz": 96}
        self.stride = torch.tensor([8.0, 16.0])

    def forward(self, images: Tensor) -> Any:
        first = self.model[0](images)
        return self.model[2]([first, self.model[1](first)])

    def init_criterion(self) -> Criterion:
        return Criterion(self)


class SegmentationModel(DetectionModel):
    __module__ = "ultralytics.nn.tasks"


class Model(nn.Module):
    __module__ = "ultralytics.engine.model"

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model = network


class YOLO(Model):
    __module__ = "ultralytics.models.yolo.model"


def without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the package's default gains where it is not installed."""
    if INSTALLED:
        return
    package, utils = ModuleType("ultralytics"), ModuleType("ultralytics.utils")
    vars(utils)["DEFAULT_CFG_DICT"] = {"box": 7.5, "imgsz": 640}
    monkeypatch.setitem(sys.modules, "ultralytics", package)
    monkeypatch.setitem(sys.modules, "ultralytics.utils", utils)
