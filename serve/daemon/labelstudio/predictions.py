"""Predictions of tasks: from the scores of their pool, or of the image that they carry."""

from __future__ import annotations

import base64
import binascii
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.labelstudio.import_tasks import prediction
from lloss.serve.daemon.labelstudio.json_export import place_of
from lloss.serve.daemon.labelstudio.labeling_config import LabelConfig, read_config
from lloss.serve.daemon.labelstudio.score_lookup import Known, known, version_of
from starlette.concurrency import run_in_threadpool

from lloss.manifest import class_name

_TOGETHER = 64
"""Images of tasks that are scored at once; there may be more of them than the queue takes."""

Answer = dict[str, Any] | list[dict[str, Any]]
"""A prediction, or none: Label Studio takes a list of them, too, and an empty one leaves the task
without. A prediction without a score would be served first."""


@dataclass(frozen=True)
class Question:
    """A request for predictions.

    Attributes:
        tasks: as they came; what is no task gets no prediction.
        config: what is asked of images.
        interactive: whether an annotator waits for one task; then there is always an answer.
    """

    tasks: Sequence[Any]
    config: LabelConfig
    interactive: bool

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Question:
        """Out of the body of ``/predict``, whose ``tasks`` are a list."""
        parameters = fields.get("params")
        context = parameters.get("context") if isinstance(parameters, dict) else None
        return cls(fields["tasks"], read_config(fields.get("label_config")), bool(context))


async def answers(daemon: Daemon, question: Question) -> list[Answer]:
    """An answer for each task, in their order.

    Raises:
        RequestError: 503 no model is loaded; 429 or 504 from scoring.
        ScoresError: a pool's scores are damaged.
        EngineError: an image could not be scored.
    """
    scored = await run_in_threadpool(_looked_up, daemon, question.tasks)
    scored |= await _scored(daemon, question)
    return await run_in_threadpool(_answers, question, scored)


def _answers(question: Question, scored: Mapping[int, Known]) -> list[Answer]:
    return [_answer(question, task, scored.get(row)) for row, task in enumerate(question.tasks)]


def _answer(question: Question, task: Any, scored: Known | None) -> Answer:
    if scored is None:
        empty = {"result": [], "model_version": ""}
        return empty if question.interactive else []
    if not question.interactive and scored.version in _versions(task):
        return []  # it has this very prediction, and Label Studio would keep both
    return prediction(scored, question.config.chosen(scored.guess))


def _versions(task: Any) -> list[object]:
    before = task.get("predictions")
    listed = before if isinstance(before, list) else []
    return [one.get("model_version") for one in listed if isinstance(one, dict)]


def _looked_up(daemon: Daemon, tasks: Sequence[Any]) -> dict[int, Known]:
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, task in enumerate(tasks):
        place = place_of(task.get("data")) if isinstance(task, dict) else None
        if place:
            places[place[0]][place[1]].append(row)
    return {
        row: scored
        for pool, rows in places.items()
        for id, scored in known(daemon, pool, rows).items()
        for row in rows[id]
    }


async def _scored(daemon: Daemon, question: Question) -> dict[int, Known]:
    """Those of no pool that carry an image; none is fetched from anywhere."""
    images = await run_in_threadpool(_carried, question)
    rows, found = list(images), {}
    for start in range(0, len(rows), _TOGETHER):
        some = rows[start : start + _TOGETHER]
        seconds = daemon.settings.limits.request_seconds
        scored = await daemon.models.score([images[row] for row in some], seconds)
        columns, classes = scored.answer.columns, scored.manifest.classes
        named = scored.manifest.task == "classification" and "prediction" in columns
        for at, row in enumerate(some):
            loss = float(columns["loss"][at])
            if at not in scored.answer.errors and np.isfinite(loss):
                guess = class_name(classes, float(columns["prediction"][at])) if named else ""
                found[row] = Known(loss, _falling(loss), guess, version_of(scored.sha256))
    return found


def _carried(question: Question) -> dict[int, bytes]:
    keys = question.config.images
    found = {}
    for row, task in enumerate(question.tasks):
        data = task.get("data") if isinstance(task, dict) else None
        if isinstance(data, dict) and place_of(data) is None:
            images = (_image(data.get(key)) for key in keys)
            image = next(filter(None, images), None)
            if image:
                found[row] = image
    return found


def _image(uri: object) -> bytes | None:
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


def _falling(loss: float) -> float:
    """In (0, 1), the lower the larger the loss: there is no pool to rank the image in."""
    return 1 / (1 + math.exp(min(loss, 700.0)))
