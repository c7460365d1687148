"""Predictions of tasks, from the scores of their pool."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.labelstudio.labeling_config import read_config
from lloss.serve.daemon.labelstudio.score_lookup import ImageScore, pool_scores
from lloss.serve.daemon.labelstudio.studio_annotation import pool_image

Prediction = dict[str, Any] | list[dict[str, Any]]
"""An empty list leaves the task without one; a prediction without a score would come first."""


def predictions(daemon: Daemon, fields: Mapping[str, Any]) -> list[Prediction]:
    """Answer the body of ``/predict``: a prediction for each of its ``tasks``, in their order.

    When an annotator waits for a task (``params.context``), its prediction is never left out.

    Raises:
        ScoresError: a pool's scores are damaged.
    """
    tasks, parameters = fields["tasks"], fields.get("params")
    controls = read_config(fields.get("label_config"))
    interactive = bool(isinstance(parameters, dict) and parameters.get("context"))
    scores = _scores(daemon, tasks)

    def answer(row: int) -> Prediction:
        score = scores.get(row)
        if score is None:
            return {"result": [], "model_version": ""} if interactive else []
        if not interactive and score.version in _versions(tasks[row]):
            return []  # Label Studio would keep both
        results = (control.result(score.guess) for control in controls)
        return score.prediction(next(filter(None, results), []))

    return [answer(row) for row in range(len(tasks))]


def _versions(task: Any) -> list[object]:
    existing = task.get("predictions")
    listed = existing if isinstance(existing, list) else []
    return [one.get("model_version") for one in listed if isinstance(one, dict)]


def _scores(daemon: Daemon, tasks: Sequence[Any]) -> dict[int, ImageScore]:
    """The scores of tasks that lloss created, by their place in the request."""
    rows: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, task in enumerate(tasks):
        if image := pool_image(task):
            rows[image[0]][image[1]].append(row)
    return {
        row: score
        for pool, ids in rows.items()
        for id, score in pool_scores(daemon, pool, list(ids)).items()
        for row in ids[id]
    }
