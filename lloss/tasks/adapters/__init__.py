"""Networks of other libraries that need more than a call with a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from lloss.errors import SettingsError

if TYPE_CHECKING:
    from lloss.tasks.adapters.detector import Detector

WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}
"""Classes of torch around a network, and where they keep it."""

OTHERS = ("MaskRCNN", "KeypointRCNN")
"""Detectors of torchvision whose loss needs more than boxes."""

_OWN_TASK = "or give an object with loss_per_image(output, targets) as task"


def detector_of(network: Any) -> Callable[[Sequence[str]], Detector] | None:
    """Return what makes a :class:`.Detector` of a network, given its class names; None for others.

    A network is known by the module of its class, without importing its library. Raises
    ``SettingsError`` for one of these libraries that cannot be attached as it is.
    """
    kind = type(network).__name__
    inner = getattr(network, WRAPPERS.get(kind, ""), None)
    if inner is not None and detector_of(inner):
        raise SettingsError(
            f"a {type(inner).__name__} in a {kind}: attach to its .{WRAPPERS[kind]}, then wrap "
            "the attached model"
        )
    if name := _known(network, "ultralytics"):
        return _of_ultralytics(network, name)
    name = _known(network, "torchvision.models.detection")
    if name in OTHERS:
        raise SettingsError(
            f"torchvision's {name}: its loss needs more than boxes; attach a RetinaNet, FCOS, SSD "
            f"or FasterRCNN, {_OWN_TASK}"
        )
    if not name:
        return None
    from lloss.tasks.adapters.torchvision_detectors import DETECTORS

    found = DETECTORS.get(name)
    return None if found is None else lambda classes: found(network, classes)


def _known(network: object, library: str) -> str:
    """The name of the first class of a library that the network is of; "" for none."""
    of_library = (
        kind.__name__
        for kind in type(network).__mro__
        if kind.__module__ == library or kind.__module__.startswith(f"{library}.")
    )
    return next(of_library, "")


def _of_ultralytics(network: Any, name: str) -> Callable[[Sequence[str]], Detector]:
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(network).__mro__}
    if "ultralytics.engine.model.Model" in kinds:  # YOLO("file"), around its network
        network = network.model
        if not isinstance(network, nn.Module):
            raise SettingsError(
                f"Ultralytics' {name} of {network!r}: an exported file has no network to attach "
                "to; open the .pt file that it was exported from"
            )
        name = _known(network, "ultralytics")
    if name != "DetectionModel":
        raise SettingsError(
            f"Ultralytics' {name}: only its DetectionModel has a loss of boxes that is known here; "
            f"attach one, {_OWN_TASK}"
        )
    from lloss.tasks.adapters.ultralytics import YoloDetector

    return lambda classes: YoloDetector(network, classes)
