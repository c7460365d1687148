"""Data sets that Hugging Face ``datasets`` saved to disk, read without that package."""

from __future__ import annotations

import json
from typing import Any

from lloss.errors import PoolError
from lloss.pools.pool import Pool
from lloss.pools.storage import StoragePath
from lloss.pools.table_pool import TablePool


def open_saved(folder: StoragePath, uri: str, options: dict[str, str]) -> Pool | None:
    """Open a ``save_to_disk`` folder of a data set, or of a dict of them; None for another folder.

    Of the ``options``, ``split`` chooses from a dict; ``id`` and ``image`` name columns.
    """
    splits = _json(folder, "dataset_dict.json").get("splits")
    if splits is not None:
        options = dict(options)
        split = options.pop("split", "")
        if split not in splits:
            found = f"has no split {split!r}" if split else "holds several data sets"
            raise PoolError(f"{uri}: {found}; choose with ?split= one of {', '.join(splits)}")
        return open_saved(folder.at(split), uri, options)
    state = _json(folder, "state.json")
    files = state.get("_data_files")
    if files is None:
        return None
    if "split" in options:
        raise PoolError(f"{uri}: is one data set without splits; leave ?split= out")
    if state.get("_indices_data_files"):
        raise PoolError(
            f"{uri}: was saved by an old version of datasets, with indices beside its rows; load "
            "it with a current one and save it again"
        )
    if not files:
        raise PoolError(f"{uri}: the data set has no rows")
    return TablePool([folder.at(file["filename"]) for file in files], uri, options)


def _json(folder: StoragePath, name: str) -> dict[str, Any]:
    """A JSON file's object; empty where the folder has no such file."""
    path = folder.at(name)
    if path.kind() != "file":
        return {}
    with path.open() as file:
        try:
            content = json.loads(file.read())
        except ValueError as error:
            raise PoolError(f"{path}: not readable as JSON: {error}") from error
    return content if isinstance(content, dict) else {}
