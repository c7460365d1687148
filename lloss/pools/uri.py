"""A pool's string, parsed once: a path or a URL, options after ``?``, braces.

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
"""Options after ``?``: the column of ids; the column, member or folder of images; the split."""

_MOST = 1_000_000
"""Files that braces may stand for; more is a typing error."""

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_LOCAL = re.compile(r"(?:file|local)://")
_USER = re.compile(r"(://)[^/?#]*@")
_SECRET = re.compile(
    r"([?&][^=&]*(?:key|secret|token|sig|pass|cred|auth|x-amz-|x-goog-)[^=&]*)=[^&]*", re.I
)


@dataclass(frozen=True)
class PoolUri:
    """A parsed pool string; ``str`` gives the whole without credentials.

    Attributes:
        text: the whole, as given.
        path: a path of this machine or a URL, without the options.
        options: by name, of :data:`OPTIONS`.
    """

    text: str
    path: str
    options: dict[str, str]

    @classmethod
    def parse(cls, uri: str | Path | PoolUri, folder: Path | None = None) -> PoolUri:
        """Split off the options. An existing file of the whole name wins over options.

        Args:
            uri: a parsed one is returned as it is.
            folder: that a path is relative to, with ``~`` for the user's; None to take it as it is.

        Raises:
            PoolError: an unknown option, or one without a value.
        """
        if isinstance(uri, PoolUri):
            return uri
        text = str(uri)
        if folder is not None and not is_url(text):
            text = str(folder / Path(text).expanduser())
        head, mark, query = text.rpartition("?")
        if not mark or "=" not in query or (not is_url(text) and os.path.lexists(text)):
            return cls(text, _LOCAL.sub("", text, count=1), {})
        options = dict(parse_qsl(query, keep_blank_values=True))
        unknown = next((name for name in options if name not in OPTIONS), None)
        if unknown is not None and re.match("https?://", text):
            return cls(text, text, {})  # the server's query, not ours
        if unknown is not None:
            raise PoolError(
                f"{without_secrets(text)}: no such option {unknown!r}; known are "
                f"{', '.join(OPTIONS)} (credentials and endpoints come from the environment)"
            )
        empty = next((name for name, value in options.items() if not value), None)
        if empty is not None:
            raise PoolError(f"{without_secrets(text)}: the option {empty} is empty")
        return cls(text, _LOCAL.sub("", head, count=1), options)

    def __str__(self) -> str:
        return without_secrets(self.text)

    def relative_to(self, folder: Path) -> str:
        """Write it for a file in ``folder``, which :meth:`parse` gets with that folder."""
        if is_url(self.text) or self.text.startswith("~"):
            return self.text
        return os.path.relpath(self.path, folder) + self.text[len(self.path) :]

    @property
    def remote(self) -> bool:
        """Whether the path is a URL of a store."""
        return is_url(self.path)

    def has_pattern(self, letters: str) -> bool:
        """Whether the path is a pattern with one of these letters, and not such a file's name."""
        literal = not self.remote and os.path.lexists(self.path)
        return not literal and any(letter in self.path for letter in letters)

    def paths(self, most: int = _MOST) -> list[str]:
        """Write out the braces of the path; see :func:`expanded`."""
        names = expanded(self.path, most) if self.has_pattern("{}") else [self.path]
        return [_LOCAL.sub("", name, count=1) for name in names]

    def check_options(self, *names: str) -> None:
        """Raise PoolError for an option that this kind of pool does not take."""
        wrong = next((name for name in self.options if name not in names), None)
        if wrong is not None:
            others = ", ".join(names) or "none"
            raise PoolError(f"{self}: this kind of pool takes no option {wrong!r} (but {others})")


def is_url(uri: str) -> bool:
    """Whether it is a URL and not a path."""
    return "://" in uri


def without_secrets(text: str) -> str:
    """Leave out user and password before ``@``, and the values of keys, tokens and signatures."""
    return _SECRET.sub(r"\1=…", _USER.sub(r"\1", text))


def expanded(pattern: str, most: int = _MOST) -> list[str]:
    """Write out braces as a shell does: ``{000..123}`` counts, ``{a,b}`` lists; they may nest.

    Raises:
        PoolError: a brace is unbalanced or empty, or there are more names than ``most``.
    """
    names = list(itertools.islice(_expanded(pattern, pattern), most + 1))
    if len(names) > most:
        raise PoolError(f"{pattern}: stands for more than {most:,} files")
    return names


def _expanded(text: str, whole: str) -> Iterator[str]:
    start = text.find("{")
    if "}" in (text if start < 0 else text[:start]):
        raise PoolError(f"{whole}: a '}}' without a '{{' before it")
    if start < 0:
        yield text
        return
    parts, stop = _alternatives(text, start, whole)
    counted = _RANGE.fullmatch(parts[0]) if len(parts) == 1 else None
    if len(parts) == 1 and counted is None:
        raise PoolError(f"{whole}: {text[start:stop]!r} is neither a range {{00..99}} nor {{a,b}}")
    nested = itertools.chain.from_iterable(_expanded(part, whole) for part in parts)
    for middle in _counted(*counted.groups()) if counted else nested:
        for rest in _expanded(text[stop:], whole):
            yield text[:start] + middle + rest


def _counted(first: str, last: str) -> Iterator[str]:
    padded = first.startswith("0") or last.startswith("0")
    width = max(len(first), len(last)) if padded else 0
    step = 1 if int(first) <= int(last) else -1
    return (f"{number:0{width}d}" for number in range(int(first), int(last) + step, step))


def _alternatives(text: str, start: int, whole: str) -> tuple[list[str], int]:
    """The comma-separated parts of the brace at ``start``, and the position behind it."""
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
