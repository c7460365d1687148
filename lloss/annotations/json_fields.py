"""What the readers of annotations share: checked values, each named by its place in the file."""

from __future__ import annotations

import contextlib
import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lloss.annotations.problems import Problems
from lloss.errors import LabelError
from lloss.text.clean_names import clean_name, is_text

FARTHEST = 1e9
"""A coordinate beyond this many pixels is none of any image."""

_PLAIN = (int, float)


class BrokenError(Exception):
    """An annotation that cannot be used; never leaves the readers.

    Args:
        where: its place, as :meth:`Problems.report` takes it.
        what: is wrong with it.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what


class NothingMarkedError(BrokenError):
    """A box without area: it marks no pixel, so that nothing is hidden by leaving it out."""


@contextlib.contextmanager
def leaving_out(problems: Problems) -> Iterator[None]:
    """Report what is broken in the block, and go on after the block where that is asked for.

    Raises:
        LabelError: broken annotations are not to be left out.
    """
    try:
        yield
    except BrokenError as error:
        problems.report(error.where, error.what)


@dataclass(slots=True)
class Whole:
    """Whether all objects of an image could be read, but for such as mark nothing.

    Of an image that shows more than is known of it, the rest would teach that there is nothing.
    """

    yes: bool = True

    @contextlib.contextmanager
    def leaving_out(self, problems: Problems) -> Iterator[None]:
        """As :func:`leaving_out`, around one object."""
        with leaving_out(problems):
            try:
                yield
            except BrokenError as error:
                self.yes = self.yes and isinstance(error, NothingMarkedError)
                raise


def load_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        LabelError: there is no such file, or it is no JSON.
    """
    if path.suffix.lower() == ".csv":
        raise LabelError(
            f"{path}: is CSV, which holds labels of whole images (--task classification); this "
            "task reads JSON"
        )
    if path.is_dir():
        raise LabelError(f"{path}: is a folder; this task reads a JSON file")
    try:
        with path.open("rb") as file:
            return parse_json(file, str(path))
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_json(file: IO[bytes], name: str) -> Any:
    """What an open JSON file holds.

    Raises:
        LabelError: it is no JSON, or a key stands twice in an object.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):  # the library would take the last one
            keys = [key for key, _ in pairs]
            twice = next(key for key, times in Counter(keys).items() if times > 1)
            raise LabelError(f"{name}: an object has the key {twice!r} twice; keep one of them")
        return found

    try:
        return json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise LabelError(f"{name}, line {error.lineno}: is no JSON: {error.msg}") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise LabelError(f"{name}: is no JSON: {error}") from error


def field(entry: Any, key: str, where: str) -> Any:
    """An entry's value of a key that has to be there."""
    if not isinstance(entry, Mapping):
        raise BrokenError(where, f"{reprlib.repr(entry)} is no object with keys")
    if entry.get(key) is None:
        raise BrokenError(where, f"lacks the key {key!r}")
    return entry[key]


def text(entry: Any, key: str, where: str) -> str:
    """An entry's text of a key that has to be there."""
    value = field(entry, key, where)
    if not isinstance(value, str) or not value.strip():
        raise BrokenError(f"{where}.{key}", f"{reprlib.repr(value)} is no text")
    return value


def name_of(value: Any, where: str) -> str:
    """The name of a class or of a joint as it is compared, see :func:`.clean_name`."""
    name = clean_name(value) if isinstance(value, str) else ""
    if not name or not is_text(name):
        raise BrokenError(where, f"{reprlib.repr(value)} is no name")
    return name


def number(value: Any, where: str) -> float:
    """A coordinate or a length: finite, and not farther than any image reaches."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BrokenError(where, f"{reprlib.repr(value)} is no number")
    return within_reach(value, where)


def within_reach(value: int | float, where: str) -> float:
    """The number, if it is one that images know."""
    if isinstance(value, float) and not math.isfinite(value):
        raise BrokenError(where, f"{value} is no finite number")
    if not -FARTHEST <= value <= FARTHEST:
        raise BrokenError(where, f"{reprlib.repr(value)} is far outside any image")
    return float(value)


def numbers(value: Any, count: int, where: str) -> list[float]:
    """So many numbers."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != count:
        raise BrokenError(where, f"{reprlib.repr(value)}: these are not {count} numbers")
    if all(type(one) in _PLAIN and -FARTHEST <= one <= FARTHEST for one in value):
        return [float(one) for one in value]  # spares naming the place of each
    return [number(one, f"{where}[{place}]") for place, one in enumerate(value)]


def side_of(entry: Any, key: str, where: str) -> int:
    """An image's width or height where the entry tells it, else 0."""
    value = entry.get(key)
    if value is None:
        return 0
    side = number(value, f"{where}.{key}")
    if side < 0 or side != int(side):
        raise BrokenError(f"{where}.{key}", f"{value} is no number of pixels")
    return int(side)
