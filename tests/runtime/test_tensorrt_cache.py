"""A private folder for each combination of what an engine depends on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lloss.errors import EngineError, LlossError
from lloss.runtime.tensorrt_cache import engine_folder

CONTENT = {"onnxruntime": "1.31.1", "gpu": "NVIDIA H100 80GB HBM3", "sha256": "ab" * 32}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lloss" / "tensorrt"


def test_the_same_key_gives_the_same_private_folder(root: Path) -> None:
    engine = engine_folder(CONTENT)
    assert engine_folder(dict(reversed(CONTENT.items()))) == engine
    for folder in (root.parent, root, engine):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert json.loads((engine / "key.json").read_text()) == CONTENT
    for name in CONTENT:
        assert engine_folder({**CONTENT, name: "other"}) != engine


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(root: Path, which: int, mode: int) -> None:
    engine = engine_folder(CONTENT)
    folder = (root.parent, root, engine)[which]
    folder.chmod(mode)
    with pytest.raises(EngineError, match=rf"users can write to it .*mode {mode:o}.*chmod go-w"):
        engine_folder(CONTENT)
    folder.chmod(0o755)
    assert engine_folder(CONTENT) == engine


def test_the_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine_folder(CONTENT)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(EngineError, match=rf"\(user {mine}, .*XDG_CACHE_HOME"):
        engine_folder(CONTENT)


def test_a_file_in_the_way_is_an_error(root: Path) -> None:
    root.parent.parent.mkdir(parents=True)
    root.parent.write_text("")
    with pytest.raises(LlossError, match="cannot be written"):
        engine_folder(CONTENT)


def test_the_default_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unusable in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert engine_folder(CONTENT).parent == tmp_path / ".cache" / "lloss" / "tensorrt"
