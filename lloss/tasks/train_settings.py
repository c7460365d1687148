"""Everything that decides what a training run computes."""

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from lloss.errors import SettingsError
from lloss.images.decode import Fit, ImageSpec
from lloss.tasks.presets import OF_THE_MODEL, PRESETS, recipe_of

HeadLossName = Literal["margin", "ranknet", "soft-pairs", "mse"]
Augment = Literal["none", "flip", "crop", "flip-crop", "ssd", "pose"]
Optimizer = Literal["sgd", "rmsprop", "adam"]
LossNorm = Literal["positives", "none"]
Schedule = Literal["onecycle", "step"]
Amp = Literal["auto", "off", "bf16"]

CLASSIFICATION = "classification"
"""The task whose defaults are those of the fields; others bring their own (``Task.defaults``)."""

AUGMENTS: tuple[Augment, ...] = ("none", "flip", "crop", "flip-crop")
"""What most tasks have."""

STATE_DICT = "the path of a state dict"
WEIGHTS = ("none", "imagenet", STATE_DICT)
"""What most tasks start from."""

NAMED_WEIGHTS = ("none", "imagenet", "coco")
OF_ONE_TASK = {"loss_norm": "detection", "flip_test": "pose"}
"""Settings that mean something to one task alone."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _setting(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run. Each field is an option of ``lloss train`` and a key of ``lloss.toml``."""

    task: str = _setting(
        CLASSIFICATION,
        "What is learned, such as detection, pose, segmentation; it brings its own defaults.",
    )
    model: str = _setting("resnet18", "The network: torchvision's name, or one of lloss's own.")
    weights: str = _setting(
        "none", "What it starts from: none, imagenet, coco (detection), or a state dict's path."
    )
    size: int = _setting(0, "Side of the square input in pixels; 0 for the model's own.")
    fit: Fit = _setting("crop", "How an image comes to that size.")
    white: int = _setting(
        0, "Value that is white in grey images of over 8 bits, as 4095; 0: 65535 of 16 bits."
    )
    taps: tuple[str, ...] = _setting((), "Modules that the head reads; none: chosen by itself.")
    head: bool = _setting(True, "Train a loss prediction head; without one it is a baseline.")
    head_loss: HeadLossName = _setting("soft-pairs", "What the head is trained by.")
    head_summary: bool = _setting(True, "The head also sees the network's own outputs, detached.")
    hidden: int = _setting(128, "Hidden units of the head for each tap.")
    xi: float = _setting(1.0, "Margin of the margin loss.")
    head_weight: float = _setting(1.0, "Lambda: weight of the head's loss in the total.")
    gradient_stop: int = _setting(
        0, "Epochs during which the head's gradient reaches the network; 0: none, -1: all."
    )
    epochs: int = _setting(60, "Passes over the labeled images.")
    batch_size: int = _setting(64, "Images a step; an epoch is cut into nearly equal batches.")
    optimizer: Optimizer = _setting("sgd", "What takes the steps.")
    lr: float = _setting(
        0.01, "Peak learning rate; 0.1 for resnet*-cifar, less (by adam) for transformers."
    )
    momentum: float = _setting(0.9, "Momentum of sgd and rmsprop.")
    weight_decay: float = _setting(5e-4, "Weight decay.")
    schedule: Schedule = _setting("onecycle", "Rise and cosine fall, or times 0.1 at milestones.")
    milestones: tuple[int, ...] = _setting((), "Epochs at which `step` lowers the learning rate.")
    augment: Augment = _setting("flip-crop", "Random change of the training images.")
    crop_padding: int = _setting(-1, "Pixels of zeros around before the crop; -1: size / 8.")
    loss_norm: LossNorm = _setting(
        "positives", "Detection: an image's loss is divided by its positive anchors, or is not."
    )
    flip_test: bool = _setting(
        False, "Pose: measure on heatmaps averaged with those of the mirrored image."
    )
    mean: tuple[float, float, float] = _setting(
        IMAGENET_MEAN, "Subtracted from the channels of images scaled to 0..1."
    )
    std: tuple[float, float, float] = _setting(IMAGENET_STD, "The channels are divided by it.")
    seed: int = _setting(0, "Random seed of weights, order of images and augmentation.")
    amp: Amp = _setting("auto", "Mixed precision; auto: bf16 where the hardware computes in it.")
    compile: bool = _setting(False, "Run the network through torch.compile.")

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check_kind(field.name, getattr(self, field.name), hints[field.name])
        at_least = {
            "epochs": 1, "batch_size": 2, "hidden": 1, "size": 0, "seed": 0,
            "gradient_stop": -1, "crop_padding": -1, "white": 0,
        }  # fmt: skip
        for name, low in at_least.items():
            if getattr(self, name) < low:
                raise SettingsError(f"{name} = {getattr(self, name)}: must be at least {low}")
        for name in ("momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} = {getattr(self, name)}: must be 0 or more")
        if min(self.milestones, default=0) < 0:
            raise SettingsError(f"milestones = {self.milestones}: epochs are counted from 0")
        if not (0 < self.lr < math.inf and self.head_weight >= 0 and self.xi >= 0):
            raise SettingsError(
                f"lr = {self.lr}, head_weight = {self.head_weight}, xi = {self.xi}: "
                "lr must be above 0, the others not below"
            )
        if not all(0 < value < math.inf for value in self.std):
            raise SettingsError(f"std = {self.std}: must be above 0")

    @property
    def padding(self) -> int:
        """The crop's padding in pixels, for a size that is known."""
        return self.size // 8 if self.crop_padding < 0 else self.crop_padding

    def image_spec(self, side: int = 0, fit: Fit | None = None) -> ImageSpec:
        """How an image becomes a square of ``side`` pixels, by default the input."""
        return ImageSpec(side or self.size, side or self.size, fit or self.fit, self.white)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON, TOML and checkpoints can hold them (tuples as lists)."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "settings") -> TrainSettings:
        """The reverse of :meth:`as_dict`; keys left out take their defaults.

        Raises:
            SettingsError: an unknown key or an unusable value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise SettingsError(
                f"{where}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        tupled = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**tupled)  # type: ignore[arg-type]  # __post_init__ checks their kinds


_KINDS: dict[Any, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
}


def _check_kind(name: str, value: Any, hint: Any) -> None:
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in inner:
            raise SettingsError(f"{name} = {value!r}: choose one of {', '.join(inner)}")
    elif typing.get_origin(hint) is tuple:
        free = Ellipsis in inner
        if not isinstance(value, tuple) or not (free or len(value) == len(inner)):
            many = "a list" if free else f"a list of {len(inner)}"
            raise SettingsError(f"{name} = {value!r}: must be {many}")
        for element in value:
            _check_kind(name, element, inner[0])
    elif not isinstance(value, _KINDS[hint]) or (isinstance(value, bool) and hint is not bool):
        raise SettingsError(f"{name} = {value!r}: must be {getattr(hint, '__name__', hint)}")


def check_choices(
    settings: TrainSettings,
    augments: Collection[str] = AUGMENTS,
    weights: Collection[str] = WEIGHTS,
) -> None:
    """Refuse what the task does not have: it would be left out of account without a word.

    Args:
        settings: of the task.
        augments: that it has.
        weights: that it starts from, by name; :data:`STATE_DICT` stands for any path.

    Raises:
        SettingsError: naming the value and what is possible.
    """
    task, start = settings.task, settings.weights
    if settings.augment not in augments:
        raise SettingsError(f"augment = {settings.augment!r}: {task} has {', '.join(augments)}")
    if start not in weights and (start in NAMED_WEIGHTS or STATE_DICT not in weights):
        raise SettingsError(f"weights {start!r}: {task} starts from {' or '.join(weights)}")
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if OF_ONE_TASK.get(field.name, task) != task and value != field.default:
            raise SettingsError(
                f"{field.name} = {value!r}: is for {OF_ONE_TASK[field.name]} alone, not for "
                f"{task}; leave it out"
            )


def settings_of(preset: str, where: str = "settings", **given: Any) -> TrainSettings:
    """The task's defaults, a preset's settings over them, and over both what is given.

    Of a preset that is of another model, what is :data:`.OF_THE_MODEL` does not count.

    Args:
        preset: one of :data:`lloss.tasks.presets.PRESETS`.
        where: what messages name as the source of what is given.
        given: fields; those given as None are not.

    Raises:
        SettingsError: no such preset or task, an unusable value, or one that the task has not.
    """
    if preset not in PRESETS:
        raise SettingsError(f"preset {preset!r}: choose one of {', '.join(PRESETS)}")
    values = _over_preset(preset, {k: v for k, v in given.items() if v is not None})
    name = values.get("task", CLASSIFICATION)
    if name == CLASSIFICATION:  # which is told without torch
        recipe = {} if PRESETS[preset] else recipe_of(str(values.get("model", "")))
        settings = TrainSettings.from_dict({**recipe, **values}, where)
        check_choices(settings)
        return settings
    # By name: the tasks know the settings.
    task = importlib.import_module("lloss.tasks").get_task(name)
    settings = TrainSettings.from_dict({**task.defaults(values.get("model", "")), **values}, where)
    task.check_settings(settings)
    return settings


def _over_preset(preset: str, given: dict[str, Any]) -> dict[str, Any]:
    own = PRESETS[preset]
    values = {**own, **given}
    if own.get("task", values.get("task")) != values.get("task"):
        raise SettingsError(
            f"preset {preset!r}: is of {own['task']}, not of {given['task']!r}; "
            "leave the task out, or choose another preset"
        )
    if own.get("model") == values.get("model"):
        return values
    others = OF_THE_MODEL.get(preset, ())
    return {k: v for k, v in values.items() if k in given or k not in others}
