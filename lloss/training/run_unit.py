"""The unit of a run's predicted losses: from what was measured on images it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from lloss.errors import CheckpointError
from lloss.statistics.loss_unit import LossUnit
from lloss.training.checkpoint import Checkpoint

EVALUATION = "evaluation.json"
"""File name of the figures in a run's folder, see :meth:`.Evaluation.as_dict`."""

MEASURE = "run lloss evaluate RUN DATA on images that it was not trained on, then export"
"""What to do about a run without a unit."""


def unit_of_run(checkpoint: Checkpoint) -> LossUnit:
    """Return the unit of ``evaluation.json`` beside the checkpoint's file, if it is of that file.

    Otherwise that of the training's own cross-validation; or one in no unit whose note says what is
    missing. Raises ``CheckpointError`` for a damaged ``evaluation.json``.
    """
    unit, why = None, "the losses of no unseen image were measured"
    path = checkpoint.path.parent / EVALUATION if checkpoint.path else None
    if path is not None and path.exists():
        figures = _read(path)
        if figures.get("checkpoint_sha256") == checkpoint.sha256:
            unit = _parsed(figures.get("unit"), path)
        else:
            why = f"{path} is of another training, or of an earlier version"
    if unit is not None and unit.name:
        return unit
    if checkpoint.unit is not None:
        return checkpoint.unit
    return unit or LossUnit(note=f"{why}; {MEASURE}")


def _read(path: Path) -> dict[str, Any]:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(figures, dict):
        raise _damaged(path)
    return figures


def _parsed(unit: Any, path: Path) -> LossUnit | None:
    try:
        return msgspec.convert(unit, LossUnit | None)
    except msgspec.ValidationError as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path}: is damaged; remove it, or run lloss evaluate again")
