"""Attach a loss prediction head to a network of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lloss.errors import SettingsError
from lloss.images.decode import Fit, ImageSpec
from lloss.images.input_spec import Resample
from lloss.modeling import IMAGENET_MEAN, IMAGENET_STD
from lloss.modeling.attached_model import AttachedModel, Preparation, release_taps
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.network import TappedNetwork
from lloss.modeling.network_checks import check_alone, check_logits, check_weights
from lloss.modeling.network_source import (
    build_network,
    described_input,
    named_classes,
)
from lloss.modeling.objective import Objective
from lloss.modeling.prediction import described, prediction_of
from lloss.modeling.taps import Tap, blank_images, evaluating, find_taps
from lloss.tasks import get_task, task_names
from lloss.tasks.adapters import detector_of
from lloss.tasks.adapters.detector import Detector, Input
from lloss.tasks.outside_objective import NamedObjective, OwnObjective
from lloss.tasks.task import Task
from lloss.tasks.train_settings import Embedding, TrainSettings, check_kind


def attach(
    network: nn.Module | str,
    *,
    task: Any = "classification",
    classes: Sequence[str] = (),
    size: int | tuple[int, int] = 0,
    taps: Sequence[str] = (),
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    fit: Fit | None = None,
    share: float | None = None,
    resample: Resample | None = None,
    summary: bool = True,
    hidden: int = 128,
    keep_embedding: Embedding = "trained",
) -> AttachedModel:
    """Attach a fresh head to a network: ``out, predicted = model(images)``.

    The network stays as it is, but for a hook on each tapped module, and goes into the model, not a
    copy of it. Attaching again replaces the earlier head.

    Args:
        network: takes float [N, 3, H, W]; its output is a tensor, a tuple, a dict, or an output
            class of Hugging Face. Or a detector: torchvision's RetinaNet, FCOS, SSD or FasterRCNN,
            or Ultralytics' YOLO, whose output is then its predictions before they are decoded. Or
            ``timm:NAME`` or ``package.module:factory``: that network, with random weights.
        task: ``classification``, ``segmentation``, ``pose`` or ``detection``, where the network's
            output is what that task of lloss takes; or an object with ``loss_per_image(output,
            targets) -> float [N]`` and optionally ``outputs(output)``, a dict of tensors [N, ...]
            to export, ``summary(output) -> float [N, S]``, which the head sees too, and
            ``metric(output, targets) -> float [N]``. Its ``output`` is the network's own.
        classes: their names, in the order of the outputs; by default those of Hugging Face's
            ``config.id2label`` or of YOLO, and of other classifiers 0, 1, 2, ….
        size: of the input in pixels, a side or (height, width); by default that of timm's
            ``pretrained_cfg``, of Hugging Face's ``config.image_size`` or of the detector.
        taps: names of modules to read; by default found, see ``model.taps``.
        mean: of the channels in 0..1; by default of timm's ``pretrained_cfg``, of the detector, or
            ImageNet's.
        std: likewise.
        fit: resize mode, see :class:`lloss.ImageSpec`; by default the detector's, or ``crop``.
        share: of the middle that ``crop`` shows, see there; by default of timm's ``pretrained_cfg``
            (``crop_pct``), or 1.
        resample: filter, see there; by default of timm's ``pretrained_cfg``, or ``bilinear``.
        summary: whether the head sees a summary of the network's output too.
        hidden: units of the head for each input.
        keep_embedding: ``pretrained`` keeps a copy of the network as it is now, whose features an
            export gives as ``pretrained_embedding``, to select by diversity.

    Raises:
        SettingsError: the network cannot take such images, a tap is not a module with a feature
            map, or the network's output does not fit the task, or depends on other images.
    """
    check_kind("keep_embedding", keep_embedding, Embedding)
    if isinstance(network, AttachedModel):
        raise SettingsError("an AttachedModel: attach to its .network, for another head")
    known = get_task(task) if isinstance(task, str) else None
    network = _built(network, classes) if isinstance(network, str) else network
    detector = _detector(network, known, classes)
    if detector is None:
        check_weights(network, f"a {type(network).__name__}")
    network = detector.network if detector else network  # the one inside Ultralytics' YOLO
    usual = detector.input() if detector else _usual_input(network)
    height, width = _sides(size or usual.size)
    found, output = _tapped(network, (height, width), taps, detector)
    objective: Objective
    if detector:
        names, objective = _names(detector.classes), detector
    elif known:
        names = _class_names(known.name, classes, output, named_classes(network))
        objective = NamedObjective(_objective(known, names, height))
    else:
        names, objective = _names(classes), OwnObjective(task)
    name = known.name if known else _name_of(task)
    _check_output(objective, output, name)
    channels = [tap.channels for tap in found]
    head = LossPredictionHead(channels, objective.summary_size if summary else 0, hidden)
    release_taps(network)
    device = next(network.parameters(), torch.empty(0)).device
    pretrained = copy.deepcopy(network) if keep_embedding == "pretrained" else None
    tapped = TappedNetwork(network, objective, found, head.to(device), pretrained)
    check_alone(tapped, (height, width), f"a {type(network).__name__}")
    preparation = Preparation(
        image=_image_spec((height, width), usual, fit, share, resample),
        mean=_three("mean", mean or usual.mean),
        std=_three("std", std or usual.std),
    )
    model = AttachedModel(tapped, name, names, preparation)
    model.training = tapped.training = head.training = network.training
    return model


def _built(model: str, classes: Sequence[str]) -> nn.Module:
    if not classes:
        raise SettingsError(f"network {model!r}: name the classes that it is to be built for")
    return build_network(model, len(classes))


def _detector(network: nn.Module, known: Task | None, classes: Sequence[str]) -> Detector | None:
    """Make the detector that a network of a known library is; None for other networks."""
    make = detector_of(network) if known else None
    if make is None or known is None:
        return None
    if known.name != "detection":
        raise SettingsError(
            f'task {known.name!r}: a {type(network).__name__} finds objects; pass task="detection"'
        )
    return make(classes)


def _tapped(
    network: nn.Module, image: tuple[int, int], taps: Sequence[str], detector: Detector | None
) -> tuple[tuple[Tap, ...], Any]:
    """Choose the taps, and run the network on two images."""
    run: Callable[[nn.Module, Tensor], Any] = nn.Module.__call__
    if detector:
        detector.check_size(*image)
        taps, run = taps or detector.taps(image), detector.run
    found = find_taps(network, image, taps, run)
    with evaluating(network):
        return found, run(network, blank_images(network, image))


def _usual_input(network: nn.Module) -> Input:
    """The preparation of images that the network names itself; else ImageNet's."""
    found = described_input(network)
    mean, std = found.get("mean", IMAGENET_MEAN), found.get("std", IMAGENET_STD)
    resizing = {name: found[name] for name in ("share", "resample") if name in found}
    return Input(found.get("size", 0), "crop", mean, std, **resizing)


def _image_spec(
    sides: tuple[int, int],
    usual: Input,
    fit: Fit | None,
    share: float | None,
    resample: Resample | None,
) -> ImageSpec:
    """What is given, and else what is usual; a usual share is of ``crop``."""
    chosen = fit or usual.fit
    if share is None:
        share = usual.share if chosen == "crop" else 1.0
    return ImageSpec(
        *sides, chosen, fill=usual.fill, share=share, resample=resample or usual.resample
    )


def _sides(size: Any) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise SettingsError(f"size = {size!r}: give the input's side in pixels, or (height, width)")
    return sides[0], sides[1]


def _three(name: str, values: Sequence[float]) -> tuple[float, ...]:
    floats = tuple(float(value) for value in values)
    if name == "mean" and len(floats) == 3 and not all(0 <= value <= 1 for value in floats):
        raise SettingsError(
            f"mean = {floats}: is of channels in 0..1; divide a mean and std of 0..255 by 255"
        )
    if len(floats) != 3 or (name == "std" and min(floats) <= 0):
        above = ", each above 0" if name == "std" else ""
        raise SettingsError(f"{name} = {floats}: give three numbers{above}, one per channel")
    return floats


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(map(str, classes))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingsError(f"classes: {twice!r} is named twice")
    return names


def _class_names(
    task: str, classes: Sequence[str], output: Any, own: tuple[str, ...]
) -> tuple[str, ...]:
    """The given names, those of the network itself, or numbers; the outputs must be as many."""
    names = _names(classes)
    if task not in ("classification", "segmentation"):
        if not names:
            raise SettingsError(f"task {task!r}: name the classes, in the order of the outputs")
        return names
    logits, dims = prediction_of(output), 2 if task == "classification" else 4
    if not isinstance(logits, Tensor) or logits.ndim != dims or len(logits) != 2:
        wanted = "[N, classes]" if dims == 2 else "[N, classes, H, W]"
        raise SettingsError(
            f"task {task!r}: needs logits {wanted}, the network gives {described(logits)} for two "
            "images; give an object with loss_per_image(output, targets) as task"
        )
    if names and len(names) != logits.shape[1]:
        raise SettingsError(
            f"classes: {len(names)} names for a network of {logits.shape[1]} outputs"
        )
    check_logits(logits, f"task {task!r}")
    own = own if len(own) == logits.shape[1] else ()
    if names != own and sorted(names) == sorted(own):
        number = next(number for number, name in enumerate(own) if names[number] != name)
        raise SettingsError(
            f"classes: class {number} is {names[number]!r}, by the network's config.id2label "
            f"{own[number]!r}; leave classes out, or give them in the order of its outputs"
        )
    return names or own or tuple(map(str, range(logits.shape[1])))


def _objective(task: Task, names: Sequence[str], size: int) -> Objective:
    settings = TrainSettings(task=task.name, model=task.defaults("")["model"], size=size)
    return task.objective(settings, names)


def _name_of(task: Any) -> str:
    name = str(getattr(task, "name", "") or type(task).__name__)
    return type(task).__name__ if name in task_names() else name


def _check_output(objective: Objective, output: Any, name: str) -> None:
    """Try what the graph is to compute of an output, on the output of two images."""
    try:
        if isinstance(objective, OwnObjective):
            objective.probe(output)
            return
        objective.outputs(output)
        objective.summary(output)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(
            f"task {name!r}: does not fit the network's output, {described(output)}: {reason}"
        ) from error
