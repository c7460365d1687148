"""The selected images as a report shows them."""

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
    guesses = _guesses(selection, scores, manifest)
    shown = [_picture(item, manifest, not guesses) for item in pool.find(selection.ids[:SHOWN])]
    readable = {picture.id: picture for picture in shown if picture is not None}
    # Where the scores hold a guess the network need not run again.
    drawings = _drawings(readable, checkpoint) if readable and not guesses else {}
    guesses |= {id: (drawn.guess, drawn.confidence) for id, drawn in drawings.items()}
    pictures = {id: picture.thumbnail(drawings.get(id)) for id, picture in readable.items()}
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


@dataclass(frozen=True)
class _Picture:
    """An image in its own shape, no larger than a thumbnail needs it.

    Attributes:
        id: of the image.
        pixels: uint8 [h, w, 3].
        size: height and width of the image.
        spec: of the network's input.
        input: the image as the network sees it, if that was asked for.
    """

    id: str
    pixels: Pixels
    size: tuple[int, int]
    spec: ImageSpec
    input: Pixels | None

    def thumbnail(self, drawing: Drawing | None) -> bytes:
        """Encoded, with what was found on the image in its place."""
        drawn = drawing.on_image(self.size, self.spec) if drawing else None
        return thumbnail(self.pixels, drawn)


def _picture(item: Item, manifest: Manifest, drawn: bool) -> _Picture | None:
    spec = manifest.image
    try:
        raw = item.read()
        height, width = size_of(raw)
        scale = min(1.0, 2 * SIDE / max(height, width))
        sides = {"height": max(1, round(height * scale)), "width": max(1, round(width * scale))}
        pixels = decode(raw, replace(spec, **sides, fit="stretch"))
        input = decode(raw, spec) if drawn else None
    except ImageError:
        return None
    return _Picture(item.id, pixels, (height, width), spec, input)


def _drawings(pictures: Mapping[str, _Picture], checkpoint: Checkpoint) -> dict[str, Drawing]:
    """What the network finds on these images, where its task draws that.

    The artifact does not say: it leaves out what the predicted loss does not need.
    """
    network, settings = checkpoint.network(), checkpoint.settings
    found: list[Drawing] = []
    inputs = np.stack([p.input for p in pictures.values() if p.input is not None])
    for _, forward in predict(network, settings, inputs):
        found += network.objective.draw(forward.output) or []
    return dict(zip(pictures, found))
