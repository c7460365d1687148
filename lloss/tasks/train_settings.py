"""Everything that decides what a training run computes."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

from lloss.errors import SettingsError
from lloss.images.decode import Fit, ImageSpec
from lloss.images.input_spec import Resample
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.tasks import task_names

Augment = Literal["none", "flip", "crop", "flip-crop", "ssd", "pose"]
Optimizer = Literal["auto", "sgd", "rmsprop", "adam", "adamw"]
LossNorm = Literal["positives", "none"]
Schedule = Literal["onecycle", "step"]
Amp = Literal["auto", "off", "bf16"]
Embedding = Literal["trained", "pretrained"]
Filter = Literal["auto", "bilinear", "bicubic"]

STATE_DICT = "the path of a state dict"
NAMED_WEIGHTS = ("none", "imagenet", "coco")

AUTOMATIC: dict[str, Any] = {
    "weights": "auto",
    "size": 0,
    "share": 0.0,
    "resample": "auto",
    "epochs": 0,
    "batch_size": 0,
    "optimizer": "auto",
    "lr": 0.0,
    "weight_decay": -1.0,
    "clip": -1.0,
    "fresh_lr": 0.0,
}
"""Values that leave a setting to :func:`lloss.training.decisions.decide`."""

PLAIN: dict[str, Any] = {"share": 1.0, "resample": "bilinear"}
"""How images are resized where no record asks for more; of earlier versions always."""

ENDED = [("flip_test", False)]  # Of files of earlier versions: without effect


def _setting(default: Any, help: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training run. Each field is an option of ``lloss train`` and a key of ``lloss.toml``.

    The defaults are those of classification; :func:`.resolve_settings` fills in a task's own.
    """

    task: str = _setting("classification", f"{', '.join(task_names())}; brings its defaults.")
    model: str = _setting(
        "resnet18", "The network: of torchvision or lloss, timm:NAME, or package.module:factory."
    )
    model_args: tuple[str, ...] = _setting((), "Argument of its factory, as depth=3. Repeatable.")
    weights: str = _setting("auto", "First weights: none, imagenet, coco, or a state dict's path.")
    size: int = _setting(0, "Side of the square input in pixels; 0: automatic.")
    fit: Fit = _setting("crop", "Resize mode.")
    share: float = _setting(0.0, "Share of the middle's sides that fit crop shows; 0: automatic.")
    resample: Filter = _setting("auto", "Filter that resizes.")
    white: int = _setting(0, "White level of images of over 8 bits, as 4095; 0: 65535 of 16 bits.")
    keep_embedding: Embedding = _setting(
        "trained", "pretrained: also export features of the first weights, to select by diversity."
    )
    taps: tuple[str, ...] = _setting((), "Modules that the head reads; none: found automatically.")
    head: bool = _setting(True, "Train a loss prediction head; without one it is a baseline.")
    head_loss: str = _setting(
        "soft-pairs", "Loss of the head: soft-pairs, margin (the paper's), mse."
    )
    head_summary: bool = _setting(True, "The head also sees the network's own outputs, detached.")
    hidden: int = _setting(128, "Hidden units of the head for each tap.")
    xi: float = _setting(1.0, "Margin of the margin loss.")
    head_weight: float = _setting(1.0, "Lambda: weight of the head's loss in the total.")
    gradient_stop: int = _setting(0, "Epochs whose head gradient reaches the network; -1: all.")
    epochs: int = _setting(0, "Passes over the labeled images; 0: automatic.")
    batch_size: int = _setting(0, "Most images per step; 0: automatic.")
    optimizer: Optimizer = _setting("auto", "Optimizer.")
    lr: float = _setting(0.0, "Peak learning rate; 0: automatic.")
    momentum: float = _setting(0.9, "Momentum of sgd and rmsprop.")
    weight_decay: float = _setting(-1.0, "Weight decay; -1: automatic.")
    clip: float = _setting(-1.0, "Largest norm of a gradient; 0: none, -1: automatic.")
    fresh_lr: float = _setting(
        0.0, "Learning rate of layers without trained weights, as a multiple of lr; 0: automatic."
    )
    schedule: Schedule = _setting("onecycle", "Rise and cosine fall, or times 0.1 at milestones.")
    milestones: tuple[int, ...] = _setting((), "Epochs at which `step` lowers the learning rate.")
    augment: Augment = _setting("flip-crop", "Random changes of the training images.")
    crop_padding: int = _setting(-1, "Pixels of zeros around before the crop; -1: size / 8.")
    loss_norm: LossNorm = _setting("positives", "What divides an image's loss (detection).")
    mean: tuple[float, float, float] = _setting(IMAGENET_MEAN, "Subtracted from images in 0..1.")
    std: tuple[float, float, float] = _setting(IMAGENET_STD, "The channels are divided by it.")
    seed: int = _setting(0, "Random seed of weights, order of images and augmentation.")
    amp: Amp = _setting("auto", "Mixed precision; auto: bf16 where the hardware computes in it.")
    freeze: bool = _setting(
        False, "Leave the network as --weights has it; train the head, and a last layer if fresh."
    )
    folds: int = _setting(
        -1, "Cross-validation: more trainings that measure on the labels; 0: none, -1: automatic."
    )
    compile: bool = _setting(False, "Run the network through torch.compile.")

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check_kind(field.name, getattr(self, field.name), hints[field.name])
        at_least = {
            "epochs": 0, "batch_size": 0, "hidden": 1, "size": 0, "seed": 0,
            "gradient_stop": -1, "crop_padding": -1, "white": 0, "folds": -1,
            "momentum": 0, "lr": 0, "head_weight": 0, "xi": 0, "fresh_lr": 0,
        }  # fmt: skip
        for name, low in at_least.items():
            if not low <= getattr(self, name) < math.inf:
                raise SettingsError(f"{name} = {getattr(self, name)}: must be {low} or more")
        if min(self.milestones, default=0) < 0:
            raise SettingsError(f"milestones = {self.milestones}: epochs are counted from 0")
        if self.batch_size == 1:
            raise SettingsError("batch_size = 1: must be 2 or more, or 0 for automatic")
        if self.folds == 1:
            raise SettingsError("folds = 1: must be 2 or more, 0 for none, or -1 for automatic")
        if not 0 <= self.share <= 1:
            raise SettingsError(f"share = {self.share}: must be above 0 to 1, or 0 for automatic")
        if 0 < self.share < 1 and self.fit != "crop":
            raise SettingsError(f"share = {self.share}: is for fit crop; leave it out")
        for name in ("weight_decay", "clip"):
            value = getattr(self, name)
            if not (value == -1 or 0 <= value < math.inf):
                raise SettingsError(f"{name} = {value}: must be 0 or more, or -1 for automatic")
        if not all(0 < value < math.inf for value in self.std):
            raise SettingsError(f"std = {self.std}: must be above 0")

    @property
    def undecided(self) -> tuple[str, ...]:
        """The names of the settings that are left to :func:`.decide`."""
        return tuple(name for name, value in AUTOMATIC.items() if getattr(self, name) == value)

    def filled_from(self, other: TrainSettings) -> TrainSettings:
        """Take the values of another run for all that is undecided here."""
        values: dict[str, Any] = {name: getattr(other, name) for name in self.undecided}
        return dataclasses.replace(self, **values)

    @property
    def padding(self) -> int:
        """Padding of the crop in pixels."""
        return self.size // 8 if self.crop_padding < 0 else self.crop_padding

    def image_spec(self, side: int = 0, fit: Fit | None = None) -> ImageSpec:
        """Return how an image becomes a square of ``side`` pixels, by default the input."""
        side, fit = side or self.size, fit or self.fit
        share = (self.share if fit == "crop" else 0) or PLAIN["share"]
        resample: Resample = "bilinear" if self.resample == "auto" else self.resample
        return ImageSpec(side, side, fit, self.white, share=share, resample=resample)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON, TOML and checkpoints can hold them (tuples as lists)."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "settings") -> TrainSettings:
        """Reverse :meth:`as_dict`; ``SettingsError`` for an unknown key or an unusable value."""
        values = {key: value for key, value in values.items() if (key, value) not in ENDED}
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(values.keys() - known)
        if unknown:
            raise SettingsError(
                f"{where}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        tupled = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**tupled)  # type: ignore[arg-type]  # __post_init__ checks their kinds


_KINDS: dict[Any, Any] = {bool: bool, int: int, float: (int, float), str: str}


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Raise a :class:`SettingsError` unless the value has the type of its annotation."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in inner:
            raise SettingsError(
                f"{name} = {value!r}: choose one of {', '.join(filter(None, inner))}"
            )
    elif typing.get_origin(hint) is tuple:
        free = Ellipsis in inner
        if not isinstance(value, tuple) or not (free or len(value) == len(inner)):
            many = "a list" if free else f"a list of {len(inner)}"
            raise SettingsError(f"{name} = {value!r}: must be {many}")
        for element in value:
            check_kind(name, element, inner[0])
    elif not isinstance(value, _KINDS[hint]) or (isinstance(value, bool) and hint is not bool):
        raise SettingsError(f"{name} = {value!r}: must be {getattr(hint, '__name__', hint)}")
