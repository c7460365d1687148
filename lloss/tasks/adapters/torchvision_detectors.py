"""torchvision's RetinaNet, FCOS, SSD and Faster R-CNN, up to their raw predictions.

Their own ``forward`` takes a list of images, prepares them, and returns either one loss of a batch
or boxes without their logits. Here they take a normalized batch. Of the losses, RetinaNet's are
means over the images of what each has by itself; FCOS and SSD divide by the positives of the whole
batch, Faster R-CNN by its sampled anchors and proposals: of one image, by the image's own.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.image_list import ImageList

from lloss.annotations.prediction import Prediction, found_objects
from lloss.errors import SettingsError
from lloss.modeling.networks.ssd import SsdOutput
from lloss.modeling.taps import blank_images, evaluating
from lloss.tasks.adapters.detector import Detector, Input, Truth, row_of
from lloss.tasks.detection.box_targets import ObjectBatch
from lloss.tasks.detection.image_scores import AnchorScores, of_sigmoid, of_softmax
from lloss.tasks.detection.multibox_loss import multibox_loss

BACKGROUND, UNUSED = "__background__", "N/A"
"""In torchvision's own lists of names: column 0, and numbers of COCO that no class has."""


class RawDetections(NamedTuple):
    """What a detector of torchvision makes of N images before it decodes boxes."""

    predictions: dict[str, Tensor]  # of its heads, each [N, A, ...]
    features: dict[str, Tensor]  # maps that the heads read, [N, C, h, w] each
    image: tuple[int, int]  # height and width of the input


class _Torchvision(Detector):
    """What all of them share."""

    own_trainer = "torchvision's references/detection or your own loop"
    exclusive = False  # whether classes exclude each other, background among them

    def __init__(self, network: nn.Module, classes: Sequence[str]) -> None:
        self.title = f"torchvision's {type(network).__name__}"
        super().__init__(network, classes)

    @abstractmethod
    def columns(self) -> int:
        """Return how many classes the network has, the background included where it has one."""

    def numbered(self, names: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
        columns = self.columns()
        if not names:
            raise SettingsError(
                f"{self.title}: name its classes in the order of its outputs; it has {columns}, "
                f"{BACKGROUND!r} included if you trained it as torchvision does"
            )
        if names[0] == BACKGROUND and len(names) == columns:
            names = names[1:]
        first = columns - len(names)
        if first not in ((1,) if self.exclusive else (0, 1)):
            fitting = columns - 1 if self.exclusive else f"{columns - 1} or {columns}"
            raise SettingsError(
                f"classes: {len(names)} names for a network of {columns} outputs, the first of "
                f"which is background by torchvision's rule: give {fitting}"
            )
        unused = (f"{UNUSED} {number}" for number in range(len(names)))
        numbers = [next(unused) if name == UNUSED else name for name in names]
        return tuple(numbers), first

    def input(self) -> Input:
        transform = self.network.transform
        fixed = transform.fixed_size
        multiple = int(transform.size_divisible)
        mean, std = transform.image_mean, transform.image_std
        if fixed:  # of SSD: width and height
            return Input((fixed[1], fixed[0]), "stretch", mean, std, 0, multiple)
        side = -(-transform.min_size[-1] // multiple) * multiple
        # It pads with 0 after normalization.
        return Input(side, "pad", mean, std, round(255 * sum(mean) / 3), multiple)

    def taps(self, image: tuple[int, int]) -> tuple[str, ...]:
        made: dict[int, str] = {}  # the outermost module that gave each tensor
        handles = [
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: made.update({id(output): name})
            )
            for name, module in self.network.named_modules()
        ]
        try:
            with evaluating(self.network):
                maps = self.run(self.network, blank_images(self.network, image)).features
        except Exception:  # a size that it cannot take, which the search for taps reports
            return ()
        finally:
            for handle in handles:
                handle.remove()
        # VGG's first map is scaled, and the last of an FPN may be pooled, outside any module.
        return tuple(made[id(found)] for found in maps.values() if id(found) in made)

    def images(self, output: RawDetections) -> int:
        return len(next(iter(output.features.values())))

    def run(self, network: Any, images: Tensor) -> RawDetections:
        features = network.backbone(images)
        if isinstance(features, Tensor):
            features = {"0": features}
        predictions = self.predict(network, list(features.values()))
        return RawDetections(predictions, dict(features), (images.shape[2], images.shape[3]))

    def predict(self, network: Any, features: list[Tensor]) -> dict[str, Tensor]:
        """Run the heads."""
        predictions: dict[str, Tensor] = network.head(features)
        return predictions

    def anchors(self, output: RawDetections) -> AnchorScores:
        logits = output.predictions["cls_logits"]
        return of_softmax(logits) if self.exclusive else of_sigmoid(logits[:, :, self.first :])

    def predictions(self, output: RawDetections) -> list[Prediction]:
        """Boxes after torchvision's own suppression, as its forward gives them."""
        with torch.no_grad():
            return [self._prediction(found, output.image) for found in self.detections(output)]

    def _prediction(self, found: dict[str, Tensor], image: tuple[int, int]) -> Prediction:
        kept = found["labels"] >= self.first  # not the background
        names = [self.classes[label - self.first] for label in found["labels"][kept].tolist()]
        boxes = found["boxes"][kept].cpu().numpy() / np.array([*image[::-1], *image[::-1]])
        scores = found["scores"][kept].cpu().numpy()
        return Prediction(found_objects(names, boxes, shares=True), scores)

    def detections(self, output: RawDetections) -> list[dict[str, Tensor]]:
        """Decode: ``boxes`` in pixels of the input, ``labels`` and ``scores`` of each image."""
        count = self.images(output)
        anchors, sizes = self._anchor_boxes(output) * count, [output.image] * count
        found: list[dict[str, Tensor]] = self.network.postprocess_detections(
            output.predictions, anchors, sizes
        )
        return found

    def losses(self, output: RawDetections, truths: Sequence[Truth]) -> list[Tensor]:
        boxes = self._anchor_boxes(output)
        losses = []
        for row, truth in enumerate(truths):
            target = [{"boxes": truth.boxes, "labels": truth.labels}]
            terms = self.terms(target, row_of(output.predictions, row), boxes, output)
            losses.append(torch.stack([*terms.values()]).sum())
        return losses

    def terms(
        self, target: Any, predictions: Any, boxes: list[Tensor], output: RawDetections
    ) -> dict[str, Tensor]:
        """Compute the terms of the loss of one image."""
        terms: dict[str, Tensor] = self.network.compute_loss(target, predictions, boxes)
        return terms

    def _anchor_boxes(self, output: RawDetections) -> list[Tensor]:
        """The anchors of one image, as a list."""
        features = list(output.features.values())
        boxes: list[Tensor] = self.network.anchor_generator(_image_list(output), features)
        return boxes


class RetinaNetDetector(_Torchvision):
    """Lin et al. 2017: focal loss, divided by the image's positives."""

    def columns(self) -> int:
        return int(self.network.head.classification_head.num_classes)

    def detections(self, output: RawDetections) -> list[dict[str, Tensor]]:
        count, (boxes,) = self.images(output), self._anchor_boxes(output)
        points = [found.shape[2] * found.shape[3] for found in output.features.values()]
        levels = [number * len(boxes) // sum(points) for number in points]
        heads = {name: [*torch.split(of, levels, 1)] for name, of in output.predictions.items()}
        found: list[dict[str, Tensor]] = self.network.postprocess_detections(
            heads, [[*torch.split(boxes, levels)]] * count, [output.image] * count
        )
        return found


class FcosDetector(RetinaNetDetector):
    """Tian et al. 2019: points instead of anchors, and a centre-ness of each."""

    def anchors(self, output: RawDetections) -> AnchorScores:
        logits = output.predictions["cls_logits"][:, :, self.first :]
        return of_sigmoid(logits, output.predictions["bbox_ctrness"].squeeze(2))

    def terms(
        self, target: Any, predictions: Any, boxes: list[Tensor], output: RawDetections
    ) -> dict[str, Tensor]:
        points = [found.shape[2] * found.shape[3] for found in output.features.values()]
        terms: dict[str, Tensor] = self.network.compute_loss(target, predictions, boxes, points)
        return terms


class SsdDetector(_Torchvision):
    """Liu et al. 2016, by the loss that lloss trains it with."""

    exclusive = True

    def columns(self) -> int:
        return int(self.network.head.classification_head.num_columns)

    def check_size(self, height: int, width: int) -> None:
        own = self.network.transform.fixed_size
        fixed = self.network.anchor_generator.steps is not None
        if fixed and (width, height) != tuple(own):
            raise SettingsError(
                f"size = {(height, width)}: the anchors of this SSD fit {own[0]} alone"
            )

    def losses(self, output: RawDetections, truths: Sequence[Truth]) -> list[Tensor]:
        found = output.predictions
        raw = SsdOutput(
            found["cls_logits"], found["bbox_regression"], self._anchor_boxes(output)[0]
        )
        return list(multibox_loss(raw, _batch(truths), self.network))


class FasterRcnnDetector(_Torchvision):
    """Ren et al. 2015: the predictions of its first stage, the loss of both.

    Classes are known of proposals alone, after suppression, which no graph of a fixed shape has:
    scores and summary are of the anchors' objectness.
    """

    exclusive = True

    def columns(self) -> int:
        return int(self.network.roi_heads.box_predictor.cls_score.out_features)

    def predict(self, network: Any, features: list[Tensor]) -> dict[str, Tensor]:
        objectness, _ = network.rpn.head(features)
        return {"objectness": torch.cat([found.flatten(1) for found in objectness], 1)[:, :, None]}

    def anchors(self, output: RawDetections) -> AnchorScores:
        return of_sigmoid(output.predictions["objectness"])

    def detections(self, output: RawDetections) -> list[dict[str, Tensor]]:
        """Run the rest of the network."""
        network, images = self.network, _image_list(output)
        detections = []
        with evaluating(network):
            for row in range(self.images(output)):
                features = row_of(output.features, row)
                proposals, _ = network.rpn(images, features)
                found, _ = network.roi_heads(features, proposals, images.image_sizes)
                detections += found
        return detections

    def losses(self, output: RawDetections, truths: Sequence[Truth]) -> list[Tensor]:
        """Run the rest of the network on each image alone, as in training.

        It draws 256 anchors and 512 proposals at random; in eval mode always the same ones.
        """
        images, parts = _image_list(output), (self.network.rpn, self.network.roi_heads)
        losses = []
        for row, truth in enumerate(truths):
            features = row_of(output.features, row)
            target = [{"boxes": truth.boxes, "labels": truth.labels}]
            with _in_training(*parts), _same_draws(not self.network.training, truth.boxes.device):
                proposals, first = parts[0](images, features, target)
                _, second = parts[1](features, proposals, images.image_sizes, target)
            losses.append(torch.stack([*first.values(), *second.values()]).sum())
        return losses


DETECTORS: dict[str, type[Detector]] = {
    "RetinaNet": RetinaNetDetector,
    "FCOS": FcosDetector,
    "SSD": SsdDetector,
    "FasterRCNN": FasterRcnnDetector,
}
"""By the class of torchvision."""


def _image_list(output: RawDetections) -> ImageList:
    """Stand for one image, of which torchvision reads the size alone."""
    some = next(iter(output.features.values()))
    return ImageList(some.new_empty(1, 0, *output.image), [output.image])


def _batch(truths: Sequence[Truth]) -> ObjectBatch:
    return ObjectBatch(
        pad_sequence([truth.boxes for truth in truths], batch_first=True),
        pad_sequence([truth.labels for truth in truths], batch_first=True),
        tuple(len(truth.labels) for truth in truths),
    )


@contextlib.contextmanager
def _in_training(*parts: nn.Module) -> Iterator[None]:
    """Have modules return losses, while the layers inside them keep their mode."""
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = True
        yield
    finally:
        for part, mode in zip(parts, modes):
            part.training = mode


@contextlib.contextmanager
def _same_draws(fixed: bool, device: torch.device) -> Iterator[None]:
    if not fixed:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield
