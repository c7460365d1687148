"""Selected images as a task list of a labeling tool, with the model's predictions."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from lloss.annotations.task_lists.coco_list import write_coco
from lloss.annotations.task_lists.cvat_list import write_cvat
from lloss.annotations.task_lists.image_copies import copy_image, file_suffix
from lloss.annotations.task_lists.label_studio_list import interface_of, write_label_studio
from lloss.annotations.task_lists.task_list import ListedPick, TaskImage, TaskList, shows_nothing
from lloss.annotations.task_lists.yolo_list import TASKS as YOLO_TASKS
from lloss.annotations.task_lists.yolo_list import write_yolo
from lloss.errors import PoolError, SettingsError
from lloss.files import atomic_folder
from lloss.images.decode import Raw
from lloss.pools import Item, Pool, open_pool
from lloss.pools.file_walk import has_image_suffix
from lloss.pools.in_memory_pool import pool_of
from lloss.pools.person_crop_pool import CropItem, grouped
from lloss.project.fiftyone_list import write_fiftyone
from lloss.project.pick_predictions import PickModel, find_model
from lloss.project.picked_images import PickedImage, read_picked
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection
from lloss.text.counts import counted
from lloss.text.image_paths import image_path

TaskFormat = Literal["coco", "yolo", "cvat", "label-studio"]
FORMATS: tuple[TaskFormat, ...] = get_args(TaskFormat)
AnyFormat = TaskFormat | Literal["fiftyone"]
LISTS: tuple[AnyFormat, ...] = (*FORMATS, "fiftyone")

SUFFIXES = {"coco": ".json", "yolo": "", "cvat": ".xml", "label-studio": ".json"}
"""Of each format's file; without one it is a folder."""


@dataclass(frozen=True, kw_only=True)
class TaskListSettings:
    """How to write a list.

    Attributes:
        format: one of :data:`LISTS`.
        predictions: whether to add what the model finds.
        min_score: of the objects and joints to add; None for 0.4 and 0.1.
        copy_images: copy the images too, where they are files of their own already.
        image_url: of Label Studio, see :func:`.write_label_studio`.
    """

    format: AnyFormat
    predictions: bool = True
    min_score: float | None = None
    copy_images: bool = False
    image_url: str = ""

    def __post_init__(self) -> None:
        if self.format not in LISTS:
            raise SettingsError(f"format {self.format!r}: choose one of {', '.join(LISTS)}")
        if self.copy_images and self.format == "fiftyone":
            raise SettingsError("copy_images: a dataset of FiftyOne has no copies; leave it out")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise SettingsError(f"min_score = {self.min_score}: give a score from 0 to 1")
        if self.image_url and self.format != "label-studio":
            raise SettingsError(f"image_url: the format {self.format} has no URLs; leave it out")
        rest = self.image_url.replace("{path}", "").replace("{id}", "")
        if "{" in rest:
            raise SettingsError(f"image_url {self.image_url!r}: only {{path}} and {{id}} are known")
        if rest and rest == self.image_url:
            what = "is the same for all images; write {path} or {id} into it"
            raise SettingsError(f"image_url {self.image_url!r}: {what}")


def write_tasks(
    picks: Selection,
    path: str | Path,
    *,
    format: AnyFormat,
    pool: Any = None,
    scores: Any = None,
    model: Any = None,
    **settings: Any,
) -> list[str]:
    """Write selected images as a task list, with what the model finds on each.

    Args:
        picks: of :func:`lloss.select`.
        path: of the list: a file, for ``yolo`` a folder that is empty or does not exist, for
            ``fiftyone`` a dataset, see :func:`.write_fiftyone`.
        format: ``coco``, ``yolo``, ``cvat``, ``label-studio`` or ``fiftyone``.
        pool: the images that were scored, as a string, a path or in memory; by default those that
            the scores folder names.
        scores: the scores folder that the picks are from; it knows pool and model.
        model: what predicts: a training run's folder, its ``model.onnx``, or a model of
            :func:`lloss.attach`; by default what made the scores.
        settings: the other fields of :class:`TaskListSettings`.

    Returns:
        Lines on what was written, copied or left out.

    Raises:
        SettingsError: the format cannot hold the model's labels, or an unknown setting.
        PoolError: the pool lacks a selected image, or is not known.
        ScoresError: the model is not that of the scores.
    """
    known = {each.name for each in fields(TaskListSettings)}
    if unknown := sorted(settings.keys() - known):
        raise SettingsError(f"{unknown[0]}: unknown; known are {', '.join(sorted(known))}")
    how = TaskListSettings(format=format, **settings)
    folder = None if scores is None else ScoresFolder(scores)
    images = _pool_of(folder) if pool is None else pool_of(pool)
    found = find_model(picks.ids, folder, model, how.predictions)
    if not how.predictions:
        found = replace(found, predictions=None, note="")
    return TaskListWriter(picks, images, found, how).write(Path(path))


def _pool_of(scores: ScoresFolder | None) -> Pool:
    """Open the pool that ``run.json`` names, as it was written then."""
    uri = ((scores.run() if scores else None) or {}).get("pool")
    if not uri:
        where = f"{scores} does not name it" if scores else "without scores it is not known"
        raise PoolError(f"pool: {where}; give the images that were scored")
    try:
        return open_pool(str(uri))
    except PoolError as error:
        raise PoolError(f"{error}; if the images moved, say where with --pool") from error


@dataclass
class TaskListWriter:
    """Writes one list."""

    picks: Selection
    pool: Pool
    model: PickModel
    settings: TaskListSettings
    lost: list[str] = field(default_factory=list)  # ids of images that cannot be read
    predicted: int = 0  # picks with a prediction
    without: int = 0  # of these, picks with nothing found

    def write(self, path: Path) -> list[str]:
        """Write the list whole or not at all; return lines on it."""
        how, model = self.settings, self.model
        if SUFFIXES.get(how.format) and (path.is_dir() or not path.name):
            raise SettingsError(f"{path}: is a folder; name a file in it")
        if how.format == "yolo" and model.predictions:
            check_yolo(model.task)
        unscored = model.predictions and model.task not in YOLO_TASKS
        if how.min_score is not None and (unscored or not how.predictions):
            raise SettingsError(
                "min_score: is of the objects and joints of predictions, which this list has not; "
                "leave it out"
            )
        items = grouped(self.pool.find(self.picks.ids), lambda item: _whole(item).id)
        task = model.task or ("pose" if any(isinstance(i, CropItem) for i in items) else "")
        copied = how.copy_images or not all(_whole(item).file for item in items)
        images = self._images(items, renamed=copied or how.format == "yolo")
        tasks = TaskList(images, task, model.classes, model.version)
        if how.format == "fiftyone":
            return [*write_fiftyone(tasks, str(path)), *self._notes(len(items))]
        if how.format == "yolo":
            write_yolo(tasks, path, copied)
            copies = path / "images" if copied else None
        else:
            copies = _copies_of(path) if copied else None
            with contextlib.ExitStack() as stack:
                if copies:
                    aside = stack.enter_context(atomic_folder(copies))
                    tasks = replace(tasks, images=_copied(images, aside, copies))
                self._write_file(tasks, path)
        return [*self._notes(len(items)), *_opening(how, path, copies, self.pool)]

    def _write_file(self, tasks: TaskList, path: Path) -> None:
        match self.settings.format:
            case "coco":
                write_coco(tasks, path)
            case "cvat":
                write_cvat(tasks, path)
            case _:
                write_label_studio(tasks, path, self.settings.image_url)

    def _images(self, items: list[Item], renamed: bool) -> Iterator[TaskImage]:
        ranks = {id: rank for rank, id in enumerate(self.picks.ids, 1)}
        read = _counted(read_picked(items, self.model.predictions), items, self.lost)
        for _, group in itertools.groupby(read, lambda one: _whole(one.item).id):
            picked = list(group)
            item, raw = picked[0].item, picked[0].raw
            whole = _whole(item)
            size = item.decoded().shape[:2] if isinstance(item, CropItem) else picked[0].size
            listed = tuple(self._listed(one, size, ranks[one.item.id]) for one in picked)
            reread = whole.read if isinstance(item, CropItem) else functools.partial(_given, raw)
            name = _safe_name(whole.id, reread) if renamed else whole.id
            yield TaskImage(name, _source(whole), size, listed, reread)

    def _listed(self, picked: PickedImage, size: tuple[int, int], rank: int) -> ListedPick:
        item, found = picked.item, picked.prediction
        region = item.region if isinstance(item, CropItem) else None
        if found is not None:
            found = found.at_least(self.settings.min_score)
            found = found.around_crop(region, size) if region else found
        pick = ListedPick(item.id, rank, float(self.picks.scores[rank - 1]), region, found)
        self.predicted += found is not None
        self.without += found is not None and shows_nothing(pick)
        return pick

    def _notes(self, count: int) -> list[str]:
        notes = [self.model.note] if self.predicted and self.model.note else []
        if self.settings.predictions and not self.predicted:
            why = self.model.note or f"the task {self.model.task} has none"
            notes.append(f"images alone, without predictions: {why}")
        if self.without:
            notes.append(
                f"on {self.without} of {counted(count, 'image')} nothing is found surely enough"
            )
        if self.lost:
            lost = counted(len(self.lost), "selected image")
            notes.append(
                f"{lost} cannot be read any more: left out ({self.lost[0]!r}, for example)"
            )
        return notes


def check_yolo(task: str) -> None:
    """Raise SettingsError for a task whose labels YOLO's format of boxes does not have."""
    if task not in YOLO_TASKS:
        raise SettingsError(
            f"format yolo: has no place for what a model of {task} finds; choose coco, cvat or "
            "label-studio"
        )


def remove_tasks(path: Path) -> None:
    """Remove a list that was written there, and its copies of images."""
    for folder in (path, _copies_of(path)):
        if folder.is_dir():
            shutil.rmtree(folder)


def _copies_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}_images")


def _counted(
    read: Iterator[PickedImage], items: list[Item], lost: list[str]
) -> Iterator[PickedImage]:
    """Pass on what was read, and collect the ids that are missing in it."""
    missing = dict.fromkeys(item.id for item in items)
    for picked in read:
        del missing[picked.item.id]
        yield picked
    lost += missing
    if len(missing) == len(items):
        raise PoolError(f"none of the {len(items)} selected images can be read any more")


def _whole(item: Item) -> Item:
    return item.image if isinstance(item, CropItem) else item


def _given(raw: Raw) -> Raw:
    return raw


def _source(item: Item) -> str:
    """What opens the image: an absolute path or a URL; "" for one within a larger file."""
    file = item.file
    if file is None or isinstance(file, str):
        return file or ""
    return os.path.normpath(Path(os.fsdecode(file)).absolute())


def _safe_name(id: str, read: Callable[[], Raw]) -> str:
    """A relative path like the id, with the suffix of an image."""
    name = image_path(id)
    return name if has_image_suffix(name) else f"{name}{file_suffix(read())}"


def _copied(images: Iterable[TaskImage], aside: Path, folder: Path) -> Iterator[TaskImage]:
    """Copy images as they are needed into what becomes the folder."""
    for image in images:
        copy_image(image, aside / image.name)
        yield replace(image, source=str((folder / image.name).absolute()))


def _opening(how: TaskListSettings, path: Path, copies: Path | None, pool: Pool) -> list[str]:
    """How a tool finds the images, in words."""
    lines = [f"{copies}: copies of the images"] if copies else []
    if how.format == "label-studio":
        lines.append(f"{interface_of(path)}: the labeling interface for these tasks")
        if not how.image_url:
            lines.append(
                "images are URLs of Label Studio's local files below "
                "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/; --image-url names others"
            )
    elif how.format in ("coco", "cvat") and not copies:
        lines.append(f"images are named as in {pool.uri}")
    return lines
