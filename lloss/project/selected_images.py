"""The selected images as the report shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lloss.annotations.prediction import Prediction, shapes_of
from lloss.errors import ImageError
from lloss.images.decode import ImageSpec, decode
from lloss.images.thumbnail import SIDE, Shape, thumbnail
from lloss.pools import Pool
from lloss.project.pick_predictions import PickModel, ScoredClasses
from lloss.project.picked_images import PickedImage, read_picked
from lloss.project.report import Pick
from lloss.selection import Selection

THUMBNAILS = 60
"""Picks with a thumbnail: enough to see what they are, few enough to open the page at once."""


def describe_picks(
    selection: Selection, pool: Pool, model: PickModel, spec: ImageSpec
) -> list[Pick]:
    """Return the picks with the model's guess, and thumbnails of the first ones.

    ``spec`` is of the model's input; its ``white`` is that of the thumbnails.
    """
    known = model.predictions.by_id if isinstance(model.predictions, ScoredClasses) else {}
    reasons = selection.reasons or [""] * len(selection)
    picks = {
        id: _described(Pick(id, rank, score, "", math.nan, None, reason), known.get(id))
        for rank, (id, score, reason) in enumerate(
            zip(selection.ids, selection.scores.tolist(), reasons), 1
        )
    }
    shown = pool.find(selection.ids[:THUMBNAILS])
    for picked in read_picked(shown, model.predictions):
        shapes = _shapes(picked, model.classes)
        image = _thumbnail(picked, spec, shapes)
        described = _described(picks[picked.item.id], picked.prediction)
        picks[picked.item.id] = replace(described, thumbnail=image, drawn=bool(image and shapes))
    return list(picks.values())


def _described(pick: Pick, found: Prediction | None) -> Pick:
    if found is None:
        return pick
    return replace(pick, guess=found.at_least().words, confidence=found.confidence)


def _shapes(picked: PickedImage, classes: Sequence[str]) -> Sequence[Shape] | None:
    """What to draw; None where a class says it all."""
    found = picked.prediction
    if found is None or isinstance(found.label, str):
        return None
    return shapes_of(found.at_least(), picked.size, classes)


def _thumbnail(
    picked: PickedImage, spec: ImageSpec, shapes: Sequence[Shape] | None
) -> bytes | None:
    """Encode the image from no more pixels than that needs."""
    height, width = picked.size
    scale = min(1.0, 2 * SIDE / max(height, width))
    sides = max(1, round(height * scale)), max(1, round(width * scale))
    try:
        whole = ImageSpec(*sides, "stretch", spec.white)
        return thumbnail(decode(picked.raw, whole), shapes)
    except ImageError:
        return None
