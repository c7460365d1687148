"""YOLO's text files: a line an object, ``class center-x center-y width height``.

All four are shares of the image's width and height; the class is a number that ``data.yaml``,
``classes.txt`` or darknet's ``obj.names`` gives a name. See https://docs.ultralytics.com/datasets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lloss.annotations.boxes import BoxedObject, Edges, ObjectList
from lloss.annotations.class_list import read_class_list
from lloss.annotations.label_types import ObjectLabel
from lloss.annotations.number_text import parse_number
from lloss.annotations.problems import AnnotationError, EmptyBoxError, Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name
from lloss.text.counts import counted

YAML_SUFFIXES = (".yaml", ".yml")
CLASS_LISTS = ("classes.txt", "obj.names")
YAML_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")

_NULLS = ("", "~", "null", "Null", "NULL")
_OVER = 0.01  # Share of the image that rounding may put a number outside of it


@dataclass(frozen=True)
class YoloConfig:
    """A ``data.yaml``: the names of the classes by number, and what else it says."""

    path: Path
    names: dict[int, str]
    fields: dict[str, Any]
    shape: tuple[int, int] | None = None  # keypoints behind each box, and numbers of each

    @property
    def keypoints(self) -> int:
        """The numbers behind each box."""
        return math.prod(self.shape) if self.shape else 0

    @property
    def root(self) -> Path:
        """The data set's folder: ``path``, or the file's own where that is elsewhere."""
        folder = self.path.parent
        asked = folder / Path(str(self.fields.get("path") or ".")).expanduser()
        return asked if asked.is_dir() else folder


def read_config(path: Path) -> YoloConfig:
    """Read a ``data.yaml``; every value stays the text that is written."""
    try:
        fields = yaml.load(path.read_bytes(), Loader=yaml.BaseLoader)
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise LabelError(f"{place}: is not YAML: {what}") from error
    if not isinstance(fields, dict):
        raise LabelError(f"{path}: is not a data.yaml of YOLO, with 'names' and 'train'")
    fields = {key: value for key, value in fields.items() if value not in _NULLS}
    names = _names(fields.get("names") or [], path)
    count = fields.get("nc")
    if names and count and str(count) != str(len(names)):
        raise LabelError(f"{path}: nc is {count}, but names has {len(names)}; correct one of them")
    return YoloConfig(path, names, fields, _shape(fields.get("kpt_shape"), path))


def _shape(written: Any, path: Path) -> tuple[int, int] | None:
    if not written:
        return None
    if isinstance(written, list) and len(written) == 2 and all(str(n).isdecimal() for n in written):
        count, numbers = map(int, written)
        if count and numbers in (2, 3):
            return count, numbers
    raise LabelError(f"{path}: kpt_shape {written}: give [joints, 2] or [joints, 3]")


def _names(written: Any, path: Path) -> dict[int, str]:
    """The names of a list, or of a map of numbers to names."""
    pairs = dict(enumerate(written)) if isinstance(written, list) else written
    names: dict[int, str] = {}
    if not isinstance(pairs, dict):
        raise LabelError(f"{path}: names {written!r}: give a list, or a map of numbers to names")
    for number, text in pairs.items():
        name = clean_name(text) if isinstance(text, str) else ""
        if not name or not str(number).isdecimal():
            raise LabelError(f"{path}: names: {number}: {text!r} is not a number with a name")
        if name in names.values():
            raise LabelError(f"{path}: names: two classes are called {name!r}; rename one")
        names[int(number)] = name
    return names


def find_config(folder: Path) -> YoloConfig:
    """Find the names of the classes for a folder of labels: in it, or up to two folders above."""
    for place in (folder, *list(folder.absolute().parents)[:2]):
        for name in YAML_FILES:
            if (place / name).is_file():
                return read_config(place / name)
        for name in CLASS_LISTS:
            if listed := read_class_list(place / name):
                return YoloConfig(place / name, dict(enumerate(listed)), {})
    return YoloConfig(folder, {}, {})


@dataclass
class YoloParser:
    """Parses the files of a folder, and counts what is not a plain box."""

    config: YoloConfig
    problems: Problems
    polygons: int = 0
    with_keypoints: int = 0

    def parse(self, data: bytes, path: Path) -> ObjectLabel | None:
        """The objects of a file, as shares of the image; None where one is broken."""
        objects = ObjectList()
        for where, words in text_rows(data, path):
            with objects.skipping(self.problems):
                objects.objects.append(self._object(words, where))
        return objects.label(None, shares=True) if objects.complete else None

    def _object(self, words: Sequence[str], where: str) -> BoxedObject:
        index, *values = (parse_number(word, where) for word in words)
        known = self.config.names
        if index != int(index) or index < 0:
            raise AnnotationError(where, f"the class {words[0]!r} is not a whole number from 0")
        if known and int(index) not in known:
            what = f"the class {words[0]} has no name in {self.config.path}"
            raise AnnotationError(where, f"{what}, which has {len(known)}")
        return BoxedObject(known.get(int(index), str(int(index))), self._box(values, where))

    def _box(self, values: Sequence[float], where: str) -> Edges:
        """The edges of a box, or of the box around a polygon."""
        count, keypoints = len(values), self.config.keypoints
        if keypoints and count == 4 + keypoints:
            self.with_keypoints += 1
            values = values[:4]
        elif count == 5:
            raise AnnotationError(
                where,
                "6 numbers: the last looks like the confidence of a prediction; a label has 5",
            )
        elif count < 4 or count % 2:
            raise AnnotationError(
                where, f"{count + 1} numbers; a box takes 5: class, center x, y, width, height"
            )
        check_shares(values, where)
        if len(values) > 4:
            self.polygons += 1
            return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
        x, y, width, height = values
        if width <= 0 or height <= 0:
            raise EmptyBoxError(where, f"the box {x:g}, {y:g}, {width:g}, {height:g} has no area")
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def note_conversions(self, origin: str) -> None:
        """Note how many polygons became boxes, and how many boxes had keypoints."""
        if self.polygons:
            what = "polygons: the box around each is taken"
            self.problems.note(f"{origin}: {self.polygons} {what}")
        if self.with_keypoints:
            self.problems.note(
                f"{origin}: keypoints of {counted(self.with_keypoints, 'object')} are left out"
            )
        if not self.config.names:
            self.problems.note(
                f"{origin}: no data.yaml or classes.txt names the classes: their numbers do"
            )


def text_rows(data: bytes, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Place and words of each line of a label file that is not blank."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise AnnotationError(str(path), f"is not UTF-8 text: {error}") from error
    for number, line in enumerate(lines, 1):
        if words := line.split():
            yield f"{path}, line {number}", words


def check_shares(values: Sequence[float], where: str) -> Sequence[float]:
    """Return the values; refuse one that is not within 0 to 1, but for rounding."""
    over = next((value for value in values if not -_OVER <= value <= 1 + _OVER), None)
    if over is not None:
        what = f"{over:g} is not a share of the image's width or height (0 to 1)"
        raise AnnotationError(where, what)
    return values


def is_row(line: str) -> bool:
    """Whether a line is of an object: five numbers or more."""
    try:
        return len([parse_number(word, "") for word in line.split()]) >= 5
    except AnnotationError:
        return False
