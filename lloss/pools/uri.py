"""What a pool is called: paths, URLs, options after ``?``, braces.

::

    photos/                                a path
    data.parquet?id=name&image=jpeg        with options
    s3://bucket/shards-{000..123}.tar      a URL that fsspec knows, of many files
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from lloss.errors import PoolError

OPTIONS = ("id", "image", "split")
"""What may stand after ``?``: the column of ids; the column, member or folder of images; the
split."""

_MOST = 1_000_000
"""Files that braces may stand for; more is a typing error."""

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_USER = re.compile(r"(://)[^/?#]*@")
_SECRET = re.compile(
    r"([?&][^=&]*(?:key|secret|token|sig|pass|cred|auth|x-amz-|x-goog-)[^=&]*)=[^&]*", re.I
)


@dataclass(frozen=True)
class PoolUri:
    """A pool's name taken apart.

    Attributes:
        path: without the options.
        options: of :data:`OPTIONS`, those that were given.
        shown: the whole, fit for messages and files: without credentials.
    """

    path: str
    options: dict[str, str]
    shown: str


def parse(uri: str) -> PoolUri:
    """Take a pool's name apart. A file that is really called so wins over options.

    Raises:
        PoolError: an unknown option, or one without a value.
    """
    shown = without_secrets(uri)
    head, mark, query = uri.rpartition("?")
    if not mark or "=" not in query or (not is_url(uri) and os.path.lexists(uri)):
        return PoolUri(uri, {}, shown)
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = next((name for name in options if name not in OPTIONS), None)
    if unknown is not None and re.match("https?://", uri):
        return PoolUri(uri, {}, shown)  # the server's query, not ours
    if unknown is not None:
        raise PoolError(
            f"{shown}: no such option {unknown!r}; known are {', '.join(OPTIONS)} "
            "(credentials and endpoints come from the environment)"
        )
    for name, value in options.items():
        if not value:
            raise PoolError(f"{shown}: the option {name} is empty")
    return PoolUri(head, options, shown)


def is_url(uri: str) -> bool:
    """Whether it is a URL and no path."""
    return "://" in uri


def without_secrets(text: str) -> str:
    """Leave out user and password before ``@``, and the values of keys, tokens and signatures."""
    return _SECRET.sub(r"\1=…", _USER.sub(r"\1", text))


def from_folder(folder: Path, uri: str) -> str:
    """A pool's name as written in a file of ``folder``, as the process sees it."""
    return uri if is_url(uri) else str(folder / Path(uri).expanduser())


def to_folder(folder: Path, uri: str) -> str:
    """The inverse: a pool's name as it is to be written in a file of ``folder``."""
    if is_url(uri) or uri.startswith("~"):
        return uri
    path = parse(uri).path
    return os.path.relpath(path, folder) + uri[len(path) :]


def expanded(pattern: str, most: int = _MOST) -> list[str]:
    """Write out braces as a shell does: ``{000..123}`` counts, ``{a,b}`` lists; they may nest.

    Args:
        pattern: with or without braces.
        most: names that it may stand for.

    Raises:
        PoolError: a brace is unbalanced or empty, or they stand for more names.
    """
    names = list(itertools.islice(_expanded(pattern, pattern), most + 1))
    if len(names) > most:
        raise PoolError(f"{pattern}: stands for more than {most:,} files")
    return names


def _expanded(text: str, whole: str) -> Iterator[str]:
    start = text.find("{")
    if start < 0:
        if "}" in text:
            raise PoolError(f"{whole}: a '}}' without a '{{' before it")
        yield text
        return
    if "}" in text[:start]:
        raise PoolError(f"{whole}: a '}}' without a '{{' before it")
    parts, stop = _alternatives(text, start, whole)
    counted = _RANGE.fullmatch(parts[0]) if len(parts) == 1 else None
    if len(parts) == 1 and counted is None:
        raise PoolError(f"{whole}: {text[start:stop]!r} is neither a range {{00..99}} nor {{a,b}}")
    inner = _counted(*counted.groups()) if counted else _each(parts, whole)
    for middle in inner:
        for rest in _expanded(text[stop:], whole):
            yield text[:start] + middle + rest


def _each(parts: list[str], whole: str) -> Iterator[str]:
    return itertools.chain.from_iterable(_expanded(part, whole) for part in parts)


def _counted(first: str, last: str) -> Iterator[str]:
    padded = first.startswith("0") or last.startswith("0")
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return (f"{number:0{width}d}" for number in range(int(first), int(last) + step, step))


def _alternatives(text: str, start: int, whole: str) -> tuple[list[str], int]:
    """What commas part between the brace at ``start`` and its fellow, and where that ends."""
    depth, parts = 0, [""]
    for position in range(start, len(text)):
        letter = text[position]
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return parts, position + 1
        if letter == "," and depth == 1:
            parts.append("")
        elif position > start:
            parts[-1] += letter
    raise PoolError(f"{whole}: a '{{' without its '}}'")
