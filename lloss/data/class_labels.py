"""Images labeled with a class each: class folders, ``.npz`` files, torchvision's CIFAR sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lloss.annotations.coco import is_coco
from lloss.annotations.cvat import parse_tags
from lloss.annotations.fiftyone_labels import (
    CLASSES,
    is_fiftyone_export,
    parse_classes,
    parse_export,
)
from lloss.annotations.json_fields import load_json
from lloss.annotations.label_csv import read_labels
from lloss.annotations.label_studio import parse_choices
from lloss.annotations.metadata_jsonl import METADATA_SUFFIXES, parse_row_labels
from lloss.annotations.problems import Problems
from lloss.data.class_folders import class_folders
from lloss.data.fiftyone_datasets import read_dataset_classes
from lloss.data.label_source import split_option
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, MissingExtraError, PoolError
from lloss.pools import ArrayPool, load_array, open_array
from lloss.pools.storage import LocalPath
from lloss.pools.uri import is_fiftyone
from lloss.text.clean_names import clean_name

DATA_ROOT = Path("~/.cache/lloss")  # Where torchvision's sets are, or are downloaded to

DATASETS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}
"""Names of data sets, and torchvision's classes that download them."""


def read_class_labels(path: Path, problems: Problems) -> dict[str, str]:
    """Read the classes of images of a pool.

    ``path`` is a CSV, a CVAT XML with tags, Hugging Face's ``metadata.jsonl`` or ``.parquet``, or
    a JSON export of Label Studio, optionally with ``?control=NAME``; or a dataset of FiftyOne,
    ``fiftyone:NAME``, or the ``samples.json`` of its export.
    """
    if is_fiftyone(path):
        return read_dataset_classes(path, problems)
    file, control = split_option(path, "control")
    suffix = file.suffix.lower()
    if suffix == ".xml":
        return parse_tags(path, problems)
    if suffix in METADATA_SUFFIXES:
        return parse_row_labels(path, problems)
    if suffix == ".json":
        if is_coco(document := load_json(file)):
            raise LabelError(f"{path}: is COCO JSON, of objects: add --task detection")
        if is_fiftyone_export(document):
            samples = parse_export(document, str(path), CLASSES, problems)
            return parse_classes(samples, str(path), False, problems)
        return parse_choices(document, str(path), problems, control)
    return read_labels(path, problems=problems)


def open_labeled(
    data: str, data_root: Path = DATA_ROOT, problems: Problems | None = None
) -> LabeledSet:
    """Open data that carries its labels.

    ``data`` is a class-per-folder tree, a ``.npz`` with ``images`` and ``labels``, or
    ``cifar10``/``cifar100``, optionally with ``:train`` or ``:test``, which torchvision downloads
    to ``data_root``. Notes go to ``problems``.
    """
    name, _, split = data.partition(":")
    if name in DATASETS:
        return _torchvision_set(name, split or "train", data_root.expanduser())
    path = Path(data)
    if path.is_dir():
        items, names = class_folders(path, problems or Problems())
        return LabeledSet(items, names, data)
    if path.suffix.lower() == ".npz":
        return _labeled_array(path)
    if not path.exists():
        raise PoolError(
            f"{data}: no such labeled data; give a folder or a .npz (lloss train and lloss "
            "evaluate also take cifar10 and cifar100), or --task"
        )
    raise LabelError(f"{data}: carries no labels of its own; add --labels labels.csv, or --task")


def _labeled_array(path: Path) -> LabeledSet:
    pool = open_array(LocalPath(path), str(path))
    labels = np.asarray(load_array(path, "labels"))
    if labels.shape != (pool.count(),):
        raise LabelError(
            f"{path}: {pool.count()} images, but labels of shape {list(labels.shape)}; "
            "there is one label an image"
        )
    if labels.dtype.kind not in "iuU":
        raise LabelError(f"{path}: labels of {labels.dtype}; give integers or strings")
    if not len(labels):
        raise PoolError(f"{path}: holds no image")
    names = [clean_name(str(label)) for label in labels.tolist()]
    if "" in names:
        raise LabelError(f"{path}: the label of image {names.index('')} is empty")
    return LabeledSet(list(pool), names, str(path))


def _torchvision_set(name: str, split: str, root: Path) -> LabeledSet:
    if split not in ("train", "test"):
        raise PoolError(f"{name}:{split}: no such split; give {name}:train or {name}:test")
    try:
        from torchvision import datasets  # an extra, and heavy
    except ImportError as error:
        raise MissingExtraError(f"the data set {name}", "train", "torchvision") from error
    try:
        data = getattr(datasets, DATASETS[name])(root, split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise PoolError(f"{name}: cannot be downloaded to {root}: {error}") from error
    items = list(ArrayPool(data.data, name))
    return LabeledSet(items, [data.classes[t] for t in data.targets], f"{name}:{split}")
