"""Selected images as samples of a dataset of FiftyOne, with what a network found on each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from lloss.annotations.joint_names import skeleton
from lloss.annotations.label_types import ObjectLabel, PersonLabel
from lloss.annotations.prediction import ClassMask, Prediction
from lloss.annotations.task_lists.task_list import TaskList
from lloss.errors import PoolError
from lloss.pools.fiftyone_pool import open_dataset, using_database
from lloss.pools.uri import is_url
from lloss.text.counts import counted

TAG = "lloss"
FIELDS = ("lloss_rank", "lloss_score", "lloss_prediction")


class _Row(NamedTuple):
    """A pick: the path of its image, rank and score, and what was found on it."""

    path: str
    rank: int
    score: float
    found: list[Prediction]
    size: tuple[int, int]


def write_fiftyone(tasks: TaskList, source: str) -> list[str]:
    """Tag the images of a list in ``fiftyone:NAME``, and give them rank, score and prediction.

    Marks of an earlier list are removed. A dataset that does not exist is created, and images that
    it lacks are added; the line that is returned counts those.

    Raises:
        PoolError: the database cannot be used, or an image is not a file of its own.
    """
    rows: list[_Row] = []
    for image in tasks.images:
        if not image.source or is_url(image.source):
            what = f"{image.name!r} is not a file of this machine, as FiftyOne needs it"
            raise PoolError(f"{source}: {what}")
        first, path = image.picks[0], os.path.realpath(image.source)
        found = [pick.prediction for pick in image.picks if pick.prediction is not None]
        rows.append(_Row(path, first.rank, first.score, found, image.size))
    dataset, fiftyone = open_dataset(source, create=True)
    with using_database(source):
        ids = _sample_ids(dataset)
        dataset.persistent = dataset.persistent or not ids  # keep one that was created now
        missing = [row.path for row in rows if row.path not in ids]
        if missing:
            dataset.add_samples(
                [fiftyone.Sample(filepath=path) for path in missing], progress=False
            )
            ids = _sample_ids(dataset)
        _write(dataset, fiftyone, {ids[row.path]: row for row in rows})
        _describe(dataset, fiftyone, tasks)
    added = f"; {len(missing)} of them not in it before" if missing else ""
    have = counted(len(rows), "sample has", "samples have")
    return [f"{source}: {have} the tag {TAG!r} and {', '.join(FIELDS)}{added}"]


def _sample_ids(dataset: Any) -> dict[str, str]:
    paths, ids = dataset.values(["filepath", "id"])
    return {os.path.realpath(path): id for path, id in zip(paths, ids)}


def _write(dataset: Any, fiftyone: Any, rows: Mapping[str, _Row]) -> None:
    """Write the rows by the id of their sample, in place of earlier ones."""
    values = (
        {id: row.rank for id, row in rows.items()},
        {id: row.score for id, row in rows.items()},
        {id: _label(fiftyone, row) for id, row in rows.items() if row.found},
    )
    dataset.untag_samples(TAG)
    # Delete fields rather than clear them: predictions of another task are of another type.
    dataset.delete_sample_fields([name for name in FIELDS if dataset.has_sample_field(name)])
    for name, of in zip(FIELDS, values):
        if of:
            dataset.set_values(name, of, key_field="id")
    dataset.select(list(rows)).tag_samples(TAG)


def _describe(dataset: Any, fiftyone: Any, tasks: TaskList) -> None:
    """Name the values of masks and the joints of persons."""
    if tasks.task == "segmentation":
        dataset.mask_targets[FIELDS[-1]] = dict(enumerate(tasks.classes, 1))
    if tasks.task == "pose":
        limbs = [list(limb) for limb in skeleton(tasks.classes)]
        dataset.skeletons[FIELDS[-1]] = fiftyone.KeypointSkeleton(
            labels=list(tasks.classes), edges=limbs
        )
    dataset.save()


def _label(fiftyone: Any, row: _Row) -> Any:
    """What was found on an image as a label of FiftyOne, whose places are shares of the image."""
    found, size = row.found, row.size
    label, scores = found[0].label, found[0].scores.tolist()
    if isinstance(label, str):
        return fiftyone.Classification(label=label, confidence=scores[0])
    if isinstance(label, ObjectLabel):
        boxes = label.boxes / np.array(size[::-1] * 2)
        objects = zip(label.names, scores, boxes.tolist())
        return fiftyone.Detections(
            detections=[
                fiftyone.Detection(
                    label=name, confidence=score, bounding_box=[x0, y0, x1 - x0, y1 - y0]
                )
                for name, score, (x0, y0, x1, y1) in objects
            ]
        )
    if isinstance(label, ClassMask):
        pixels = np.where(label.pixels < len(label.names), label.pixels + 1, 0)
        return fiftyone.Segmentation(mask=pixels.astype(np.uint8))
    return fiftyone.Keypoints(keypoints=[_keypoint(fiftyone, one, size) for one in found])


def _keypoint(fiftyone: Any, found: Prediction, size: tuple[int, int]) -> Any:
    """The joints of a person, as many for each: NaN of one that was not found."""
    label = found.label
    assert isinstance(label, PersonLabel), "persons have joints"
    shares = np.where(label.annotated[:, None], label.joints / np.array(size[::-1]), np.nan)
    points, scores = shares.tolist(), found.scores.tolist()
    return fiftyone.Keypoint(label="person", points=points, confidence=scores)
