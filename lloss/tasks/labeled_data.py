"""Open labeled images by their task's name."""

from __future__ import annotations

from pathlib import Path

from lloss.annotations import Problems
from lloss.data.class_labels import DATA_ROOT
from lloss.data.labeled_set import LabeledSet
from lloss.tasks import get_task


def open_labeled(
    data: str | Path,
    labels: str | Path | None = None,
    *,
    task: str = "classification",
    problems: Problems | None = None,
) -> LabeledSet:
    """Open the labeled images of a task, as ``lloss train`` does.

    ``data`` carries its labels (class folders, for example), or is a pool that ``labels`` are of: a
    CSV, COCO, VOC and so on. Notes on labels that match nothing go to ``problems``. Raises
    ``LabelError`` for missing or broken labels, ``PoolError`` for missing images.
    """
    path = None if labels is None else Path(labels)
    return get_task(task).open(str(data), path, DATA_ROOT, problems or Problems())
