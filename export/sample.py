"""Images of a pool for calibrating a graph of reduced precision, and others for judging it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lloss.decoding import decoded
from lloss.errors import ImageError, PoolError, SettingsError
from lloss.images import ImageSpec, Pixels
from lloss.pools import Item, Pool
from lloss.sampling import draw_ids

MIN_HELD_OUT = 200
"""Below it the top tenth is under 20 images, and one image moves its overlap by over 5 %."""

SPARE = 4
"""A calibration that fell short may be tried again on so many times its images."""

BATCH = 32


@dataclass(frozen=True)
class PoolSample:
    """Three parts of a pool without a common image.

    Attributes:
        uri: of the pool.
        held_out: to compare on.
        calibration: to calibrate on.
        spare: to calibrate on as well when that is not enough.
    """

    uri: str
    held_out: Sequence[Item]
    calibration: Sequence[Item]
    spare: Sequence[Item]


def draw_sample(pool: Pool, held_out: int, calibration: int, seed: int = 0) -> PoolSample:
    """Draw images by a hash of their ids and the seed; the draw does not hang on their order.

    Of a pool too small for both, the calibration gets at most half.

    Args:
        pool: any.
        held_out: images to compare on, at least 200.
        calibration: images to calibrate on; 0 for none.
        seed: of the draw.

    Raises:
        SettingsError: fewer than 200 held-out images are asked for.
        PoolError: the pool has fewer.
    """
    if held_out < MIN_HELD_OUT:
        raise SettingsError(
            f"--held-out {held_out}: fewer than {MIN_HELD_OUT} images tell nothing of the top "
            "tenth; give more"
        )
    if calibration < 0:
        raise SettingsError(f"--calibration-images {calibration}: give a positive number")
    ids = draw_ids((item.id for item in pool), held_out + SPARE * calibration, seed)
    items = pool.find(ids)
    held = min(held_out, len(items) - min(calibration, len(items) // 2))
    if held < MIN_HELD_OUT:
        _refuse(pool.uri, len(items), held, calibration)
    last = held + calibration
    return PoolSample(pool.uri, items[:held], items[held:last], items[last:])


def _refuse(uri: str, found: int, held: int, calibration: int) -> None:
    calibrating = f" and {found - held} to calibrate on" if calibration else ""
    raise PoolError(
        f"{uri}: its {found} images leave {held} to judge the precision by{calibrating}; at least "
        f"{MIN_HELD_OUT} are needed: give a larger pool to --calibrate, or export fp32"
    )


def batches(
    items: Sequence[Item], spec: ImageSpec, what: str, size: int = BATCH
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Decode in bounded memory: ids of up to ``size`` images, and they, uint8 [B, H, W, 3].

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
