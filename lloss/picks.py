"""The selected images as a report shows them."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from lloss.artifact import Manifest
from lloss.errors import ImageError
from lloss.images import decode
from lloss.pools import Item, Pool
from lloss.report import Pick, thumbnail
from lloss.scores import ScoresFolder
from lloss.selection import Selection

SHOWN = 200
"""Thumbnails in a report: enough to see what is going on, few enough to open at once."""


def picks_of(
    selection: Selection, scores: ScoresFolder, pool: Pool, manifest: Manifest
) -> list[Pick]:
    """The picks with the model's guess, and for the first of them what the model sees."""
    guesses = _guesses(selection, scores, manifest)
    shown = pool.find(selection.ids[:SHOWN])
    pictures = {item.id: _picture(item, manifest) for item in shown}
    return [
        Pick(id, rank, score, *guesses.get(id, ("", math.nan)), pictures.get(id))
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


def _picture(item: Item, manifest: Manifest) -> bytes | None:
    try:
        return thumbnail(decode(item.read(), manifest.image))
    except ImageError:
        return None
