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


def engine_folder(key: Mapping[str, str]) -> Path:
    """Find or make the folder of the engine of this key, in the user's cache folder."""
    text = json.dumps(dict(key), sort_keys=True, ensure_ascii=False)
    root = _root()
    folder = root / hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
    for path in (root.parent, root, folder):
        _make_private(path)
    if not (folder / KEY).is_file():
        write_json(folder / KEY, dict(key))
    return folder


def _root() -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    # XDG base directory specification: ignore a relative path.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "lloss" / "tensorrt"


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
