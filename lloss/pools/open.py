"""Which kind of pool a name means."""

from __future__ import annotations

import fnmatch
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from lloss.errors import PoolError
from lloss.pools.arrays import open_array
from lloss.pools.confinement import Confinement
from lloss.pools.file_walk import (
    CONTAINERS,
    SUFFIXES,
    TABLE_SUFFIXES,
    TAR_SUFFIXES,
    PassedOver,
    is_hidden,
    suffix_of,
)
from lloss.pools.folder_pool import FolderPool
from lloss.pools.path_list import PathListPool
from lloss.pools.pool import Pool
from lloss.pools.storage import LocalPath, StoragePath, place_of
from lloss.pools.uri import PoolUri, expanded, is_url, parse
from lloss.pools.webdataset import WebDatasetPool

_LOOKED = 10_000
"""Images of a folder that are listed at opening, so that shards among them are refused early."""

_OF_SUFFIX = {
    ".npy": "array",
    ".npz": "array",
    ".txt": "list",
    ".csv": "list",
    ".json": "persons",
}

_KINDS = "a folder, .npy, .npz, .txt, .csv, .json, .tar, .tar.gz, .parquet, .arrow or .feather"


def open_pool(
    uri: str | Path, within: Confinement | None = None, leave_out: Iterable[Path] = ()
) -> Pool:
    """Open a pool of any kind, on this machine or, by a URL, behind fsspec (``s3://...``).

    A folder tree of image files; a ``.npy``/``.npz`` array; a ``.txt``/``.csv`` list of paths;
    a ``.json`` of persons, which are squares of images; WebDataset shards ``.tar``/``.tar.gz``;
    ``.parquet``/``.arrow``/``.feather`` tables; a folder of shards or tables; a folder that
    Hugging Face ``datasets`` saved.

    Args:
        uri: a path or a URL. ``{000..123}``, ``{a,b}`` and, in its last part, ``*`` make it many
            files. Options follow a ``?``: ``id`` and ``image`` name columns of a table, ``image``
            a member of shards or the folder of the images of persons, ``split`` one of a saved
            dict of data sets or a part of MPII's persons.
        within: what everything that is read must lie in, whatever links and lists lead to: an
            image elsewhere is a bad image, any other file a :class:`PoolError`. None for anywhere.
        leave_out: folders of this machine whose images are not of a folder's pool; see
            :class:`FolderPool`.

    Raises:
        PoolError: nothing is there, it cannot be read, is of no known kind, or holds no image.
        MissingExtraError: a URL, and ``lloss[remote]`` is not installed.
    """
    asked = parse(str(uri))
    pool = _opened(asked, within, tuple(leave_out))
    if next(iter(pool), None) is None:
        kinds = " ".join(sorted(SUFFIXES))
        is_folder = type(pool).__name__.endswith("FolderPool")
        looked = f" (looked for {kinds})" if is_folder else ""
        passed = (pool.passed_over() or PassedOver()).text()
        besides = f"; {passed}" if passed else ""
        raise PoolError(f"{asked.shown}: the pool holds no image{looked}{besides}")
    return pool


def _opened(asked: PoolUri, within: Confinement | None, leave_out: Sequence[Path]) -> Pool:
    literal = not is_url(asked.path) and os.path.lexists(asked.path)
    if not literal and any(brace in asked.path for brace in "{}"):
        return _of_files([_file(path, within) for path in expanded(asked.path)], asked)
    if not literal and "*" in asked.path:
        return _of_files(_matching(asked, within), asked)
    place = place_of(asked.path, within)
    kind = place.kind()
    if kind == "folder":
        return _of_folder(place, asked, leave_out)
    if not kind:
        raise PoolError(f"{place}: no such pool; give {_KINDS}")
    return _of_files([place], asked)


def _file(path: str, within: Confinement | None) -> StoragePath:
    place = place_of(path, within)
    if isinstance(place, LocalPath) and place.kind() != "file":  # a request each elsewhere
        raise PoolError(f"{place}: no such file")
    return place


def _matching(asked: PoolUri, within: Confinement | None) -> Sequence[StoragePath]:
    head, slash, pattern = asked.path.rpartition("/")
    folder = place_of(head + slash if not is_url(head) else head, within)
    if "*" in head or folder.kind() != "folder":
        raise PoolError(f"{asked.shown}: no such folder; a * stands in the last part alone")
    visible = [name for name in folder.files() if pattern.startswith(".") or not is_hidden(name)]
    names = fnmatch.filter(visible, pattern)
    if not names:
        raise PoolError(f"{asked.shown}: no file matches the pattern")
    return [folder.at(name) for name in names]


def _of_files(places: Sequence[StoragePath], asked: PoolUri) -> Pool:
    kinds = {_kind(place): place for place in places}
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        raise PoolError(
            f"{asked.shown}: files of two kinds, {first.name} and {second.name}; give one kind, "
            f"such as 'DIR/*{suffix_of(second.name)}'"
        )
    (kind,) = kinds
    if kind == "shards":
        return WebDatasetPool(places, asked.shown, _allowed(asked, "image").get("image", ""))
    if kind == "tables":
        from lloss.pools.table import TablePool  # brings pyarrow

        return TablePool(places, asked.shown, _allowed(asked, "id", "image"))
    options = _allowed(asked, *(("image", "split") if kind == "persons" else ()))
    if kind and len(places) > 1:
        raise PoolError(f"{asked.shown}: several files; of this kind a pool is one file")
    if kind == "array":
        return open_array(places[0], asked.shown)
    if kind == "list":
        return PathListPool(places[0], asked.shown)
    if kind == "persons":
        from lloss.pools.person_crops import PersonCropPool

        return PersonCropPool(places[0], asked.shown, options)
    raise PoolError(f"{places[0]}: no known kind of pool; give {_KINDS}")


def _of_folder(place: StoragePath, asked: PoolUri, leave_out: Sequence[Path]) -> Pool:
    from lloss.pools.huggingface import open_saved  # brings pyarrow

    saved = open_saved(place, asked.shown, asked.options)
    if saved is not None:
        return saved
    images = _images_of(place, asked, leave_out)
    looked = sum(1 for _ in itertools.islice(images.ids(), 1 if place.remote else _LOOKED))
    passed = None if looked else images.passed_over()
    if passed is not None and passed.containers:
        return _of_containers(place, asked, passed)
    _allowed(asked)
    return images


def _of_containers(place: StoragePath, asked: PoolUri, passed: PassedOver) -> Pool:
    """The pool of all shards or tables in a folder without images."""
    inner = next((path for path in passed.containers if "/" in path), None)
    if inner is not None:
        folder = f"{asked.shown.rstrip('/')}/{inner.rpartition('/')[0]}"
        raise PoolError(
            f"{asked.shown}: holds shards or tables in folders of its own (such as {inner!r}); "
            f"give one of them, such as {folder!r}"
        )
    names = sorted(passed.containers, key=os.fsencode)
    pool = _of_files([place.at(name) for name in names], asked)
    others = {end: count for end, count in passed.files.items() if end not in CONTAINERS}
    pool.beside = PassedOver(Counter(others), passed.hidden)
    return pool


def _images_of(place: StoragePath, asked: PoolUri, leave_out: Sequence[Path]) -> Pool:
    if isinstance(place, LocalPath):
        return FolderPool(place.path, place.within, leave_out)
    from lloss.pools.remote_storage import RemoteFolderPool, RemotePath

    assert isinstance(place, RemotePath)
    return RemoteFolderPool(place, asked.shown)


def _kind(place: StoragePath) -> str:
    suffix = suffix_of(place.name)
    if suffix in TAR_SUFFIXES:
        return "shards"
    if suffix in TABLE_SUFFIXES:
        return "tables"
    return _OF_SUFFIX.get(place.suffix, "")


def _allowed(asked: PoolUri, *names: str) -> dict[str, str]:
    wrong = next((name for name in asked.options if name not in names), None)
    if wrong is not None:
        known = ", ".join(names) or "none"
        raise PoolError(f"{asked.shown}: this kind of pool takes no option {wrong!r} (but {known})")
    return asked.options
