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
    if "_data_files" not in state:
        return None
    if "split" in options:
        raise PoolError(f"{uri}: is one data set without splits; leave ?split= out")
    files = [folder.at(file["filename"]) for file in state["_data_files"]]
    if not files or state.get("_indices_data_files"):
        raise PoolError(
            f"{uri}: has no rows, or is of an old version of datasets; save it with a current one"
        )
    return TablePool(files, uri, options)


def _json(folder: StoragePath, name: str) -> dict[str, Any]:
    """A JSON file's object; empty where the folder has no such file."""
    path = folder.at(name)
    if path.kind() != "file":
        return {}
    with path.open() as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise PoolError(f"{path}: not readable as JSON: {error}") from error
    return content if isinstance(content, dict) else {}
