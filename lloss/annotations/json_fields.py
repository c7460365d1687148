"""JSON of annotations: loaded strictly, and converted to typed records entry by entry."""

from __future__ import annotations

import json
import re
import reprlib
from collections import Counter
from pathlib import Path
from typing import IO, Annotated, Any, TypeVar

import msgspec

from lloss.annotations.problems import AnnotationError
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, is_text

T = TypeVar("T")

FARTHEST = 1e9  # A coordinate beyond this many pixels is outside of any image

Coordinate = Annotated[float, msgspec.Meta(ge=-FARTHEST, le=FARTHEST)]
Point = tuple[Coordinate, Coordinate]
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
PixelCount = Annotated[float, msgspec.Meta(ge=0, le=FARTHEST, multiple_of=1)]
Flag = bool | Coordinate | None
FileName = Annotated[str, msgspec.Meta(pattern=r"\S")]


class Name(str):
    """The name of a class or a joint as it is compared, see :func:`.clean_name`."""


def convert(entry: Any, kind: type[T], where: str) -> T:
    """Convert an entry to a record; an error names the place and the value of the field."""
    try:
        return msgspec.convert(entry, kind, dec_hook=_to_name)
    except UnicodeEncodeError:
        raise AnnotationError(where, "a text has half of a character") from None
    except msgspec.ValidationError as error:
        what, _, path = str(error).rstrip("`").partition(" - at `$")
        if missing := re.search(r"required field `(\w+)", what):
            raise AnnotationError(f"{where}{path}", f"lacks the key {missing[1]!r}") from None
        value = entry
        for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
            value = value[key or int(index)]
        reason = what.replace("`", "").replace("Expected", "expected", 1)
        raise AnnotationError(f"{where}{path}", f"{reprlib.repr(value)}: {reason}") from None


def _to_name(kind: type[Any], value: Any) -> Name:
    name = clean_name(value) if isinstance(value, str) else ""
    if kind is not Name or not name or not is_text(name):
        raise ValueError("not a name")
    return Name(name)


def load_json(path: Path) -> Any:
    """Load a JSON file of labels."""
    if path.suffix.lower() == ".csv":
        raise LabelError(
            f"{path}: is CSV, which holds labels of whole images (--task classification); this "
            "task reads JSON"
        )
    try:
        with path.open("rb") as file:
            return parse_json(file, str(path))
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_json(file: IO[bytes], name: str) -> Any:
    """Parse an open JSON file; refuse an object that has a key twice.

    NaN and infinity are accepted here, so that :func:`convert` can name their place.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):  # the library would take the last one
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise LabelError(f"{name}: an object has the key {twice!r} twice; keep one of them")
        return fields

    try:
        return json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise LabelError(f"{name}, line {error.lineno}: is not JSON: {error.msg}") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{name}: is not JSON: {error}") from error
