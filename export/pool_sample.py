"""Images of a pool on which an export calibrates, chooses and measures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lloss.export.fidelity import predict
from numpy.typing import NDArray
from tqdm import tqdm

from lloss.data.decode_ahead import decoded
from lloss.errors import ImageError, PoolError, SettingsError
from lloss.images.decode import ImageSpec, Pixels
from lloss.pools import Item, Pool
from lloss.selection.hashing import draw_ids
from lloss.statistics.loss_distribution import LossReference

MIN_HELD_OUT = 200
"""Below it the top tenth is under 20 images, and one image moves its overlap by over 5 %."""

BATCH = 32

REFERENCE_IMAGES = 1000
"""With this number, and half as many live images, chance alone takes the population stability
index beyond .1 in less than one window of a thousand (``benchmarks/drift_thresholds.py``)."""


@dataclass(frozen=True)
class PoolSample:
    """Parts of a pool without a common image: to judge once, to choose recipes, to calibrate."""

    uri: str
    held_out: Sequence[Item]
    tuning: Sequence[Item] = ()
    calibration: Sequence[Item] = ()


def draw_sample(pool: Pool, held_out: int, calibration: int) -> PoolSample:
    """Draw images by a hash of their ids, whatever their order.

    With images to calibrate on, there are as many tuning as held-out images. A pool too small for
    all is divided in proportion to the numbers asked for, but neither of these two parts gets
    fewer than 200 images; the calibration gets the rest.
    """
    if held_out < MIN_HELD_OUT:
        raise SettingsError(
            f"--held-out {held_out}: fewer than {MIN_HELD_OUT} images say nothing about the top "
            "tenth; give more"
        )
    judged = 2 if calibration else 1
    asked = judged * held_out + calibration
    ids = draw_ids((item.id for item in pool), asked, 0)
    size = max(MIN_HELD_OUT, held_out * min(len(ids), asked) // asked)
    if len(ids) < judged * size + min(calibration, 1):
        others = f", {MIN_HELD_OUT} others to tune on, and more to calibrate on"
        raise PoolError(
            f"{pool.uri}: has {len(ids)} images, too few: at least {MIN_HELD_OUT} are needed to "
            f"judge the precision on{others if calibration else ''}; give a larger pool to "
            "--calibrate, or export fp32"
        )
    items = pool.find(ids)
    tuned = judged * size
    return PoolSample(pool.uri, items[:size], items[size:tuned], items[tuned : tuned + calibration])


def batches(
    items: Sequence[Item], spec: ImageSpec, what: str, size: int = BATCH
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Decode in bounded memory: ids of up to ``size`` images, and uint8 [B, H, W, 3].

    Images that cannot be decoded are left out; a scorer skips them too.
    """
    ids: list[str] = []
    pixels: list[Pixels] = []
    for id, image in tqdm(decoded(items, spec), what, len(items), disable=None, leave=False):
        if isinstance(image, ImageError):
            continue
        ids.append(id)
        pixels.append(image)
        if len(ids) == size:
            yield ids, np.stack(pixels)
            ids, pixels = [], []
    if ids:
        yield ids, np.stack(pixels)


@dataclass(frozen=True, kw_only=True)
class ReferenceSample:
    """Images whose predicted losses an exported model's live traffic is compared with.

    Best without images of training, whose losses are lower.
    """

    pool: Pool
    required: bool = True  # else a pool with too few images gives no reference, and no error

    def measure(self, path: Path, spec: ImageSpec) -> LossReference | None:
        """Score images, drawn by a hash of their ids, with an exported graph on the CPU."""
        items = self.pool.find(draw_ids(self.pool.ids(), REFERENCE_IMAGES, 0))
        predicted = predict(path, batches(items, spec, "score the reference"))
        try:
            return LossReference.of(predicted.loss, self.pool.uri)
        except PoolError:
            if self.required:
                raise
            return None
