"""A pool's string, parsed once: a path or a URL, options after ``?``, braces.

::

    photos/                                a path
    data.parquet?id=name&image=jpeg        with options
    s3://bucket/shards-{000..123}.tar      a URL that fsspec knows, of many files
    fiftyone:NAME?field=ground_truth       a dataset of FiftyOne, and its field of labels
"""

from __future__ import annotations

import itertools
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from lloss.errors import PoolError
from lloss.files import within

OPTIONS = ("id", "image")
"""Options after ``?``: the column of ids; the column, member or folder of images."""

FIFTYONE = "fiftyone:"
"""Begins the name of a dataset of FiftyOne."""

_MOST = 1_000_000
"""Files that braces may stand for; more is a typing error."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_LOCAL = re.compile(r"(?:file|local)://")
_USER = re.compile(r"(://)[^/?#]*@")
_SECRET = re.compile(
    r"([?&][^=&]*(?:key|secret|token|sig|pass|cred|auth|x-amz-|x-goog-)[^=&]*)=[^&]*", re.I
)


@dataclass(frozen=True)
class PoolUri:
    """A parsed pool string; ``str`` gives the whole without credentials."""

    text: str  # the whole, as given
    path: str  # of this machine, or a URL, without the options
    options: dict[str, str]  # by name, of OPTIONS

    @classmethod
    def parse(cls, uri: str | Path | PoolUri, folder: Path | None = None) -> PoolUri:
        """Split off the options. An existing file of the whole name wins over options.

        A path is relative to ``folder`` if that is given; ``~`` is the user's home. PoolError for
        an unknown option, or one without a value.
        """
        if isinstance(uri, PoolUri):
            return uri
        text = str(uri)
        if folder is not None and not is_url(text):
            text = str(within(folder, Path(text).expanduser()))
        if is_fiftyone(text):
            return cls(text, text, {})
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
        """Write it so that :meth:`parse` with this ``folder`` reads it back."""
        if is_url(self.text) or self.text.startswith("~"):
            return self.text
        return os.path.relpath(self.path, folder) + self.text[len(self.path) :]

    def has_pattern(self, letters: str) -> bool:
        """Whether the path is a pattern with one of these letters, and not such a file's name."""
        literal = not is_url(self.path) and os.path.lexists(self.path)
        return (
            not literal
            and not is_fiftyone(self.path)
            and any(letter in self.path for letter in letters)
        )

    def paths(self, most: int = _MOST) -> list[str]:
        """Write out the braces of the path; see :func:`expanded`."""
        names = expanded(self.path, most) if self.has_pattern("{}") else [self.path]
        return [_LOCAL.sub("", name, count=1) for name in names]

    def check_options(self, *names: str) -> None:
        """Raise PoolError for an option that this kind of pool does not take."""
        wrong = next((name for name in self.options if name not in names), None)
        if wrong is not None:
            others = f" (but {', '.join(names)})" if names else ""
            raise PoolError(f"{self}: this kind of pool takes no option {wrong!r}{others}")


def is_url(uri: str) -> bool:
    """Whether it is a URL, or a dataset's name, and not a path."""
    return "://" in uri or is_fiftyone(uri)


def is_fiftyone(source: str | Path) -> bool:
    """Whether it is a dataset of FiftyOne, and not a path."""
    return str(source).startswith(FIFTYONE)


def without_secrets(text: str) -> str:
    """Leave out user and password before ``@``, and the values of keys, tokens and signatures."""
    return _SECRET.sub(r"\1=…", _USER.sub(r"\1", text))


def expanded(pattern: str, most: int = _MOST) -> list[str]:
    """Write out braces as a shell does: ``{000..123}`` counts up, ``{a,b}`` lists.

    PoolError where one is unbalanced, nested or empty, or there are more names than ``most``.
    """
    parts = _BRACES.split(pattern)  # text and inside of braces in turn
    if any(brace in text for text in parts[::2] for brace in "{}"):
        raise PoolError(f"{pattern}: braces are unbalanced or nested; give {{00..99}} or {{a,b}}")
    choices = [
        _choices(part, pattern, most) if number % 2 else [part] for number, part in enumerate(parts)
    ]
    if math.prod(map(len, choices)) > most:
        raise PoolError(f"{pattern}: stands for more than {most:,} files")
    return list(map("".join, itertools.product(*choices)))


def _choices(inside: str, pattern: str, most: int) -> list[str]:
    counted = _RANGE.fullmatch(inside)
    if counted is None and "," in inside:
        return inside.split(",")
    first, last = counted.groups() if counted else ("1", "0")
    if not 0 <= int(last) - int(first) < most:
        raise PoolError(
            f"{pattern}: {{{inside}}} is not a list {{a,b}}, or a range {{00..99}} that counts up "
            f"to at most {most:,} files"
        )
    padded = any(len(end) > 1 and end[0] == "0" for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
