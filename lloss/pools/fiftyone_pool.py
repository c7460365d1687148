"""The samples of a dataset of FiftyOne, read by its own package from its own database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from lloss.errors import MissingExtraError, PoolError
from lloss.pools.pool import Item, Pool
from lloss.pools.storage import LocalPath
from lloss.pools.uri import FIFTYONE
from lloss.text.first_names import first_names


class FiftyOnePool(Pool):
    """The images of a dataset; an id is the image's path in it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        dataset = load_dataset(uri)
        if dataset.media_type not in ("image", None):  # None: without samples
            raise PoolError(f"{uri}: its media are of the kind {dataset.media_type!r}, not images")
        self._paths: list[str] = dataset.values("filepath")

    def __iter__(self) -> Iterator[Item]:
        root = LocalPath(Path("/"))
        return (root.image(path, file=os.fsencode(path)) for path in self._paths)

    def ids(self) -> Iterator[str]:
        return iter(self._paths)

    def count(self) -> int:
        return len(self._paths)


def load_dataset(uri: str) -> Any:
    """Open the dataset that ``fiftyone:NAME`` names; see :func:`open_dataset`."""
    return open_dataset(uri)[0]


def open_dataset(uri: str, create: bool = False) -> tuple[Any, Any]:
    """Open the dataset that ``fiftyone:NAME`` names, or ``create`` it; return it and the package.

    PoolError where no dataset has this name, or the database cannot be used.
    """
    name, _ = name_and_field(uri)
    if Path(name).is_dir():
        remedy = "give its folder of images as the pool, and --labels with its samples.json"
        raise PoolError(f"{uri}: is a folder; {remedy}")
    with using_database(uri):
        import fiftyone  # an optional package, which starts a database

        names = fiftyone.list_datasets()
        if name in names:
            return fiftyone.load_dataset(name), fiftyone
        if create:
            return fiftyone.Dataset(name), fiftyone
    known = first_names(names) or "no dataset"
    raise PoolError(f"{uri}: FiftyOne has no dataset {name!r}; it has {known}")


@contextlib.contextmanager
def using_database(uri: str) -> Iterator[None]:
    """Turn what FiftyOne and its database raise into one line on ``uri``."""
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(uri, "fiftyone", "fiftyone") from error
    except Exception as error:  # of the database's process, or of its client
        reason = " ".join(str(error).split())[:200]
        raise PoolError(f"{uri}: FiftyOne's database cannot be used: {reason}") from error


def name_and_field(uri: str) -> tuple[str, str]:
    """The name of the dataset, and that of its field of labels; "" without one."""
    name, _, query = uri.removeprefix(FIFTYONE).partition("?")
    options = parse_qs(query, keep_blank_values=True)
    if not name or options.keys() - {"field"} or "" in options.get("field", ()):
        raise PoolError(f"{uri}: give {FIFTYONE}NAME, or {FIFTYONE}NAME?field=FIELD for its labels")
    return name, "".join(options.get("field", []))
