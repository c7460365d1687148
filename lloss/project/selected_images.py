"""The selected images as the report shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lloss.errors import ImageError
from lloss.images.decode import ImageSpec, Pixels, decode, size_of
from lloss.images.drawing import Drawing
from lloss.images.thumbnail import SIDE, thumbnail
from lloss.manifest import Manifest
from lloss.pools import Item, Pool
from lloss.project.report import Pick
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection import Selection
from lloss.training.checkpoint import Checkpoint
from lloss.training.trainer import predict

THUMBNAILS = 60
"""Picks with a thumbnail: enough to see what they are, few enough to open the page at once."""


@dataclass(frozen=True)
class _Picture:
    """An image no larger than its thumbnail needs."""

    pixels: Pixels  # uint8 [h, w, 3]
    size: tuple[int, int]  # height and width of the original
    input: Pixels | None  # as the network sees it, if its output is to be drawn

    def thumbnail(self, drawing: Drawing | None, spec: ImageSpec) -> bytes:
        """Encode it, with the drawing at its place in the original."""
        return thumbnail(self.pixels, drawing.on_image(self.size, spec) if drawing else None)


def describe_picks(
    selection: Selection,
    scores: ScoresFolder,
    pool: Pool,
    manifest: Manifest,
    checkpoint: Checkpoint,
) -> list[Pick]:
    """Return the picks with the model's guess, and thumbnails of the first ones."""
    guesses = _scored_guesses(selection, scores, manifest)
    pictures = {
        item.id: picture
        for item in pool.find(selection.ids[:THUMBNAILS])
        if (picture := _read(item, manifest.image, with_input=not guesses))
    }
    drawings: dict[str, Drawing] = {}
    if pictures and not guesses:  # run the network only if the scores contain no guess
        drawings = _drawings(pictures, checkpoint)
        guesses = {id: (drawing.guess, drawing.confidence) for id, drawing in drawings.items()}
    return [
        Pick(
            id,
            rank,
            score,
            *guesses.get(id, ("", math.nan)),
            thumbnail=pictures[id].thumbnail(drawings.get(id), manifest.image)
            if id in pictures
            else None,
            drawn=bool(id in drawings and drawings[id].shapes),
        )
        for rank, (id, score) in enumerate(zip(selection.ids, selection.scores.tolist()), 1)
    ]


def _scored_guesses(
    selection: Selection, scores: ScoresFolder, manifest: Manifest
) -> dict[str, tuple[str, float]]:
    if not {"prediction", "confidence"} <= set(manifest.outputs):
        return {}
    ids = pa.array(selection.ids, pa.string())
    return {
        row["id"]: (manifest.classes[int(row["prediction"])], row["confidence"])
        for batch in scores.scan(["id", "prediction", "confidence"])
        for row in batch.filter(pc.is_in(batch["id"], value_set=ids)).to_pylist()
    }


def _read(item: Item, spec: ImageSpec, with_input: bool) -> _Picture | None:
    try:
        raw = item.read()
        height, width = size_of(raw)
        scale = min(1.0, 2 * SIDE / max(height, width))
        sides = {"height": max(1, round(height * scale)), "width": max(1, round(width * scale))}
        pixels = decode(raw, replace(spec, **sides, fit="stretch"))
        return _Picture(pixels, (height, width), decode(raw, spec) if with_input else None)
    except ImageError:
        return None


def _drawings(pictures: Mapping[str, _Picture], checkpoint: Checkpoint) -> dict[str, Drawing]:
    """Draw what the network finds, if its task draws; the exported graph leaves that out."""
    network = checkpoint.network()
    inputs = np.stack([p.input for p in pictures.values() if p.input is not None])
    drawings: list[Drawing] = []
    for _, forward in predict(network, checkpoint.settings, inputs):
        drawings += network.objective.draw(forward.output) or []
    return dict(zip(pictures, drawings))
