"""The selected images as a report shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lloss.artifact import Manifest
from lloss.checkpoint import Checkpoint
from lloss.drawing import Drawing
from lloss.errors import ImageError
from lloss.images import Pixels, decode
from lloss.pools import Item, Pool
from lloss.report import Pick, thumbnail
from lloss.scores import ScoresFolder
from lloss.selection import Selection
from lloss.tasks import get_task
from lloss.training import predict

SHOWN = 200
"""Thumbnails in a report: enough to see what is going on, few enough to open at once."""


def picks_of(
    selection: Selection,
    scores: ScoresFolder,
    pool: Pool,
    manifest: Manifest,
    checkpoint: Checkpoint,
) -> list[Pick]:
    """The picks with the model's guess, and for the first of them what the model sees."""
    shown = pool.find(selection.ids[:SHOWN])
    pixels = {item.id: _pixels(item, manifest) for item in shown}
    guesses = _guesses(selection, scores, manifest)
    readable = {id: image for id, image in pixels.items() if image is not None}
    # Where the scores hold a guess the network need not run again.
    drawings = _drawings(readable, checkpoint) if readable and not guesses else {}
    guesses |= {id: (drawn.guess, drawn.confidence) for id, drawn in drawings.items()}
    pictures = {id: thumbnail(image, drawings.get(id)) for id, image in readable.items()}
    return [
        Pick(
            id,
            rank,
            score,
            *guesses.get(id, ("", math.nan)),
            pictures.get(id),
            bool(id in drawings and drawings[id].shapes),
        )
        for rank, (id, score) in enumerate(zip(selection.ids, selection.scores.tolist()), 1)
    ]


def _guesses(
    selection: Selection, scores: ScoresFolder, manifest: Manifest
) -> dict[str, tuple[str, float]]:
    if not {"prediction", "confidence"} <= set(manifest.outputs):
        return {}
    wanted = pa.array(selection.ids, pa.string())
    found: dict[str, tuple[str, float]] = {}
    for batch in scores.batches(["id", "prediction", "confidence"]):
        mine = batch.filter(pc.is_in(batch["id"], value_set=wanted))
        for row in mine.to_pylist():
            found[row["id"]] = (manifest.classes[int(row["prediction"])], row["confidence"])
    return found


def _pixels(item: Item, manifest: Manifest) -> Pixels | None:
    try:
        return decode(item.read(), manifest.image)
    except ImageError:
        return None


def _drawings(pixels: Mapping[str, Pixels], checkpoint: Checkpoint) -> dict[str, Drawing]:
    """What the network finds on these images, where its task draws that.

    The artifact does not say: it leaves out what the predicted loss does not need.
    """
    settings, classes = checkpoint.settings, checkpoint.classes
    task = get_task(settings.task)
    found: list[Drawing] = []
    for _, forward in predict(checkpoint.network(), settings, np.stack(list(pixels.values()))):
        found += task.draw(forward.output, classes, settings) or []
    return dict(zip(pixels, found))
