"""``lloss.toml`` read as a :class:`.Project`."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

from lloss.errors import ProjectError, SettingsError
from lloss.project.project import FILE, Project
from lloss.tasks.presets import PRESETS, resolve_settings


def load_project(root: Path) -> Project:
    """Read ``lloss.toml``.

    Raises:
        ProjectError: the file is missing or not TOML.
        SettingsError: an unknown key or an invalid value.
    """
    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ProjectError(
            f"{root}: contains no {FILE}; start with lloss init {root} --pool POOL --labels CSV"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path}: cannot be read: {error}") from error
    return parse_project(root, text)


def parse_project(root: Path, text: str) -> Project:
    """Read what ``lloss.toml`` holds, or will hold; raises as :func:`load_project` does."""
    path = root / FILE
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{path}: cannot be read: {error}") from error
    names = {key.name for key in fields(Project)} - {"root"}
    if unknown := [name for name in content if name not in names]:
        raise SettingsError(
            f"{path}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(names))}"
        )
    if missing := [name for name in ("pool", "labels", "k") if name not in content]:
        raise SettingsError(f"{path}: {missing[0]} is missing")
    train = content.pop("train", {})
    if not isinstance(train, dict):
        raise SettingsError(f"{path}: train = {train!r}: write [train] above its keys")
    preset = train.pop("preset", "default")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise SettingsError(f"{path}: preset {preset!r}: choose one of {', '.join(PRESETS)}")
    settings = resolve_settings(preset, f"{path} [train]", **train)
    if not settings.head:
        raise SettingsError(f"{path} [train]: head = false predicts no loss to select by")
    if isinstance(content.get("formats"), list):
        content["formats"] = tuple(content["formats"])
    return Project(root=root, train=settings, **content)
