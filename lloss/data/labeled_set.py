"""Labeled images: items with a label each, and class names from wherever they stand.

All sources come to one shape, :class:`LabeledSet`, so that training knows nothing of files:
for classification a CSV ``id,label`` beside a pool, a class-per-folder tree, a ``.npz`` of
``images, labels``, and torchvision's CIFAR sets by name.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from lloss.annotations.problems import Problems
from lloss.data.class_folders import class_folders
from lloss.errors import LabelError, MissingExtraError, PoolError
from lloss.pools import ArrayPool, Item, load_array, open_array
from lloss.pools.storage import LocalPath
from lloss.text.clean_names import clean_name, stripped
from lloss.text.csv_table import Table, csv_text, shortened, text_lines

DATA_ROOT = Path("~/.cache/lloss")
"""Where torchvision's sets lie or are downloaded to."""

TORCHVISION_SETS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}

_SPLITS = ("split", "set", "subset", "partition", "fold", "usage")
"""Columns that tell which rows are to train on and which to measure on."""


_FILES = ("image", "img", "file", "filename", "file_name", "image_path", "image_name")
"""Columns that name images, of exports that number their tasks in the column ``id``."""


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
        # As JSON: an id may hold any character that would otherwise part it from its label.
        rows = (json.dumps([item.id, str(label)]) for item, label in zip(self.items, self.labels))
        return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()

    def ordered(self) -> LabeledSet:
        """The same set in the order of its ids, whatever order the labels were written in."""
        return self.take(sorted(range(len(self)), key=lambda row: self.items[row].id))

    def take(self, rows: Iterable[int]) -> LabeledSet:
        """The set of these rows alone."""
        rows = list(rows)
        return LabeledSet(
            [self.items[row] for row in rows], [self.labels[row] for row in rows], self.origin
        )


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """The names that occur, numbers in the order of numbers, others of their text."""
    return tuple(sorted(set(labels), key=_numbers_first))


def listed_classes(path: Path, gaps: bool = False) -> list[str]:
    """The class names of a text file, one a line: that of line N is the name of class N - 1.

    Args:
        path: UTF-8; without this file there are none.
        gaps: pass blank lines over, where the numbers of the classes do not matter.

    Raises:
        LabelError: it cannot be read, a name comes twice, or a line is blank: the names behind it
            would be of no sure number.
    """
    lines: dict[str, int] = {}
    blank = 0
    try:
        with path.open("rb") as file:
            for line, text in text_lines(file, str(path), LabelError):
                name = clean_name(text)
                if not name:
                    blank = blank or line
                elif blank and not gaps:
                    raise LabelError(
                        f"{path}, line {blank}: is blank; name class {blank - 1} there"
                    )
                elif lines.setdefault(name, line) != line:
                    both = f"{name!r} stands in line {lines[name]} too"
                    raise LabelError(f"{path}, line {line}: {both}; write each class once")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return list(lines)


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels by id as CSV."""
    return csv_text(("id", "label"), labels.items())


def open_labeled(
    data: str, data_root: Path = DATA_ROOT, problems: Problems | None = None
) -> LabeledSet:
    """Open data that carries its labels.

    Args:
        data: a class-per-folder tree, a ``.npz`` with ``images`` and ``labels``, or
            ``cifar10``/``cifar100``, optionally with ``:train`` or ``:test``.
        data_root: where torchvision's sets lie or are downloaded to.
        problems: a note of what the user should know of the folders goes there.

    Raises:
        LabelError: the labels are missing or empty, or the folders are splits of a data set.
        PoolError: the images cannot be found.
    """
    name, _, split = data.partition(":")
    if name in TORCHVISION_SETS:
        return _torchvision_set(name, split or "train", data_root.expanduser())
    path = Path(data)
    if path.is_dir():
        items, names = class_folders(path, problems or Problems())
        return LabeledSet(items, names, data)
    if path.suffix.lower() == ".npz":
        return _labeled_array(path)
    if not path.exists():
        raise PoolError(
            f"{data}: no such labeled data; give a folder, a .npz or cifar10/cifar100, or --task"
        )
    raise LabelError(f"{data}: carries no labels of its own; add --labels labels.csv")


def is_named_set(data: str) -> bool:
    """Whether this is a name of torchvision's, with or without its split."""
    return data.partition(":")[0] in TORCHVISION_SETS


def read_labels(
    path: Path, needs_label: bool = True, problems: Problems | None = None
) -> dict[str, str]:
    """Read a CSV with the columns ``id`` and ``label`` (others are ignored).

    Args:
        path: UTF-8, with a header.
        needs_label: whether each row has a label; without, ids alone will do.
        problems: gets a note of a column of splits, which is not looked at.

    Raises:
        LabelError: no such file or column, an empty field, or an id that stands there twice.
    """
    try:
        with path.open("rb") as file:
            return parse_labels(file, str(path), needs_label, problems)
    except FileNotFoundError as error:
        columns = "the columns 'id' and 'label'" if needs_label else "a column 'id'"
        raise LabelError(f"{path}: no such file; it needs {columns}") from error
    except IsADirectoryError as error:
        columns = "with the columns 'id' and 'label'" if needs_label else "with a column 'id'"
        raise LabelError(f"{path}: is a folder; give a CSV {columns}") from error
    except OSError as error:
        reason = error.strerror or error
        raise LabelError(f"{path}: cannot be read as CSV: {reason}") from error


def parse_labels(
    file: IO[bytes],
    origin: str,
    needs_label: bool | None,
    problems: Problems | None = None,
    blank: bool = False,
) -> dict[str, str]:
    """The labels of a CSV as :func:`read_labels` takes it.

    Args:
        file: opened for bytes.
        origin: what to call it.
        needs_label: whether each row has a label; None for where there is a column of them.
        problems: see :func:`read_labels`.
        blank: whether rows of a column of labels may leave them out all the same.

    Raises:
        LabelError: see :func:`read_labels`.
    """
    table = Table(file, origin, LabelError)
    if needs_label is None:
        needs_label = table.column("label") is not None
    id_at, *_ = table.needed("id", "label") if needs_label else table.needed("id")
    label_at = table.column("label")
    split_at = next((at for at, name in enumerate(table.header) if name.lower() in _SPLITS), None)
    splits = Counter[str]()
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in table:
        id, label = row[id_at], "" if label_at is None else clean_name(row[label_at])
        if not stripped(id) or (needs_label and not label and not blank):
            raise LabelError(
                f"{origin}, line {line}: an empty id or label; write both or remove the row"
            )
        if id in labels and needs_label:
            raise LabelError(
                f"{origin}: the id {shortened(id)!r} stands in line {lines[id]} and in line "
                f"{line}; keep one of them"
            )
        labels[id], lines[id] = label, line
        if split_at is not None:
            splits[row[split_at]] += 1
    if problems is not None and split_at is not None and len(splits) > 1:
        problems.note(_split_note(origin, table.header[split_at], splits))
    named_at = next((at for at, name in enumerate(table.header) if name.lower() in _FILES), None)
    if problems is not None and named_at is not None and all(map(str.isdecimal, labels)):
        problems.note(
            f"{origin}: ids are those of the column {table.header[id_at]!r}, which are numbers; "
            f"the column {table.header[named_at]!r} is not looked at: if it names the images, and "
            "the numbers are those of tasks, call it 'id'"
        )
    return labels


def _split_note(origin: str, column: str, splits: Counter[str]) -> str:
    shown = ", ".join(f"{name!r}: {count}" for name, count in splits.most_common(4))
    return (
        f"{origin}: the column {column!r} ({shown}) is not looked at, all rows are labels; give a "
        "file for each part"
    )


def _numbers_first(label: str) -> tuple[int, int, str]:
    number = label.isascii() and label.isdecimal() and len(label) < 4000  # int() refuses more
    return (0, int(label), label) if number else (1, 0, label)


def _labeled_array(path: Path) -> LabeledSet:
    pool = open_array(LocalPath(path), str(path))
    labels = np.asarray(load_array(path, "labels"))
    if labels.shape != (pool.count(),):
        raise LabelError(
            f"{path}: {pool.count()} images, but labels of shape {list(labels.shape)}; "
            "there is one label an image"
        )
    if labels.dtype.kind not in "iuU":
        hint = "; whole numbers: labels.astype(int)" if labels.dtype.kind == "f" else ""
        raise LabelError(f"{path}: labels of {labels.dtype}; give integers or strings{hint}")
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
        data = getattr(datasets, TORCHVISION_SETS[name])(root, split == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise PoolError(f"{name}: cannot be downloaded to {root}: {error}") from error
    items = list(ArrayPool(data.data, name))
    return LabeledSet(items, [data.classes[t] for t in data.targets], f"{name}:{split}")
