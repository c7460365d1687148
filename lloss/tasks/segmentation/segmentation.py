"""Semantic segmentation: a class for each pixel; mean pixel cross entropy, mean IoU.

Labels are PNG masks of their images' names: a pixel's value is its class, 255 is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, cast

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from lloss.annotations import Problems
from lloss.annotations.class_list import read_class_list
from lloss.annotations.json_fields import load_json
from lloss.annotations.label_studio import is_label_studio
from lloss.annotations.label_studio_masks import parse_masks
from lloss.annotations.label_types import NO_CLASS
from lloss.annotations.prediction import ClassMask, Prediction
from lloss.annotations.problems import AnnotationError
from lloss.data.annotation_folders import annotation_files
from lloss.data.labeled_set import class_names
from lloss.data.mask_files import keep_mask
from lloss.errors import ImageError, LabelError, SettingsError
from lloss.files import write_json
from lloss.images.decode import Pixels, decode_into, decode_mask, size_of
from lloss.modeling.objective import Objective
from lloss.modeling.prediction import prediction_of
from lloss.modeling.published_weights import Published, TorchvisionWeights
from lloss.pools import Item
from lloss.pools.image_files import read_file
from lloss.tasks.classification import ClassificationObjective, flip_crop
from lloss.tasks.frozen_heads import MapSize, PixelHead
from lloss.tasks.recipes import BUDGET, SGD, fine_tuning
from lloss.tasks.segmentation.mean_iou import UNKNOWN, Mask, MaskTarget, MeanIoU
from lloss.tasks.task import Decoding, Share, Task
from lloss.tasks.train_settings import NAMED_WEIGHTS, STATE_DICT, TrainSettings
from lloss.text.counts import part

MODELS = ("deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50", "fcn_resnet101")
STAGES = ("3", "6", "12", "16")  # of MobileNetV3: each resolution's last block, its last layer

Names: TypeAlias = Sequence[str]


@dataclass(frozen=True)
class MaskLabel:
    """A mask's file, its digest, and the name of each value that it has a pixel of."""

    path: str = field(repr=False)  # elsewhere it is the same label
    sha256: str
    names: dict[str, str]
    ignored: float = field(default=0.0, repr=False)  # share of the pixels that are of no class
    marks: ClassVar[str] = "pixel of a class"

    @property
    def empty(self) -> bool:
        """Whether no pixel is of a class."""
        return not self.names


class _Network(nn.Module):
    """torchvision's network, without what it puts around its output, float [N, C, H, W]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.network(images)["out"])


class SegmentationObjective(Objective):
    """Mean pixel cross entropy of logits, float [N, classes, H, W]; targets int64 [N, H, W]."""

    loss_unit = "nats per pixel"

    def __init__(self, classes: Names) -> None:
        self.classes = tuple(classes)
        self.pixels = ClassificationObjective(classes)
        self.summary_size = self.pixels.summary_size

    def loss_per_image(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy in nats, mean over the image's pixels of a known class; 0 without any."""
        each = self.pixels.loss_per_image(output, targets)
        return each.sum((1, 2)) / (targets >= 0).sum((1, 2)).clamp(min=1)

    def summary(self, output: Tensor) -> Tensor:
        """Each pixel's largest log-probabilities in falling order, averaged; detached."""
        return self.pixels.summary(output).mean((2, 3))

    def outputs(self, output: Tensor) -> dict[str, Tensor]:
        """``entropy`` in nats, ``margin`` and ``confidence``, each the mean over the pixels."""
        each = self.pixels.outputs(output)
        return {name: each[name].mean((1, 2)) for name in ("entropy", "margin", "confidence")}

    def meter(self, labels: Sequence[MaskLabel]) -> MeanIoU:
        """Classes that the network lacks have an IoU of 0."""
        names = class_names(name for label in labels for name in label.names.values())
        return MeanIoU(self.classes, [name for name in names if name not in self.classes])

    def predictions(self, output: Tensor) -> list[Prediction]:
        """Each pixel's class; a class's score is its mean probability over its pixels."""
        best, numbers = output.detach().float().softmax(1).cpu().max(1)
        members = F.one_hot(numbers, len(self.classes)).float()
        scores = (members * best[..., None]).sum((1, 2)) / members.sum((1, 2)).clamp(min=1)
        masks = numbers.to(torch.uint8).numpy()
        return [
            Prediction(ClassMask(mask, self.classes), row)
            for mask, row in zip(masks, scores.numpy())
        ]


class _Segmentation(Task):
    """A label is a :class:`MaskLabel`, a target a :class:`.MaskTarget`."""

    name = "segmentation"
    metric = "miou"
    metric_title = "mIoU"
    predicts_class = False
    counted = "Images with a pixel of each class"
    weights = (*NAMED_WEIGHTS, STATE_DICT)
    pretrained = "coco"
    part = "network"
    masks = True
    has_entropy = True
    may_be_empty = True

    def defaults(self, model: str) -> dict[str, Any]:
        """Inputs that show all of an image."""
        if model and model not in MODELS:
            raise SettingsError(f"model {model!r}: unknown; choose one of {', '.join(MODELS)}")
        return {"model": model or MODELS[0], "fit": "stretch"}

    def recipe(self, settings: TrainSettings, pretrained: bool) -> dict[str, Any]:
        """Smaller batches than a classifier's, and larger steps."""
        recipe = {**BUDGET, **SGD, "batch_size": 8, "lr": 0.02}
        return fine_tuning(recipe) if pretrained else recipe

    def input_sizes(self, settings: TrainSettings) -> tuple[int, int]:
        return 32, 256

    def build(self, settings: TrainSettings, classes: Names) -> nn.Module:
        made = get_model(settings.model, weights_backbone=None, num_classes=len(classes))
        return _Network(made)

    def published(self, settings: TrainSettings, weights: str) -> Published:
        """torchvision's weights: of the backbone, or of the whole network of COCO's images."""
        if weights == "coco":
            return TorchvisionWeights(settings.model, part="network")
        return TorchvisionWeights(
            settings.model.partition("_")[2],
            part="network.backbone",
            donor={"name": settings.model, "weights_backbone": "DEFAULT", "num_classes": 2},
            donor_part="backbone",
        )

    def frozen_head(
        self, maps: Sequence[MapSize], classes: Names, settings: TrainSettings
    ) -> nn.Module:
        return PixelHead(maps, len(classes), settings.size)

    def taps(self, settings: TrainSettings) -> tuple[str, ...]:
        """The backbone's stages: the classifier has too few channels."""
        of = [f"layer{stage}" for stage in range(1, 5)] if "resnet" in settings.model else STAGES
        return tuple(f"network.backbone.{name}" for name in of)

    def class_layers(self, names: Names) -> tuple[str, ...]:
        return tuple(name for name in names if ".classifier.4." in name)

    def prediction(self, output: Any, images: Tensor) -> Any:
        """Logits at the images' size; SegFormer and others give a quarter of it."""
        logits = prediction_of(output)
        if not isinstance(logits, Tensor) or logits.ndim != 4:
            return logits
        if logits.shape[2:] == images.shape[2:]:
            return logits
        return F.interpolate(logits, size=images.shape[2:], mode="bilinear", align_corners=False)

    def prediction_shape(self, settings: TrainSettings, classes: Names) -> tuple[int, ...]:
        return (len(classes), settings.size, settings.size)

    def objective(self, settings: TrainSettings, classes: Names) -> Objective:
        return SegmentationObjective(classes)

    def read_labels(self, path: Path, problems: Problems) -> dict[str, MaskLabel]:
        """A folder of masks, with the names of the classes in ``classes.txt``; or a copy.

        Or a JSON export of Label Studio, whose masks are kept in :data:`DATA_ROOT`.
        """
        if path.is_file():
            document = load_json(path)
            if is_label_studio(document):
                masks = parse_masks(document, str(path), problems)
                return {one.image: _label(keep_mask(one.pixels), one.classes) for one in masks}
            try:
                return {id: MaskLabel(**fields) for id, fields in document.items()}
            except (TypeError, AttributeError) as error:
                raise LabelError(f"{path}: holds no labels; give a folder of masks") from error
        names, found = read_class_list(path / "classes.txt"), {}
        for id, file in annotation_files(path, ".png", "masks", problems):
            with problems.skipping():
                found[id] = _label(file, names)
            if id not in found:
                problems.mark_unusable(str(path), id)
        if note := _ignored_note(found.values()):
            problems.note(f"{path}: {note}")
        return found

    def write_labels(self, labels: Mapping[str, MaskLabel], path: Path) -> None:
        write_json(path, {id: asdict(label) for id, label in labels.items()})

    def names(self, label: MaskLabel) -> Iterable[str]:
        return label.names.values()

    def check(self, labels: Sequence[MaskLabel], classes: Names) -> None:
        if len(classes) < 2:
            what = f"all pixels are of one class, {list(classes)}: label another first"
            note = _ignored_note(labels)  # masks of 0 and 255, as many programs write them
            raise LabelError(f"{what}; {note}" if note else what)

    def example(self, item: Item, label: MaskLabel, how: Decoding, out: Pixels) -> MaskTarget:
        """The mask is resized as the image is; the nearest pixel counts."""
        raw, mask = item.read(), _unchanged(label)
        size = size_of(raw)
        if size != mask.shape:
            raise LabelError(
                f"{label.path}: is {mask.shape[1]}×{mask.shape[0]} pixels, its image "
                f"{item.id!r} is {size[1]}×{size[0]}"
            )
        decode_into(raw, how.spec, out)
        to, classes = np.zeros(256, np.uint8), list(how.classes)
        for value, name in label.names.items():
            to[int(value)] = classes.index(name) + 1 if name in classes else UNKNOWN
        if how.cut:
            how.cut.add(size)
        return MaskTarget.of(to[mask], how.spec)

    def augment(
        self,
        images: Tensor,
        targets: list[MaskTarget],
        settings: TrainSettings,
        generator: Generator,
        share: Share | None = None,
    ) -> tuple[Tensor, list[MaskTarget]]:
        """Flip and crop; pixels from outside the image are of no class."""
        masks = torch.from_numpy(np.stack([target.mask for target in targets]))[..., None]
        both = flip_crop(torch.cat([images, masks], 3), settings, generator, share)
        return both[..., :3], [MaskTarget(mask) for mask in both[..., 3].numpy()]

    def collate(self, targets: Sequence[MaskTarget]) -> Tensor:
        """int64 [N, H, W]; -1 for no class, or none of the network's."""
        masks = torch.from_numpy(np.stack([target.mask for target in targets])).long()
        return masks.where(masks < UNKNOWN, 0) - 1


def _ignored_note(labels: Collection[MaskLabel]) -> str:
    having = [label.ignored for label in labels if label.ignored]
    if not having:
        return ""
    return (
        f"{part(len(having), len(labels), 'masks', 'have')} pixels of value {NO_CLASS}, "
        f"{sum(having) / len(labels):.0%} of all pixels: ignored by convention; if they are of a "
        "class, save them with another number"
    )


def _label(path: Path, names: Names) -> MaskLabel:
    mask = _mask(path)
    values = np.unique(mask[mask != NO_CLASS]).tolist()
    if names and len(values) and values[-1] >= len(names):
        raise AnnotationError(
            str(path), f"has the class {values[-1]}, classes.txt has {len(names)}"
        )
    named = {str(value): names[value] if names else str(value) for value in values}
    digest = hashlib.sha256(mask.tobytes()).hexdigest()
    return MaskLabel(str(path.absolute()), digest, named, float(np.mean(mask == NO_CLASS)))


def _mask(path: Path) -> Mask:
    """uint8 [H, W], upright."""
    try:
        return decode_mask(read_file(path))
    except ImageError as error:
        raise AnnotationError(str(path), f"cannot be read as a mask: {error}") from error


def _unchanged(label: MaskLabel) -> Mask:
    try:
        mask = _mask(Path(label.path))
    except AnnotationError as error:
        raise LabelError(f"{label.path}: {error.what}") from error
    if hashlib.sha256(mask.tobytes()).hexdigest() != label.sha256:
        raise LabelError(
            f"the mask {label.path} changed since the cycle was begun; "
            "restore it, or remove the cycle's folder to start it again"
        )
    return mask


TASK: Task = _Segmentation()
