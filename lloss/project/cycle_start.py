"""What a cycle keeps from its start to its end: its settings and labels, ``cycle.json``.

Both may change while it runs; the changed ones apply from the next cycle on.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, ProjectError
from lloss.files import write_json
from lloss.project.changes import content_hashes, note_changes, note_unlabeled
from lloss.project.picks_file import read_picks
from lloss.project.project import Project
from lloss.tasks.train_settings import TrainSettings

START = "cycle.json"

FIXED_SETTINGS = (
    "pool", "holdout", "test", "test_labels", "warm_start", "skip_bad", "empty", "precision",
)  # fmt: skip
"""What is fixed besides the training settings."""


@dataclass(frozen=True)
class CycleStart:
    """The content of ``cycle.json``."""

    project: Project  # with the settings that the cycle started with
    left_out: int  # broken annotations and labeled images that were not used
    notes: list[str]  # for the user
    scores_labeled: bool  # whether labeled images are scored too; not in earlier versions


def write_start(folder: Path, project: Project, labeled: LabeledSet, problems: Problems) -> None:
    """Write the cycle's settings, and a copy of its labels."""
    ordered = labeled.ordered()
    labels = {item.id: label for item, label in zip(ordered.items, ordered.labels)}
    project.task.write_labels(labels, folder / project.task.labels_file)
    content: dict[str, Any] = {
        "train": project.train.as_dict(),
        "project": {name: getattr(project, name) for name in FIXED_SETTINGS},
        "scores_labeled": True,
        "left_out": len(problems.broken),
        "notes": problems.lines(),
        "images": content_hashes(labeled),
    }
    write_json(folder / START, content)


def read_start(folder: Path, project: Project) -> CycleStart:
    """Read what the cycle started with; ``project`` has the settings of now."""
    path = folder / START
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        settings = TrainSettings.from_dict(content["train"], str(path))
        then = replace(project, train=settings, **content["project"])
        return CycleStart(
            project=then,
            left_out=int(content.get("left_out", 0)),
            notes=list(content.get("notes", [])),
            scores_labeled=bool(content.get("scores_labeled", False)),
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ProjectError(f"{path}: is damaged; remove the cycle to run it again") from error


def note_changes_since(
    last: Path, project: Project, labeled: LabeledSet, problems: Problems
) -> None:
    """Note what changed in the labels since the start of the cycle ``last``."""
    try:
        content = json.loads((last / START).read_text(encoding="utf-8"))
        images = dict(content.get("images", {}))
        before = project.task.read_labels(last / project.task.labels_file, Problems(skip=True))
    except (OSError, ValueError, TypeError, AttributeError, LabelError):
        files = f"{START} or {project.task.labels_file}"  # does not stop a new cycle
        problems.note(
            f"{last}: {files} is damaged or missing: changes of labels since then are not noticed"
        )
        return
    note_changes(before, images, labeled, last.name, problems)


def note_picks_without_label(last: Path, labeled: LabeledSet, problems: Problems) -> None:
    """Note which picks of the cycle ``last``, where it has any, have no label yet."""
    with contextlib.suppress(ProjectError):  # the loss of its picks is not measured, which says why
        picks = read_picks(last)
        note_unlabeled([*picks.chosen, *picks.random], labeled, last.name, problems)
