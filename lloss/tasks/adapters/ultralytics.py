"""Ultralytics' YOLO detectors, up to their raw predictions.

Written against the public attributes of its networks, and imports nothing of the package (AGPL-3.0)
except, for the loss, through the network that the user has made with it. Its criterion sums over a
batch and divides by the sum of the batch's target scores; of one image, by the image's own.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from lloss.annotations.prediction import Prediction, found_objects
from lloss.errors import SettingsError
from lloss.tasks.adapters.detector import Detector, Input, Truth, row_of
from lloss.tasks.detection.image_scores import AnchorScores, of_sigmoid

SIDE = 640  # Of the input where the network does not say

FILL = 114  # Grey of its letterbox

LEAST, OVERLAP, MOST = 0.05, 0.7, 300
"""Least score of boxes, overlap from which the less sure of two is dropped (as its ``predict``
does), and how many are left."""

KEYS = {"batch_idx", "cls", "bboxes"}
"""Of a batch of its data loaders: the image, class, and x, y, width and height in 0..1 of boxes."""


class YoloDetector(Detector):
    """A ``DetectionModel`` of Ultralytics: YOLOv8, YOLO11, YOLO26 and others with such a head."""

    title = "Ultralytics' DetectionModel"
    own_trainer = "YOLO(...).train of Ultralytics"
    form = f"{Detector.form}, or a dict of 'batch_idx', 'cls' and 'bboxes' of a batch"

    def __init__(self, network: nn.Module, classes: Sequence[str]) -> None:
        head = getattr(network, "model")[-1]  # noqa: B009  nn.Module has no such attribute
        if getattr(head, "cv2", None) is None:
            raise SettingsError(
                f"{self.title}: it was fused for inference, without what its loss is of; load it "
                "again, and attach before predict, val or export"
            )
        super().__init__(network, classes)

    def numbered(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        own = self.network.names
        names = names or tuple(map(str, own.values() if isinstance(own, Mapping) else own))
        count = int(self.network.model[-1].nc)
        if len(names) != count:
            raise SettingsError(
                f"classes: {len(names)} names for a network of {count} outputs; leave classes out "
                "for the network's own names"
            )
        return names, 0

    def input(self) -> Input:
        side = dict(_gains(self.network)).get("imgsz") or SIDE
        multiple = int(self.network.stride.max())
        return Input(side, "pad", (0, 0, 0), (1, 1, 1), FILL, multiple)

    def taps(self, image: tuple[int, int]) -> tuple[str, ...]:
        return tuple(f"model.{at}" for at in self.network.model[-1].f)

    def images(self, output: Any) -> int:
        return len(_maps(output)[0])

    def run(self, network: Any, images: Tensor) -> Any:
        """Return what the network does in train mode: predictions that are not decoded."""
        head = network.model[-1]
        training, head.training = head.training, True  # its layers keep their mode
        try:
            return network(images)
        finally:
            head.training = training

    def anchors(self, output: Any) -> AnchorScores:
        return of_sigmoid(_logits(output, len(self.classes)))

    def predictions(self, output: Any) -> list[Prediction] | None:
        """Boxes that the head decodes, suppressed unless the head was trained without that."""
        decode = getattr(self.network.model[-1], "_inference", None)
        if decode is None:
            return None
        raw, sides = _branch(output), self._sides(output)
        with torch.no_grad():
            decoded = decode(raw).transpose(1, 2)[..., : 4 + len(self.classes)].float()
        return [self._prediction(rows, sides, final=raw is not output) for rows in decoded]

    def _prediction(self, rows: Tensor, sides: Tensor, final: bool) -> Prediction:
        """What rows [A, 4 + C] find; their boxes are edges where they are ``final``."""
        (scores, numbers), boxes = rows[:, 4:].max(1), rows[:, :4]
        if not final:
            centre, half = boxes[:, :2], boxes[:, 2:] / 2
            boxes = torch.cat([centre - half, centre + half], 1)
        sure = (scores >= LEAST).nonzero().view(-1)
        best = sure[scores[sure].argsort(descending=True)]
        if not final:
            best = best[batched_nms(boxes[best], scores[best], numbers[best], OVERLAP)]
        best = best[:MOST]
        names = [self.classes[number] for number in numbers[best].tolist()]
        places = (boxes[best] / sides).cpu().numpy()
        return Prediction(found_objects(names, places, shares=True), scores[best].cpu().numpy())

    def truths(self, output: Any, targets: Any) -> list[Truth]:
        """Read also the dict of a batch that Ultralytics' data loaders make."""
        if not isinstance(targets, Mapping) or not targets.keys() >= KEYS:
            return super().truths(output, targets)
        image = targets["batch_idx"].view(-1)
        boxes = targets["bboxes"] * self._sides(output).to(targets["bboxes"])
        boxes = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
        labels = targets["cls"].view(-1).long()
        return [
            Truth(boxes[image == row], labels[image == row]) for row in range(self.images(output))
        ]

    def losses(self, output: Any, truths: Sequence[Truth]) -> list[Tensor]:
        sides = self._sides(output)
        with _gains_as_attributes(self.network):
            criterion = self.network.init_criterion()
        losses = []
        for row, (boxes, labels) in enumerate(truths):
            boxes = boxes.to(sides)
            centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            batch = {
                "batch_idx": torch.zeros(len(labels), device=sides.device),
                "cls": labels.to(sides),
                "bboxes": torch.cat([centre, extent], 1) / sides,
            }
            loss, _ = criterion(row_of(output, row), batch)
            losses.append(loss.sum())
        return losses

    def _sides(self, output: Any) -> Tensor:
        """Width, height, width, height of the input in pixels."""
        found = _maps(output)[0]
        height, width = (int(side * self.network.stride[0]) for side in found.shape[2:])
        return torch.tensor([width, height, width, height], device=found.device).float()


def _branch(output: Any) -> Any:
    """The predictions that detections are made of: those of the head without suppression."""
    if isinstance(output, Mapping) and "one2one" in output:
        return output["one2one"]
    return output


def _maps(output: Any) -> list[Tensor]:
    """A map of each stride, [N, ., h, w]."""
    found = _branch(output)
    maps: list[Tensor] = found["feats"] if isinstance(found, Mapping) else found
    return maps


def _logits(output: Any, classes: int) -> Tensor:
    """Class logits [N, A, C]: of a dict, or (before 8.4) the last channels of each map."""
    found = _branch(output)
    if isinstance(found, Mapping):
        scores: Tensor = found["scores"]
    else:
        scores = torch.cat([values[:, -classes:].flatten(2) for values in found], 2)
    return scores.transpose(1, 2)


def _gains(network: nn.Module) -> Mapping[str, Any]:
    """What the network was trained with, as far as it keeps it."""
    args = getattr(network, "args", None) or {}
    return args if isinstance(args, Mapping) else vars(args)


@contextlib.contextmanager
def _gains_as_attributes(network: Any) -> Iterator[None]:
    """Give a network outside its trainer the weights of the loss, as its trainer does."""
    missing = object()
    own = network.__dict__.get("args", missing)
    defaults = importlib.import_module("ultralytics.utils").DEFAULT_CFG_DICT
    network.args = SimpleNamespace(**{**defaults, **_gains(network)})
    try:
        yield
    finally:
        del network.args
        if own is not missing:
            network.args = own
