"""Data sets that Hugging Face ``datasets`` saved to disk, read without that package."""

from __future__ import annotations

import json
from typing import Any

from lloss.errors import PoolError
from lloss.pools.pool import Pool
from lloss.pools.storage import StoragePath
from lloss.pools.table_pool import TablePool


def open_saved(folder: StoragePath, uri: str, options: dict[str, str]) -> Pool | None:
    """Open a ``save_to_disk`` folder of a data set; None for another folder."""
    splits = _json(folder, "dataset_dict.json").get("splits", ())
    if splits:
        folders = ", ".join(f"{uri.partition('?')[0]}/{split}" for split in splits)
        raise PoolError(f"{uri}: holds several data sets; give one of {folders}")
    state = _json(folder, "state.json")
    if "_data_files" not in state:
        return None
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
