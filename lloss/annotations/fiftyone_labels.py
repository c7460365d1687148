"""Labels of FiftyOne's samples, as dictionaries: of a dataset, or of an export's ``samples.json``.

Boxes are x, y, width, height as shares of the image. See https://docs.voxel51.com.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lloss.annotations.boxes import BoxedObject, ListedImage, usable_images
from lloss.annotations.json_fields import Box, Flag, Name, convert
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.problems import EmptyBoxError, Problems
from lloss.annotations.yolo import check_shares
from lloss.errors import LabelError
from lloss.text.counts import counted, part

CLASSES = ("Classification",)
"""Kinds of fields that hold the class of an image."""

OBJECTS = ("Detections",)
"""Kinds of fields that hold objects."""

_OWN = "lloss_"  # begins the names of fields that lloss writes


class Sample(NamedTuple):
    """A sample: its place, the path of its image, and the label in its field."""

    where: str
    image: str
    label: Mapping[str, Any] | None


class _Classification(msgspec.Struct):
    label: Name | None = None
    confidence: float | None = None


class _Detection(msgspec.Struct):
    label: Name
    bounding_box: Box
    confidence: float | None = None
    iscrowd: Flag = None
    difficult: Flag = None


class _Detections(msgspec.Struct):
    detections: list[dict[str, Any]]


def is_fiftyone_export(document: Any) -> bool:
    """Whether this is the ``samples.json`` of a dataset that FiftyOne exported."""
    return (
        isinstance(document, Mapping)
        and document.keys() == {"samples"}
        and isinstance(document["samples"], list)
    )


def parse_export(
    document: Any, origin: str, kinds: Sequence[str], problems: Problems
) -> list[Sample]:
    """The samples of an export with the labels of its one field of these kinds."""
    samples = document["samples"]
    for number, sample in enumerate(samples):
        if not isinstance(sample, dict) or not isinstance(sample.get("filepath"), str):
            raise LabelError(f"{origin}: samples[{number}]: lacks its filepath; export it again")
    fields = {
        name: str(value["_cls"])
        for sample in samples
        for name, value in sample.items()
        if isinstance(value, dict) and "_cls" in value
    }
    field = choose_field(fields, kinds, "", origin, problems)
    return [
        Sample(f"{origin}: samples[{number}]", sample["filepath"], sample.get(field))
        for number, sample in enumerate(samples)
    ]


def choose_field(
    fields: Mapping[str, str], kinds: Sequence[str], asked: str, origin: str, problems: Problems
) -> str:
    """The field of labels: the one asked for, ``ground_truth``, or the only one of these kinds.

    ``fields`` gives the kind of each. A note names it.
    """
    fitting = [f for f, kind in fields.items() if kind in kinds and not f.startswith(_OWN)]
    known = ", ".join(f"{name} ({kind})" for name, kind in fields.items()) or "none"
    wanted = " or ".join(kinds)
    if asked:
        if fields.get(asked) not in kinds:
            raise LabelError(f"{origin}: {asked!r} does not hold {wanted}; its labels are {known}")
        return asked
    if "ground_truth" not in fitting and len(fitting) != 1:
        remedy = "choose one by fiftyone:NAME?field=FIELD" if fitting else f"it needs {wanted}"
        raise LabelError(f"{origin}: which field has the labels? {remedy} (its labels: {known})")
    field = "ground_truth" if "ground_truth" in fitting else fitting[0]
    problems.note(f"{origin}: the labels are those of the field {field!r}")
    return field


def parse_classes(
    samples: Sequence[Sample], origin: str, trusted: bool, problems: Problems
) -> dict[str, str]:
    """Read the class of each sample, by the path of its image; notes count those without one.

    Without ``trusted`` labels with a confidence are refused: they are predictions.
    """
    labels: dict[str, str] = {}
    empty = 0
    for where, image, label in _labeled(samples, origin, problems):
        with problems.skipping(origin, image):
            record = convert(label, _Classification, where)
            _refuse_prediction(record.confidence, where, trusted)
            empty += record.label is None
            if record.label is not None:
                labels[image] = str(record.label)
    if empty:
        what = counted(empty, "sample has", "samples have")
        problems.note(f"{origin}: {what} a label without a class: not labeled yet")
    return labels


def parse_objects(
    samples: Sequence[Sample], origin: str, trusted: bool, problems: Problems
) -> dict[str, ObjectLabel]:
    """Read the objects of each sample as :func:`parse_classes` reads classes."""
    images: list[ListedImage] = []
    for where, name, label in _labeled(samples, origin, problems):
        with problems.skipping(origin, name):
            image = ListedImage(where, name, None)
            for number, entry in enumerate(convert(label, _Detections, where).detections):
                place = f"{where}.detections[{number}]"
                with image.objects.skipping(problems):
                    image.objects.objects.append(_object(entry, place, trusted))
            images.append(image)
    usable = usable_images(images, origin, problems)
    return {image.name: image.objects.label(None, shares=True) for image in usable}


def _object(entry: Any, where: str, trusted: bool) -> BoxedObject:
    record = convert(entry, _Detection, where)
    _refuse_prediction(record.confidence, where, trusted)
    x, y, width, height = record.bounding_box
    if width <= 0 or height <= 0:
        raise EmptyBoxError(where, f"the box {x:g}, {y:g}, {width:g}, {height:g} has no area")
    edges = x, y, x + width, y + height
    check_shares(edges, where)
    return BoxedObject(str(record.label), edges, bool(record.difficult), bool(record.iscrowd))


def _labeled(samples: Sequence[Sample], origin: str, problems: Problems) -> Iterator[Sample]:
    labeled = [sample for sample in samples if sample.label is not None]
    counts = Counter(sample.image for sample in labeled)
    if twice := next((name for name, count in counts.items() if count > 1), ""):
        raise LabelError(f"{origin}: {counts[twice]} samples are of {twice}; keep one of them")
    if without := len(samples) - len(labeled):
        have = part(without, len(samples), "samples", "have")
        problems.note(f"{origin}: {have} no label: not labeled yet")
    return iter(labeled)


def _refuse_prediction(confidence: float | None, where: str, trusted: bool) -> None:
    if confidence is not None and not trusted:
        raise LabelError(
            f"{where}: has a confidence ({confidence:g}), as predictions have; if it is a label, "
            "name its field by fiftyone:NAME?field=FIELD"
        )
