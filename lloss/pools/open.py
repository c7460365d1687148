"""Open the pool that a string names: string → storage path → kind → pool."""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lloss.errors import PoolError
from lloss.pools.array_pool import open_array
from lloss.pools.confinement import Confinement
from lloss.pools.fiftyone_pool import FiftyOnePool
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
from lloss.pools.path_list_pool import PathListPool
from lloss.pools.pool import Pool
from lloss.pools.storage import StoragePath, storage_path
from lloss.pools.uri import PoolUri, is_fiftyone, is_url
from lloss.pools.webdataset_pool import WebDatasetPool


def _tables(files: Sequence[StoragePath], uri: PoolUri) -> Pool:
    from lloss.pools.table_pool import TablePool  # imports pyarrow

    return TablePool(files, str(uri), uri.options)


def _person_crops(files: Sequence[StoragePath], uri: PoolUri) -> Pool:
    from lloss.pools.person_crop_pool import PersonCropPool  # imports the annotation formats

    return PersonCropPool(files[0], uri)


class PoolKind(NamedTuple):
    """A kind of pool that files make up: their suffixes, its options, whether several are one."""

    suffixes: tuple[str, ...]
    options: tuple[str, ...]
    several: bool
    open: Callable[[Sequence[StoragePath], PoolUri], Pool]


POOL_KINDS = (
    PoolKind((".npy", ".npz"), (), False, lambda files, uri: open_array(files[0], str(uri))),
    PoolKind((".txt", ".csv"), (), False, lambda files, uri: PathListPool(files[0], str(uri))),
    PoolKind((".json",), ("image",), False, _person_crops),
    PoolKind(TAR_SUFFIXES, ("image",), True, WebDatasetPool),
    PoolKind(TABLE_SUFFIXES, ("id", "image"), True, _tables),
)
"""All kinds except folders: of image files, and those that Hugging Face ``datasets`` saved."""

_BY_SUFFIX = {suffix: kind for kind in POOL_KINDS for suffix in kind.suffixes}


def open_pool(
    uri: str | Path | PoolUri, within: Confinement | None = None, leave_out: Iterable[Path] = ()
) -> Pool:
    """Open a pool of any kind, on this machine or, by a URL, behind fsspec (``s3://...``).

    A folder tree of image files; a ``.npy``/``.npz`` array; a ``.txt``/``.csv`` list of paths;
    a ``.json`` of persons, which are squares of images; WebDataset shards ``.tar``/``.tar.gz``;
    ``.parquet``/``.arrow`` tables; a folder of shards or tables; a folder that Hugging Face
    ``datasets`` saved; ``fiftyone:NAME``.

    Args:
        uri: a path or a URL. ``{000..123}``, ``{a,b}`` and, in its last part, ``*`` make it many
            files. Options follow a ``?``: ``id`` and ``image`` name columns of a table, ``image``
            a member of shards or the folder of the images of persons.
        within: what everything that is read must be in, whatever links and lists lead to: an
            image elsewhere is a bad image, any other file a :class:`PoolError`. None for anywhere.
        leave_out: folders of this machine whose images are not of a folder's pool; see
            :class:`FolderPool`.

    Raises:
        PoolError: nothing is there, it cannot be read, is of no known kind, or holds no image.
        MissingExtraError: a URL, and ``lloss[remote]`` is not installed.
    """
    uri = PoolUri.parse(uri)
    pool = _opened(uri, within, tuple(leave_out))
    if next(iter(pool), None) is None:
        suffixes = " ".join(sorted(SUFFIXES))
        looked = f" (looked for {suffixes})" if isinstance(pool, FolderPool) else ""
        passed = (pool.passed_over() or PassedOver()).text()
        raise PoolError(f"{uri}: the pool holds no image{looked}{passed and f'; {passed}'}")
    return pool


def _opened(uri: PoolUri, within: Confinement | None, leave_out: Sequence[Path]) -> Pool:
    if uri.has_pattern("{}"):
        return _of_files([_file(path, within) for path in uri.paths()], uri)
    if uri.has_pattern("*"):
        return _of_files(_matching(uri, within), uri)
    if is_fiftyone(uri.path):
        if within is not None:
            raise PoolError(f"{uri}: give a folder of images here, not a dataset of FiftyOne")
        return FiftyOnePool(str(uri))
    path = storage_path(uri.path, within)
    kind = path.kind()
    if kind == "folder":
        return _of_folder(path, uri, leave_out)
    if not kind:
        raise PoolError(f"{path}: no such pool; give {_known_kinds()}")
    return _of_files([path], uri)


def _known_kinds() -> str:
    *suffixes, last = _BY_SUFFIX
    return f"a folder, {', '.join(suffixes)} or {last}"


def _file(name: str, within: Confinement | None) -> StoragePath:
    path = storage_path(name, within)
    if not path.remote and path.kind() != "file":  # in a store each check is a request
        raise PoolError(f"{path}: no such file")
    return path


def _matching(uri: PoolUri, within: Confinement | None) -> Sequence[StoragePath]:
    head, slash, pattern = uri.path.rpartition("/")
    folder = storage_path(head if is_url(head) else head + slash, within)
    if "*" in head or folder.kind() != "folder":
        raise PoolError(f"{uri}: no such folder; only the last part may hold a *")
    entries = folder.entries(lambda name, _: pattern.startswith(".") or not is_hidden(name))
    names = fnmatch.filter((name for name, _, inner in entries if inner is None), pattern)
    if not names:
        raise PoolError(f"{uri}: no file matches the pattern")
    return [folder.at(name) for name in names]


def _of_files(files: Sequence[StoragePath], uri: PoolUri) -> Pool:
    kinds = {_BY_SUFFIX.get(suffix_of(file.name)): file for file in files}
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        raise PoolError(
            f"{uri}: files of two kinds, {first.name} and {second.name}; give one kind, "
            f"such as 'DIR/*{suffix_of(second.name)}'"
        )
    (kind,) = kinds
    uri.check_options(*(kind.options if kind else ()))
    if kind is None:
        raise PoolError(f"{files[0]}: no known kind of pool; give {_known_kinds()}")
    if len(files) > 1 and not kind.several:
        raise PoolError(f"{uri}: several files; of this kind a pool is one file")
    return kind.open(files, uri)


def _of_folder(path: StoragePath, uri: PoolUri, leave_out: Sequence[Path]) -> Pool:
    from lloss.pools.huggingface_pool import open_saved  # imports pyarrow

    saved = open_saved(path, str(uri), uri.options)
    if saved is not None:
        return saved
    images = FolderPool(path, leave_out, str(uri) if path.remote else "")
    passed = images.passed_over() if next(images.ids(), None) is None else None
    if passed is not None and passed.containers:
        return _of_containers(path, uri, passed)
    uri.check_options()
    return images


def _of_containers(folder: StoragePath, uri: PoolUri, passed: PassedOver) -> Pool:
    """Open all shards or tables of a folder without images."""
    inner = next((path for path in passed.containers if "/" in path), None)
    if inner is not None:
        nested = f"{str(uri).rstrip('/')}/{inner.rpartition('/')[0]}"
        raise PoolError(
            f"{uri}: holds shards or tables in folders of its own (such as {inner!r}); "
            f"give one of them, such as {nested!r}"
        )
    names = sorted(passed.containers, key=os.fsencode)
    pool = _of_files([folder.at(name) for name in names], uri)
    others = {end: count for end, count in passed.files.items() if end not in CONTAINERS}
    pool.beside = PassedOver(Counter(others), passed.hidden)
    return pool
