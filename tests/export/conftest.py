"""Exports that take no seconds of torch's exporter."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lloss.export import export_model

Writer = Callable[[object, object, Path], None]


@pytest.fixture(scope="session")
def ready(onnx_file: Path) -> Writer:
    """A ``write_onnx`` for the run ``trained`` that copies its exported model."""

    def write(graph: object, manifest: object, path: Path) -> None:
        shutil.copyfile(onnx_file, path)

    return write


@pytest.fixture
def quick_export(ready: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``export_onnx`` use it."""
    monkeypatch.setattr(export_model, "write_onnx", ready)


@pytest.fixture
def copy(onnx_file: Path, tmp_path: Path) -> Path:
    """A copy of the exported model, to be replaced."""
    return Path(shutil.copyfile(onnx_file, tmp_path / "model.onnx"))
