"""Creation of a project: write ``lloss.toml`` and check everything in it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.data.label_source import relative_source
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, PoolError, ProjectError
from lloss.files import sweep, write_error, write_text
from lloss.pools.uri import PoolUri
from lloss.project.choice_settings import usual_class_weight
from lloss.project.project import FILE, HOLDOUT, Project
from lloss.project.project_file import load_project, parse_project
from lloss.selection.metadata import check_table
from lloss.tasks import get_task
from lloss.tasks.presets import resolve_settings
from lloss.text.counts import counted
from lloss.training.training_data import PAIRS

LEAST, MOST = 10, 500  # Images that a cycle selects where nothing else is asked for
FIRST = 50  # The same without labels: so many first ones show some of most classes


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
        values: keys of :class:`Project`; paths are relative to the working directory. Without
            ``k`` it is chosen by the number of labels; without ``labels`` they are to be written
            into a file in the project's folder.
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
    for name in ("pool", "labels", "test", "test_labels", "metadata"):
        if value := written.get(name):
            pool = PoolUri.parse(value) if name in ("pool", "test") else None
            written[name] = pool.relative_to(root) if pool else relative_source(value, root)
    task = resolve_settings(str(train.get("preset", "default")), "[train]", **_given(train)).task
    if not written.get("labels"):
        written["labels"] = _labels_file(task)
    if "class_weight" not in written and "strategy" in written:
        weight = usual_class_weight(get_task(task), written["strategy"], written.get("balance", ""))
        written |= {"class_weight": weight} if weight else {}
    chosen = written.get("k")  # 0 is refused
    with _restored_on_failure(root):
        _make(root)
        written["k"] = 1 if chosen is None else chosen
        project = parse_project(root, _toml(written, train))
        labels, unlabeled = _check(project, problems)
        if chosen is None:
            written["k"] = _k(labels, unlabeled, problems)
        problems.note(_too_few_left(values["pool"], written["k"], unlabeled))
        write_text(root / FILE, _toml(written, train))  # last: a killed init leaves no project
        return load_project(root)


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, root / FILE) from error
    sweep(root)


def _labels_file(name: str) -> str:
    task = get_task(name)
    return "masks" if task.masks else task.labels_file


def _given(train: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in train.items() if name != "preset"}


def _k(labels: int, left: int | None, problems: Problems) -> int:
    """Choose how many images a cycle selects: each adds a quarter to the labels."""
    k, why = min(max(labels // 4, LEAST), MOST), f"a quarter of the {counted(labels, 'label')}"
    if not labels:
        k, why = FIRST, "nothing is labeled yet"
    elif k != labels // 4:
        why += f", {'at least' if k == LEAST else 'at most'} {k}"
    if left and k > left // 2:
        k, why = max(left // 2, 1), f"half of the {left} images that are not labeled"
        why = why if left > 1 else "one image is not labeled"
    problems.note(f"k = {counted(k, 'image')} to label per cycle: {why}; -k sets it")
    return k


def _too_few_left(pool: str, k: int, left: int | None) -> str:
    """Say that the pool has fewer than K images to select; "" where it has them."""
    if left is None or left >= k:
        return ""
    if not left:
        return f"none is left to label in {pool}; add images to the pool before lloss next"
    return (
        f"k = {k}: only {left} left to label in {pool}; lower k, add images to the pool, or pass "
        "--at-most to lloss next"
    )


def _check(project: Project, problems: Problems) -> tuple[int, int | None]:
    """Refuse what no cycle could use; return the number of labels, and of images without one."""
    task = project.task
    task.check_empty(project.empty)
    if project.metadata:
        check_table(project.path(project.metadata), project.balance)
    if project.unlabeled():
        test = _check_pool(project, problems)
        return 0, project.left_to_label([], test, problems)
    labeled = project.open_labels(problems=problems)
    training, held_out = project.split(labeled, problems)
    for labels in (labeled.labels, training.labels):  # without images that are in the test set too
        task.check(labels, task.classes(labels))
    if len(training) < 2:
        raise LabelError(f"{labeled.origin}: {len(training)} image to train on: {PAIRS}")
    task.note_classes(labeled.labels, problems)
    return len(labeled), project.left_to_label(labeled.items, held_out, problems)


def _check_pool(project: Project, problems: Problems) -> LabeledSet | None:
    """Refuse a pool or a test set that no first cycle could use; return the test set."""
    pool, labels = project.open_pool(problems), project.path(project.labels)
    if next(iter(pool.ids()), None) is None:
        raise PoolError(f"{pool.uri}: has no image to label")
    if (test := project.open_test(problems)) is None and project.monitor:
        problems.note(project.holdout_note())
    what = "holds no label yet" if labels.exists() else "does not exist yet"
    problems.note(f"{os.path.normpath(labels)}: {what}; add what you label to it")
    return test


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
