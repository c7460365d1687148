"""Packages installed for one test: modules, and metadata with entry points as pip writes them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lloss.modeling.network_source import class_layers, network_input


def install(
    folder: Path,
    patch: pytest.MonkeyPatch,
    name: str,
    modules: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
) -> None:
    """Write a distribution into a folder that modules are found in until the test ends."""
    folder.mkdir(exist_ok=True)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, points in entry_points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), "")
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    forget(patch, *modules)
    patch.syspath_prepend(str(folder))


def here(folder: Path, patch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """Write a module into a folder and make it the current directory, for one test."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    patch.chdir(folder)
    forget(patch, name)


def forget(patch: pytest.MonkeyPatch, *modules: str) -> None:
    """Have modules imported again; the path is as it was after the test."""
    patch.setattr(sys, "path", list(sys.path))
    for module in modules:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()
    network_input.cache_clear()
    class_layers.cache_clear()
