"""Labeled images: items with a label each, and class names from wherever they stand.

All sources come to one shape, :class:`LabeledSet`, so that training knows nothing of files:
for classification a CSV ``id,label`` beside a pool, a class-per-folder tree, a ``.npz`` of
``images, labels``, and torchvision's CIFAR sets by name.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lloss.csvtext import csv_text
from lloss.errors import LabelError, MissingExtraError, PoolError
from lloss.pools import ArrayPool, FolderPool, Item, load_array, open_array
from lloss.pools.places import LocalPlace

DATA_ROOT = Path("~/.cache/lloss")
"""Where torchvision's sets lie or are downloaded to."""

TORCHVISION_SETS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


@dataclass(frozen=True)
class LabeledSet:
    """Items of a pool and the label of each, in the same order.

    A label is a class name, or what else the task calls one; its ``str`` says all of it.
    """

    items: Sequence[Item]
    labels: Sequence[Any]
    origin: str

    def __len__(self) -> int:
        return len(self.items)

    @property
    def sha256(self) -> str:
        """Identifies the set: a digest of its ids and labels, whatever their order."""
        rows = sorted(f"{item.id}\0{label}\n" for item, label in zip(self.items, self.labels))
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    def take(self, rows: Iterable[int]) -> LabeledSet:
        """The set of these rows alone."""
        rows = list(rows)
        return LabeledSet(
            [self.items[row] for row in rows], [self.labels[row] for row in rows], self.origin
        )


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The names that occur, numbers in the order of numbers, others of their text."""
    return tuple(sorted(set(labels), key=_numbers_first))


def listed_classes(path: Path) -> list[str]:
    """The class names of a text file, one a line: that of line N is the name of class N - 1.

    Args:
        path: UTF-8; without this file there are none.

    Raises:
        LabelError: it cannot be read, or a line is blank: the names behind it would be of no sure
            number.
    """
    try:
        names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path}: cannot be read: {error}") from error
    names = [name.strip() for name in names]
    if "" in names:
        line = names.index("") + 1
        raise LabelError(f"{path}, line {line}: is blank; name class {line - 1} there")
    return names


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels by id as CSV."""
    return csv_text(("id", "label"), labels.items())


def open_labeled(data: str, data_root: Path = DATA_ROOT) -> LabeledSet:
    """Open data that carries its labels.

    Args:
        data: a class-per-folder tree, a ``.npz`` with ``images`` and ``labels``, or
            ``cifar10``/``cifar100``, optionally with ``:train`` or ``:test``.
        data_root: where torchvision's sets lie or are downloaded to.

    Raises:
        LabelError: the labels are missing or empty.
        PoolError: the images cannot be found.
    """
    name, _, split = data.partition(":")
    if name in TORCHVISION_SETS:
        return _torchvision_set(name, split or "train", data_root.expanduser())
    path = Path(data)
    if path.is_dir():
        return _class_folders(path)
    if path.suffix == ".npz":
        return _labeled_array(path)
    if not path.exists():
        raise PoolError(
            f"{data}: no such labeled data; give a folder, a .npz or cifar10/cifar100, or --task"
        )
    raise LabelError(f"{data}: carries no labels of its own; add --labels labels.csv")


def is_named_set(data: str) -> bool:
    """Whether this is a name of torchvision's, with or without its split."""
    return data.partition(":")[0] in TORCHVISION_SETS


def read_labels(path: Path, needs_label: bool = True) -> dict[str, str]:
    """Read a CSV with the columns ``id`` and ``label`` (others are ignored).

    Args:
        path: UTF-8, with a header.
        needs_label: whether each row has a label; without, ids alone will do.

    Raises:
        LabelError: no such file or column, an empty field, or an id that stands there twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return parse_labels(file, str(path), needs_label)
    except FileNotFoundError as error:
        columns = "the columns 'id' and 'label'" if needs_label else "a column 'id'"
        raise LabelError(f"{path}: no such file; it needs {columns}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise LabelError(f"{path}: cannot be read as CSV: {error}") from error


def parse_labels(lines: Iterable[str], origin: str, needs_label: bool | None) -> dict[str, str]:
    """The labels of a CSV as :func:`read_labels` takes it.

    Args:
        lines: with their ends.
        origin: what to call it.
        needs_label: whether each row has a label; None for where there is a column of them.

    Raises:
        LabelError: see :func:`read_labels`.
    """
    try:
        table = csv.DictReader(lines)
        if needs_label is None:
            needs_label = "label" in (table.fieldnames or ())
        needed = ["id", "label"] if needs_label else ["id"]
        if not set(needed) <= set(table.fieldnames or ()):
            found = _shortened(", ".join(table.fieldnames or ())) or "an empty file"
            wanted = " and ".join(map(repr, needed))
            raise LabelError(
                f"{origin}: needs a column {wanted} (found: {found}); give a CSV with a header"
            )
        return _rows_of(table, origin, needs_label)
    except csv.Error as error:
        raise LabelError(f"{origin}: cannot be read as CSV: {error}") from error


def _rows_of(table: csv.DictReader[str], origin: str, needs_label: bool) -> dict[str, str]:
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for row in table:
        id, label = row["id"] or "", (row.get("label") or "").strip()
        if not id or (needs_label and not label):
            raise LabelError(f"{origin}, line {table.line_num}: an empty id or label")
        if id in labels and needs_label:
            raise LabelError(
                f"{origin}: the id {_shortened(id)!r} stands in line {lines[id]} and in line "
                f"{table.line_num}; keep one of them"
            )
        labels[id], lines[id] = label, table.line_num
    return labels


def _shortened(text: str, most: int = 100) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _numbers_first(label: str) -> tuple[int, int, str]:
    number = label.isascii() and label.isdecimal() and len(label) < 4000  # int() refuses more
    return (0, int(label), label) if number else (1, 0, label)


def _class_folders(root: Path) -> LabeledSet:
    items, labels = [], []
    for item in FolderPool(root):
        folder, slash, _ = item.id.partition("/")
        if not slash:
            raise LabelError(
                f"{root}: {item.id!r} lies in no class folder; put it in one, "
                "or add --labels labels.csv"
            )
        items.append(item)
        labels.append(folder)
    if not items:
        raise PoolError(f"{root}: holds no image")
    return LabeledSet(items, labels, str(root))


def _labeled_array(path: Path) -> LabeledSet:
    pool = open_array(LocalPlace(path), str(path))
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
    names = [str(label).strip() for label in labels.tolist()]
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
        data = getattr(datasets, TORCHVISION_SETS[name])(root, split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise PoolError(f"{name}: cannot be downloaded to {root}: {error}") from error
    items = list(ArrayPool(data.data, name))
    return LabeledSet(items, [data.classes[t] for t in data.targets], f"{name}:{split}")
