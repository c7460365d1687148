"""``metadata.jsonl`` and ``.parquet`` of Hugging Face's ``imagefolder``: a row an image.

::

    {"file_name": "0001.png", "label": "cat"}
    {"file_name": "0002.png", "objects": {"bbox": [[302, 109, 73, 52]], "categories": ["cat"]}}

Boxes are x, y, width, height in pixels, as in COCO. A ``metadata.csv`` is read as other CSV is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from lloss.annotations.boxes import BoxedObject, ListedImage, check_box, usable_images
from lloss.annotations.json_fields import Box, FileName, convert, parse_json
from lloss.annotations.problems import AnnotationError, Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name
from lloss.text.counts import part
from lloss.text.csv_table import text_lines
from lloss.text.first_names import first_names
from lloss.text.image_paths import image_path

METADATA_SUFFIXES = (".jsonl", ".parquet")


class _Objects(msgspec.Struct):
    bbox: list[Box]
    categories: list[str | int] | None = None
    category: list[str | int] | None = None  # as AutoTrain writes it


class _Row(msgspec.Struct):
    file_name: FileName
    label: str | int | None = None
    objects: _Objects | None = None


def parse_row_labels(path: Path, problems: Problems) -> dict[str, str]:
    """Read the class of each image; a note counts rows without one."""
    rows = _rows(path, problems)
    labels: dict[str, str] = {}
    for where, row in rows:
        with problems.skipping():
            if row.label is not None:
                labels[row.file_name] = _name(row.label, f"{where}.label")
    _note_unlabeled(path, len(rows), sum(row.label is None for _, row in rows), "label", problems)
    return labels


def parse_row_objects(path: Path, problems: Problems) -> list[ListedImage]:
    """Read the images with their objects, without those of a broken one; a note counts rows
    without objects.
    """
    rows = _rows(path, problems)
    images: list[ListedImage] = []
    for where, row in rows:
        if row.objects is None:
            continue
        image = ListedImage(where, row.file_name, None)
        names = row.objects.categories or row.objects.category or []
        with image.objects.skipping(problems):
            if len(names) != len(row.objects.bbox):
                what = f"{len(row.objects.bbox)} boxes, but {len(names)} categories"
                raise AnnotationError(f"{where}.objects", what)
        for number, (box, name) in enumerate(zip(row.objects.bbox, names)):
            place = f"{where}.objects.bbox[{number}]"
            with image.objects.skipping(problems):
                x, y, width, height = box
                edges = check_box(
                    (x, y, x + width, y + height), None, place, box, "x, y, width, height"
                )
                image.objects.objects.append(BoxedObject(_name(name, place), edges))
        images.append(image)
    _note_unlabeled(path, len(rows), len(rows) - len(images), "objects", problems)
    return usable_images(images, str(path), problems)


def has_objects(path: Path) -> bool:
    """Whether a row is of an image with objects, or with none of them."""
    return any(row.objects is not None for _, row in _rows(path, Problems(skip=True)))


def _rows(path: Path, problems: Problems) -> list[tuple[str, _Row]]:
    """Place and record of each line; the rows of an image that comes twice are refused."""
    rows: list[tuple[str, _Row]] = []
    lines: dict[str, int] = {}
    noun, entries = ("row", _stored) if path.suffix.lower() == ".parquet" else ("line", _written)
    for number, entry in entries(path):
        where = f"{path}, {noun} {number}"
        with problems.skipping():
            row = convert(_parsed(entry, where) if isinstance(entry, str) else entry, _Row, where)
            other = lines.setdefault(image_path(row.file_name), number)
            if other != number:
                raise LabelError(f"{where}: {row.file_name!r} is in {noun} {other} too; keep one")
            rows.append((where, row))
    return rows


def _written(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and text of each line that is not blank."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = text_lines(io.BytesIO(data), str(path), LabelError)
    return ((number, line) for number, line in lines if line.strip())


def _stored(path: Path) -> Iterator[tuple[int, Any]]:
    """Number and fields of each row of a Parquet file."""
    import pyarrow as pa  # heavy, and for this format alone
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if "file_name" not in names:
            raise LabelError(f"{path}: needs a column 'file_name' (found: {first_names(names)})")
        columns = [name for name in names if name in _Row.__struct_fields__]
        rows = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise LabelError(f"{path}: cannot be read as Parquet: {error}") from error
    return enumerate(rows, 1)


def _parsed(line: str, where: str) -> Any:
    try:
        return parse_json(io.BytesIO(line.encode()), where)
    except LabelError as error:
        raise AnnotationError(where, str(error).partition(": ")[2]) from error


def _name(written: str | int, where: str) -> str:
    name = clean_name(str(written))
    if not name:
        raise AnnotationError(where, "its class is empty")
    return name


def _note_unlabeled(path: Path, total: int, without: int, what: str, problems: Problems) -> None:
    if without:
        problems.note(f"{path}: {part(without, total, 'rows', 'have')} no {what}: not labeled yet")
