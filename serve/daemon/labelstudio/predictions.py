"""Predictions of tasks: from the scores of their pool, or of the image inside the task."""

from __future__ import annotations

import base64
import binascii
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.labelstudio.labeling_config import LabelingConfig, read_config
from lloss.serve.daemon.labelstudio.score_lookup import ImageScore, pool_scores, version_of
from lloss.serve.daemon.labelstudio.studio_annotation import pool_image
from starlette.concurrency import run_in_threadpool

from lloss.manifest import class_name

_BATCH = 64
"""Images of tasks that are scored together; a request may have more than the queue takes."""

Prediction = dict[str, Any] | list[dict[str, Any]]
"""An empty list leaves the task without one; a prediction without a score would come first."""


async def predictions(daemon: Daemon, fields: Mapping[str, Any]) -> list[Prediction]:
    """Answer the body of ``/predict``: a prediction for each of its ``tasks``, in their order.

    When an annotator waits for a task (``params.context``), its prediction is never left out.

    Raises:
        RequestError: 503 no model is loaded; 429 or 504 from scoring.
        ScoresError: a pool's scores are damaged.
        EngineError: an image could not be scored.
    """
    tasks, parameters = fields["tasks"], fields.get("params")
    config = read_config(fields.get("label_config"))
    interactive = bool(isinstance(parameters, dict) and parameters.get("context"))
    scores = await run_in_threadpool(_pool_scores, daemon, tasks)
    scores |= await _image_scores(daemon, await run_in_threadpool(_images, tasks, config))

    def answer(row: int) -> Prediction:
        score = scores.get(row)
        if score is None:
            return {"result": [], "model_version": ""} if interactive else []
        if not interactive and score.version in _versions(tasks[row]):
            return []  # Label Studio would keep both
        return score.prediction(config.result(score.guess))

    return await run_in_threadpool(lambda: [answer(row) for row in range(len(tasks))])


def _versions(task: Any) -> list[object]:
    predictions = task.get("predictions")
    listed = predictions if isinstance(predictions, list) else []
    return [one.get("model_version") for one in listed if isinstance(one, dict)]


def _pool_scores(daemon: Daemon, tasks: Sequence[Any]) -> dict[int, ImageScore]:
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


async def _image_scores(daemon: Daemon, images: Mapping[int, bytes]) -> dict[int, ImageScore]:
    rows, scores = list(images), {}
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        seconds = daemon.settings.limits.request_seconds
        scored = await daemon.models.score([images[row] for row in some], seconds)
        columns, manifest = scored.answer.columns, scored.manifest
        named = manifest.task == "classification" and "prediction" in columns
        for at, row in enumerate(some):
            loss = float(columns["loss"][at])
            if at not in scored.answer.errors and np.isfinite(loss):
                guess = class_name(manifest.classes, columns["prediction"][at]) if named else ""
                # In (0, 1), lower for a larger loss: there is no pool to rank the image in.
                score = 1 / (1 + math.exp(min(loss, 700.0)))
                scores[row] = ImageScore(loss, score, guess, version_of(scored.sha256))
    return scores


def _images(tasks: Sequence[Any], config: LabelingConfig) -> dict[int, bytes]:
    """The images inside tasks of no pool; nothing is fetched from anywhere."""
    images = {}
    for row, task in enumerate(tasks):
        data = task.get("data") if isinstance(task, dict) else None
        if isinstance(data, dict) and pool_image(task) is None:
            decoded = (_decoded(data.get(key)) for key in config.image_keys)
            if image := next(filter(None, decoded), None):
                images[row] = image
    return images


def _decoded(uri: object) -> bytes | None:
    """The bytes of a ``data:image/…;base64,…``."""
    if not isinstance(uri, str) or not uri.startswith("data:image/"):
        return None
    head, _, text = uri.partition(",")
    if not head.endswith(";base64"):
        return None
    try:
        return base64.b64decode(text, validate=True) or None
    except (binascii.Error, ValueError):
        return None
