"""Boxes as CSV, one a row, as TensorFlow's tools and Roboflow write them.

::

    filename,width,height,class,xmin,ymin,xmax,ymax
    a.jpg,640,480,cat,12,30,100,80

Boxes are edges in pixels. A row without class and box is of an image that shows no object.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from lloss.annotations.boxes import BoxedObject, Edges, ListedImage, check_box, usable_images
from lloss.annotations.label_csv import (
    CLASSES,
    IDS,
    find_column,
    needed_column,
    note_columns,
    open_csv,
)
from lloss.annotations.number_text import parse_number
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, stripped
from lloss.text.csv_table import Table
from lloss.text.image_paths import image_path

_EDGES = (("xmin", "x_min", "x1"), ("ymin", "y_min", "y1"), ("xmax", "x_max", "x2"),
          ("ymax", "y_max", "y2"))  # fmt: skip
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


def parse_box_csv(path: Path, problems: Problems) -> list[ListedImage]:
    """Read the images of a CSV with their boxes, without those of a broken one."""
    columns = "the columns 'filename', 'class', 'xmin', 'ymin', 'xmax' and 'ymax'"
    with open_csv(path, columns) as file:
        table = Table(file, str(path), LabelError)
        sides = [table.column(name) for name in ("height", "width")]
        name_at, class_at = needed_column(table, IDS, 2), needed_column(table, CLASSES, 1)
        if find_column(table, _EDGES[0], 1) is None:
            what = "has no boxes (xmin, ymin, xmax, ymax)"
            raise LabelError(f"{path}: {what}; classes of images are for --task classification")
        edges_at = [needed_column(table, names, 1) for names in _EDGES]
        images: dict[str, ListedImage] = {}
        for line, row in table:
            where, name = f"{path}, line {line}", row[name_at]
            if not stripped(name):
                raise LabelError(f"{where}: an empty {table.header[name_at]}; write it")
            image = images.setdefault(image_path(name), ListedImage(where, name, None))
            with image.objects.skipping(problems):
                values = [row[at] for at in (class_at, *edges_at)]
                if any(map(stripped, values)):
                    image.size = _size(row, sides, table, where) or image.size
                    box = _box([row[at] for at in edges_at], image.size, table, where)
                    if not (label := clean_name(row[class_at])):
                        raise AnnotationError(where, "its class is empty")
                    image.objects.objects.append(BoxedObject(label, box))
        note_columns(table, [name_at, class_at, *edges_at], problems)
    return usable_images(images.values(), str(path), problems)


def _box(written: Sequence[str], size: tuple[int, int] | None, table: Table, where: str) -> Edges:
    names = [first for first, *_ in _EDGES]
    x0, y0, x1, y1 = numbers = [
        _number(text, table, where, name) for text, name in zip(written, names)
    ]
    return check_box((x0, y0, x1, y1), size, where, numbers, ", ".join(names))


def _size(
    row: Sequence[str], sides: Sequence[int | None], table: Table, where: str
) -> tuple[int, int] | None:
    """Height and width of the image, if the file has them."""
    texts = [row[at] for at in sides if at is not None]
    if len(texts) < 2 or not all(map(stripped, texts)):
        return None
    height, width = (_number(text, table, where, "its size") for text in texts)
    if min(height, width) < 1 or height != int(height) or width != int(width):
        raise AnnotationError(where, f"an image of {width:g}×{height:g} pixels")
    return int(height), int(width)


def _number(text: str, table: Table, where: str, field: str) -> float:
    """Read a number, with a comma for the point where commas do not separate fields."""
    if table.separator != "," and _DECIMAL_COMMA.fullmatch(text.strip()):
        text = text.replace(",", ".")
    return parse_number(text, where, field)
