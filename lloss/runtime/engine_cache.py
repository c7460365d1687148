"""The folders of TensorRT's engines.

TensorRT reads whatever engine it finds under a name: a changed model, GPU or version does not make
it build another one. So a folder's name is the hash of all that an engine depends on, and
``key.json`` in it lists that. An engine file is code that runs on the GPU: a folder that others
can write to is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from lloss.errors import EngineError
from lloss.files import write_error, write_json

KEY = "key.json"


def engine_folder(
    machine: Mapping[str, str], model: Mapping[str, str], root: Path | None = None
) -> Path:
    """Find or make the folder for the engine of one model, in one range of shapes.

    Its parent is the machine's: kernels timed for one model serve the engines of the next ones.
    """
    root = root or default_root()
    for folder in (root.parent, root):
        _make_private(folder)
    return _keyed_folder(_keyed_folder(root, machine), model)


def default_root() -> Path:
    """``lloss/tensorrt`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # XDG base directory specification: ignore a relative path.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "lloss" / "tensorrt"


def _keyed_folder(parent: Path, key: Mapping[str, str]) -> Path:
    text = json.dumps(dict(key), sort_keys=True, ensure_ascii=False)
    folder = parent / hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
    _make_private(folder)
    if not (folder / KEY).is_file():
        write_json(folder / KEY, dict(key))
    return folder


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter, or check an existing one."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise write_error(error, folder) from error
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f"{folder}: other users can write to it (user {status.st_uid}, mode "
            f"{stat.S_IMODE(status.st_mode):o}), and TensorRT runs the engines that it finds "
            f"there: chmod go-w '{folder}', or set XDG_CACHE_HOME to a folder of your own"
        )
