"""Creation of a project: write ``lloss.toml`` and check everything in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.data.label_source import relative_source
from lloss.errors import LabelError, ProjectError
from lloss.files import write_text
from lloss.pools.uri import PoolUri
from lloss.project.project import FILE, HOLDOUT, Project, load_project


def create_project(
    root: Path,
    values: Mapping[str, Any],
    train: Mapping[str, Any],
    problems: Problems | None = None,
) -> Project:
    """Write ``lloss.toml`` and check every value in it, and the labels against the pool.

    A failure leaves the folder as it was.

    Args:
        root: the project's folder; created if missing.
        values: keys of :class:`Project`; paths are relative to the working directory.
        train: ``preset`` and the training settings that differ from it.
        problems: receives broken annotations and notes for the user.
    """
    if (root / FILE).exists():
        raise ProjectError(f"{root / FILE}: already exists; edit it, or choose another folder")
    for left in (root / HOLDOUT, root / "cycles"):
        if left.exists():
            raise ProjectError(
                f"{left}: is of an earlier project; remove it, or choose another folder"
            )
    problems = problems or Problems(bool(values.get("skip_bad")))
    written = dict(values)
    for name in ("pool", "labels", "test", "test_labels"):
        if value := written.get(name):
            pool = PoolUri.parse(value) if name in ("pool", "test") else None
            written[name] = pool.relative_to(root) if pool else relative_source(value, root)
    with _restored_on_failure(root):
        write_text(root / FILE, _toml(written, train))
        project = load_project(root)
        _check(project, problems)
    return project


def _check(project: Project, problems: Problems) -> None:
    task = project.task
    task.check_empty(project.empty)
    labeled = project.open_labels(problems=problems)
    training, _ = project.split(labeled, problems)
    for labels in (labeled.labels, training.labels):  # without images that are in the test set too
        task.check(labels, task.classes(labels))
    if len(training) < project.train.batch_size:
        raise LabelError(
            f"{labeled.origin}: {len(training)} images to train on are fewer than a batch of "
            f"{project.train.batch_size}: label more, or pass --batch-size {len(training)}"
        )
    task.note_classes(labeled.labels, problems)


@contextlib.contextmanager
def _restored_on_failure(root: Path) -> Iterator[None]:
    """Remove the files and folders that the block created if it fails."""
    folders = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another process wrote into the folder
            for name in (FILE, HOLDOUT):
                (root / name).unlink(missing_ok=True)
            for folder in folders:
                folder.rmdir()
        raise


def _toml(values: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    comments = {key.name: key.metadata.get("comment") for key in fields(Project)}
    lines = [f"{name} = {_toml_value(v)}  # {comments[name]}" for name, v in values.items()]
    lines += ["", "[train]  # lloss train --help lists all settings"]
    lines += [f"{name} = {_toml_value(v)}" for name, v in train.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    # JSON strings, numbers, booleans and lists are valid TOML, except for this one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
