"""Creation of a project: write ``lloss.toml`` and check everything in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.errors import LabelError, ProjectError
from lloss.files import write_text
from lloss.pools import Pool
from lloss.pools.uri import PoolUri
from lloss.project.project import FILE, HOLDOUT, Project, load_project
from lloss.tasks import TASKS, get_task


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

    Raises:
        ProjectError: the folder already contains a project.
        LlossError: an invalid value.
    """
    if (root / FILE).exists():
        raise ProjectError(f"{root / FILE}: already exists; edit it, or choose another folder")
    problems = problems or Problems(bool(values.get("skip_bad")))
    written = dict(values)
    for name in ("pool", "labels", "test", "test_labels"):
        value = written.get(name)
        if not value:
            continue
        dataset = any(get_task(task).is_dataset(value) for task in TASKS)
        if (name in ("pool", "test") and not dataset) or Path(value).exists():
            written[name] = PoolUri.parse(value).relative_to(root)
    with _restored_on_failure(root):
        _note_earlier(root, problems)
        write_text(root / FILE, _toml(written, train))
        project = load_project(root)
        _check(project, problems)
    return project


def _check(project: Project, problems: Problems) -> None:
    task = project.task
    task.check_empty(project.empty)
    labeled = project.open_labels(problems=problems)
    pool = project.open_pool()
    problems.note(pool.remark())
    training, test = project.split(labeled, problems)
    tested = project.test_ids(pool, test, problems)
    _note_remaining(project, pool, len(tested | {item.id for item in labeled.items}), problems)
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
    new = [root / name for name in (FILE, HOLDOUT) if not (root / name).exists()]
    folders = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # another process wrote into the folder
            for path in new:
                path.unlink(missing_ok=True)
            for folder in folders:
                folder.rmdir()
        raise


def _note_remaining(project: Project, pool: Pool, used: int, problems: Problems) -> None:
    """Warn of a K larger than what is left, before a network is trained for it."""
    if pool.streamed:  # counting would read everything
        return
    left = pool.count() - used
    if left < project.k:
        problems.note(
            f"k = {project.k}, but {left} images of {pool.uri} are neither labeled nor for "
            "measuring; lower k, or use lloss next --at-most"
        )


def _note_earlier(root: Path, problems: Problems) -> None:
    """Mention files of an earlier project that this one will use."""
    if (root / HOLDOUT).exists():
        problems.note(f"{root / HOLDOUT}: already exists; its images are held out")
    cycles = sorted(path.parent.name for path in (root / "cycles").glob("*/summary.json"))
    if cycles:
        problems.note(
            f"{root / 'cycles'}: {len(cycles)} cycles already exist; lloss next continues after "
            f"{cycles[-1]}"
        )


def _toml(values: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    comments = {key.name: key.metadata.get("comment") for key in fields(Project)}
    lines = [f"{name} = {_toml_value(v)}  # {comments[name]}" for name, v in values.items()]
    lines += ["", "[train]  # lloss train --help lists all settings"]
    lines += [f"{name} = {_toml_value(v)}" for name, v in train.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    # JSON strings, numbers, booleans and lists are valid TOML, except for this one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
