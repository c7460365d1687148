"""A new project's ``lloss.toml``, checked before it counts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.errors import LabelError, ProjectError
from lloss.files import write_text
from lloss.pools import Pool
from lloss.pools.uri import to_folder
from lloss.project.project import FILE, HOLDOUT, Project, is_named_set, load_project


def create_project(
    root: Path,
    values: Mapping[str, Any],
    train: Mapping[str, Any],
    problems: Problems | None = None,
) -> Project:
    """Write ``lloss.toml`` and check every value in it, and the labels against the pool.

    A failure leaves the folder as it was.

    Args:
        root: the project's folder; made when it is not there.
        values: keys of :class:`Project`; paths are relative to the working directory.
        train: ``preset`` and the training settings that differ from it.
        problems: broken annotations go there, and what the user should know of pool, labels, test
            set and folder.

    Raises:
        ProjectError: there is a project already.
        LlossError: a value cannot be used.
    """
    if (root / FILE).exists():
        raise ProjectError(f"{root / FILE}: is there already; edit it, or choose another folder")
    problems = problems or Problems(bool(values.get("skip_bad")))
    written = dict(values)
    for name in ("pool", "labels", "test", "test_labels"):
        value = written.get(name)
        if value and (
            Path(value).exists() or (name in ("pool", "test") and not is_named_set(value))
        ):
            written[name] = to_folder(root, value)
    with _restored(root):
        _note_earlier(root, problems)
        write_text(root / FILE, _toml(written, train))
        project = load_project(root)
        task = project.task
        task.check_empty(project.empty)
        labeled = project.open_labels(problems=problems)
        pool = project.open_pool()
        problems.note(pool.remark())
        training, test = project.split(labeled, problems)
        tested = project.tested(pool, test, problems)
        _note_left(project, pool, len(tested | {item.id for item in labeled.items}), problems)
        for labels in (labeled.labels, training.labels):  # some of them may be in the test set
            task.check(labels, task.classes(labels))
        if len(training) < project.train.batch_size:
            raise LabelError(
                f"{labeled.origin}: {len(training)} images to train on are fewer than a batch of "
                f"{project.train.batch_size}: label more, or pass --batch-size {len(training)}"
            )
        project.note_classes(labeled, problems)
    return project


@contextlib.contextmanager
def _restored(root: Path) -> Iterator[None]:
    """When the block fails, remove what a project's creation writes, and nothing else."""
    new = [root / name for name in (FILE, HOLDOUT) if not (root / name).exists()]
    folders = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # such as a folder that something else came into
            for path in new:
                path.unlink(missing_ok=True)
            for folder in folders:
                folder.rmdir()
        raise


def _note_left(project: Project, pool: Pool, taken: int, problems: Problems) -> None:
    """Tell of a K that is more than what is left to select, before a network is trained for it."""
    if pool.streamed:  # to count it is to read it
        return
    left = pool.count() - taken
    if left < project.k:
        problems.note(
            f"k = {project.k}, but {left} images of {pool.uri} are neither labeled nor for "
            "measuring; lower k, or give lloss next --at-most"
        )


def _note_earlier(root: Path, problems: Problems) -> None:
    """Tell of what an earlier project left, which counts for this one."""
    if (root / HOLDOUT).exists():
        problems.note(f"{root / HOLDOUT}: is there already; its images are held out")
    cycles = sorted(path.parent.name for path in (root / "cycles").glob("*/summary.json"))
    if cycles:
        problems.note(
            f"{root / 'cycles'}: {len(cycles)} cycles are there already; lloss next goes on after "
            f"{cycles[-1]}"
        )


_NOTES = {
    "pool": "images: a folder, array, list, tar shards, Parquet, or a URL such as s3://",
    "labels": "add what you label",
    "k": "images to select each cycle",
    "strategy": "diverse: spread over the best 4k; top: the k highest predicted losses",
    "subset": "choose from a random sub-pool alone: a number of images, or a share; 0: all",
    "seed": "of sub-pool and hold-out",
    "holdout": "share of the first labels kept for measuring, when there is no test",
    "test": "labeled images to measure on",
    "test_labels": "their labels, or those of test images in the pool",
    "warm_start": "start each cycle from the weights before it; by default from scratch",
    "empty": "labels that show nothing: background, or unlabeled yet",
    "skip_bad": "leave broken annotations out instead of stopping",
}


def _toml(values: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    lines = [f"{k} = {_value(v)}  # {_NOTES[k]}" for k, v in values.items()]
    lines += ["", "[train]  # lloss train --help tells all settings"]
    lines += [f"{k} = {_value(v)}" for k, v in train.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    # json's strings, numbers, booleans and lists are TOML's too, but for this one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
