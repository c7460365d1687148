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
from dataclasses import dataclass
from pathlib import Path

from lloss.errors import EngineError
from lloss.files import write_error, write_json

KEY = "key.json"


@dataclass(frozen=True)
class EngineCache:
    """Two folders.

    ``timings`` are of kernels on this machine, for any model: with them the engine of the next
    cycle's model builds in a fraction of the time.
    """

    engines: Path  # of one model, on one machine, in one range of shapes
    timings: Path

    @classmethod
    def of(
        cls, machine: Mapping[str, str], model: Mapping[str, str], root: Path | None = None
    ) -> EngineCache:
        """Find or make the folders in ``root``, by default :func:`default_root`."""
        root = root or default_root()
        for folder in (root.parent, root):
            _make_private(folder)
        engines = _keyed_folder(root / "engines", {**machine, **model})
        return cls(engines, _keyed_folder(root / "timings", machine))


def default_root() -> Path:
    """``lloss/tensorrt`` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # XDG base directory specification: ignore a relative path.
    base = Path(home) if Path(home).is_absolute() else Path.home() / ".cache"
    return base / "lloss" / "tensorrt"


def _keyed_folder(parent: Path, key: Mapping[str, str]) -> Path:
    text = json.dumps(dict(key), sort_keys=True, ensure_ascii=False)
    folder = parent / hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
    for path in (parent, folder):
        _make_private(path)
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
    if status.st_uid != os.getuid():
        raise EngineError(
            f"{folder}: belongs to user {status.st_uid}, and TensorRT runs the engines that it "
            "finds there: set XDG_CACHE_HOME to a folder of your own"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(
            f"{folder}: others can write to it (mode {stat.S_IMODE(status.st_mode):o}), and "
            f"TensorRT runs the engines that it finds there: chmod go-w '{folder}'"
        )
