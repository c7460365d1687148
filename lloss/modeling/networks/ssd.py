"""Single-shot detectors of torchvision as one network: images to logits, offsets and anchors.

Liu et al. 2016, "SSD: Single Shot MultiBox Detector". All parts are torchvision's own; they are
put together so that a batch's output is tensors and the source maps can be tapped.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD, SSDFeatureExtractorVGG

from lloss.errors import SettingsError
from lloss.modeling.published_weights import TorchvisionWeights

MODELS = ("ssdlite320_mobilenet_v3_large", "ssd300_vgg16")

BACKBONES = {
    "ssdlite320_mobilenet_v3_large": ("mobilenet_v3_large", "IMAGENET1K_V1"),
    "ssd300_vgg16": ("vgg16", "IMAGENET1K_FEATURES"),
}
"""The backbone of each, and the weights that torchvision itself starts it from."""

SOURCES = 6  # Feature maps that the heads read
SMALLEST = 32  # Side in pixels below which the first source map would have a single position

BN_MOMENTUM = 0.1
"""How fast running statistics follow. torchvision's 0.03 is for long runs: in one of a few hundred
steps they lag behind the weights so far that a network which learns well detects nothing."""

_CLASS_LAYER = re.compile(r"classification_head\.module_list\.\d+\.(1\.)?(weight|bias)$")


class SsdOutput(NamedTuple):
    """What a detector makes of N images with A anchors and C classes."""

    logits: Tensor  # float [N, A, C + 1]; column 0 is the background
    # Float [N, A, 4]: boxes relative to the anchors, as torchvision's coder has them
    offsets: Tensor
    anchors: Tensor  # float32 [A, 4]: x0, y0, x1, y1 in pixels of the input


class SsdNetwork(nn.Module):
    """A detector of torchvision for inputs of one size: float [N, 3, S, S] to :class:`SsdOutput`.

    The source maps pass through ``sources.0`` to ``sources.5``, where a hook can read them.
    ``anchors`` are those for this size, float32 [A, 4].
    """

    anchors: Tensor

    def __init__(self, ssd: SSD, anchors: Tensor) -> None:
        super().__init__()
        self.ssd = ssd
        self.sources = nn.ModuleList(nn.Identity() for _ in range(SOURCES))
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor) -> SsdOutput:
        """Logits and offsets of a normalised batch."""
        maps = [tap(found) for tap, found in zip(self.sources, self._maps(images))]
        found = self.ssd.head(maps)
        return SsdOutput(found["cls_logits"], found["bbox_regression"], self.anchors)

    def _maps(self, images: Tensor) -> list[Tensor]:
        backbone = self.ssd.backbone
        if isinstance(backbone, SSDFeatureExtractorVGG):
            return self._vgg_maps(images)
        maps = []
        features = images
        for block in backbone.features:
            features = block(features)
            maps.append(features)
        # The rest is tiny, and oneDNN's bf16 gradient of a depthwise convolution with stride 2 on a
        # single pixel is garbage: what it leaves unset for the weights that see only padding.
        with torch.autocast(images.device.type, enabled=False):
            features = features.to(next(backbone.extra.parameters()).dtype)
            for block in backbone.extra:
                features = block(features)
                maps.append(features)
        return maps

    def _vgg_maps(self, images: Tensor) -> list[Tensor]:
        backbone = self.ssd.backbone
        # As its own forward(), except the norm: 512 squares of VGG's activations overflow float16,
        # and the norm's epsilon is 0 there.
        features = backbone.features(images)
        with torch.autocast(images.device.type, enabled=False):
            scale = backbone.scale_weight.float().view(1, -1, 1, 1)
            maps = [(scale * F.normalize(features.float())).to(features.dtype)]
        for block in backbone.extra:
            features = block(features)
            maps.append(features)
        return maps

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SsdNetwork:
        anchors = self.anchors
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # In float16 pixels above 256 would be in steps of 1/4.
        self.anchors = anchors.to(self.anchors.device)
        return self


def build_detector(model: str, classes: int, size: int = 0) -> SsdNetwork:
    """Build one of :data:`MODELS` for so many classes, without the background.

    Raises ``SettingsError`` for an unknown model, or a size (0: its own) that it cannot take.
    """
    anchors = anchors_of(model, size or own_size(model))
    return SsdNetwork(_fresh(model, classes), anchors)


def published(model: str, weights: str) -> TorchvisionWeights:
    """torchvision's weights: ``imagenet`` of the backbone, ``coco`` of the whole detector.

    The narrow last blocks of SSDLite, and what follows the backbone, have none of ImageNet.
    """
    if weights == "coco":
        return TorchvisionWeights(model, "COCO_V1", part="ssd")
    donor, of = BACKBONES[model]
    return TorchvisionWeights(
        donor,
        of,
        part="ssd.backbone",
        donor={"name": model, "weights": None, "weights_backbone": of, "num_classes": 2},
        donor_part="backbone",
        drawn=("extra.", "scale_weight"),
        fresh=("extra.", "scale_weight", "features.1."),
    )


@functools.cache
def reference(model: str) -> SSD:
    """torchvision's detector without weights: its matcher, coder, thresholds and normalisation."""
    with torch.device("meta"):
        return _fresh(model, 1).eval()


def own_size(model: str) -> int:
    """Side of the input in pixels that the model was made for."""
    return int(reference(model).transform.fixed_size[0])


def anchors_of(model: str, size: int) -> Tensor:
    """The anchors, float32 [A, 4], for inputs of a size; ``SettingsError`` for one it lacks."""
    ssd, own = reference(model), own_size(model)
    if ssd.anchor_generator.steps is not None and size != own:
        # Its anchors are at steps in pixels that fit one size.
        raise SettingsError(
            f"size = {size}: {model} takes {own} alone; {MODELS[0]} takes other sizes"
        )
    if size < SMALLEST:
        raise SettingsError(f"size = {size}: {model} needs {SMALLEST} pixels or more")
    with torch.no_grad(), torch.device("cpu"):
        maps = ssd.backbone(torch.zeros(1, 3, size, size, device="meta")).values()
        grids = [torch.empty(1, 1, *found.shape[2:]) for found in maps]
        images = ImageList(torch.empty(1, 3, size, size), [(size, size)])
        anchors: Tensor = ssd.anchor_generator(images, grids)[0]
    return anchors


def is_class_layer(name: str) -> bool:
    """Whether a parameter's shape depends on the number of classes."""
    return _CLASS_LAYER.search(name) is not None


def _fresh(model: str, classes: int) -> SSD:
    if model not in MODELS:
        raise SettingsError(f"model {model!r}: detection has {' and '.join(MODELS)}")
    made: SSD = get_model(model, weights=None, weights_backbone=None, num_classes=classes + 1)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = BN_MOMENTUM
    return made
