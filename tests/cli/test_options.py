"""What the commands that compute on a GPU do first, and how a GPU is named to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lloss.cli.main import main
from lloss.runtime import tf32


def test_a_share_is_no_number_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["select", "scores", "-k", "5", "--subset", "0.5"])
    assert "'0.5' is not a valid number of images" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "serve"])
@pytest.mark.parametrize("text", ["gpu", "auto:1", "cuda:x"])
def test_other_devices_are_refused(
    command: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = {"score": ["pool", "-o", "scores"], "serve": ["--data-dir", str(tmp_path / "data")]}
    with pytest.raises(SystemExit) as left:
        main([command, "model.onnx", *where[command], "--provider", text])
    assert left.value.code == 2
    assert f"provider '{text}'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["score", "serve"])
def test_tf32_is_forbidden_before_anything_is_loaded(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def forbid() -> None:
        called.append(command)
        raise SystemExit(3)

    monkeypatch.setattr(tf32, "forbid", forbid)
    model = str(tmp_path / "model.onnx")
    rest = {
        "score": [str(tmp_path), "-o", str(tmp_path / "scores")],
        "serve": ["--data-dir", str(tmp_path / "data")],
    }
    with pytest.raises(SystemExit) as left:
        main([command, model, *rest[command]])
    assert left.value.code == 3 and called == [command]
