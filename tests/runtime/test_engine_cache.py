"""A private folder for each combination of what an engine depends on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lloss.errors import EngineError, LlossError
from lloss.runtime.engine_cache import default_root, engine_folder

MACHINE = {"onnxruntime": "1.31.1", "tensorrt": "101401", "gpu": "NVIDIA H100 80GB HBM3"}
MODEL = {"sha256": "ab" * 32, "precision": "fp16", "trt_profile_max_shapes": "images:256x32x32x3"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "lloss" / "tensorrt"


def test_the_same_key_gives_the_same_private_folder(root: Path) -> None:
    engines = engine_folder(MACHINE, MODEL, root)
    assert engine_folder(dict(reversed(MACHINE.items())), MODEL, root) == engines
    for folder in (root.parent, root, engines.parent, engines):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert json.loads((engines / "key.json").read_text()) == MODEL
    assert json.loads((engines.parent / "key.json").read_text()) == MACHINE
    for name in (*MACHINE, *MODEL):
        machine, model = dict(MACHINE), dict(MODEL)
        (machine if name in machine else model)[name] = "other"
        other = engine_folder(machine, model, root)
        assert other != engines
        # Kernels are timed for the machine: the next cycle's model has the same ones.
        assert (other.parent != engines.parent) == (name in MACHINE)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(root: Path, which: int, mode: int) -> None:
    engines = engine_folder(MACHINE, MODEL, root)
    folder = (root.parent, root, engines.parent, engines)[which]
    folder.chmod(mode)
    with pytest.raises(EngineError, match=rf"users can write to it .*mode {mode:o}.*chmod go-w"):
        engine_folder(MACHINE, MODEL, root)
    folder.chmod(0o755)
    assert engine_folder(MACHINE, MODEL, root) == engines


def test_the_folder_of_another_user_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_folder(MACHINE, MODEL, root)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(EngineError, match=rf"\(user {mine}, .*XDG_CACHE_HOME"):
        engine_folder(MACHINE, MODEL, root)


def test_a_file_in_the_way_is_an_error(root: Path) -> None:
    root.parent.parent.mkdir(parents=True)
    root.parent.write_text("")
    with pytest.raises(LlossError, match="cannot be written"):
        engine_folder(MACHINE, MODEL, root)


def test_the_default_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "lloss" / "tensorrt"
    monkeypatch.setenv("HOME", "/home/somebody")
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert default_root() == Path("/home/somebody/.cache/lloss/tensorrt")
