"""Images of a pool to calibrate a graph of reduced precision on, to tune it on, to judge it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lloss.errors import ImageError, PoolError, SettingsError
from lloss.images.decode import ImageSpec, Pixels
from lloss.pools import Item, Pool
from lloss.pools.decode_ahead import decoded
from lloss.selection.hashing import draw_ids

MIN_HELD_OUT = 200
"""Below it the top tenth is under 20 images, and one image moves its overlap by over 5 %."""

SPARE = 2
"""A calibration that fell short may be tried again on so many times its images. On four times as
many a ResNet did no better, and a histogram of every map is what takes the time."""

BATCH = 32


@dataclass(frozen=True)
class PoolSample:
    """Parts of a pool without a common image.

    Attributes:
        uri: of the pool.
        held_out: to judge the finished graph on, once; nothing that is chosen may look at them.
        tuning: to choose between recipes on.
        calibration: to calibrate on.
        spare: to calibrate on as well when that is not enough.
    """

    uri: str
    held_out: Sequence[Item]
    tuning: Sequence[Item] = ()
    calibration: Sequence[Item] = ()
    spare: Sequence[Item] = ()


def draw_sample(pool: Pool, held_out: int, calibration: int, seed: int = 0) -> PoolSample:
    """Draw images by a hash of their ids and the seed; the draw does not hang on their order.

    Where there is a calibration there are as many tuning as held-out images. A pool too small
    for all is shared out in proportion to what was asked for, but neither of these two become
    fewer than 200; the calibration gets the rest.

    Args:
        pool: any.
        held_out: images to judge on, at least 200.
        calibration: images to calibrate on; 0 for none.
        seed: of the draw.

    Raises:
        SettingsError: fewer than 200 held-out images are asked for.
        PoolError: the pool has fewer, or leaves none to calibrate on.
    """
    if held_out < MIN_HELD_OUT:
        raise SettingsError(
            f"--held-out {held_out}: fewer than {MIN_HELD_OUT} images tell nothing of the top "
            "tenth; give more"
        )
    if calibration < 0:
        raise SettingsError(f"--calibration-images {calibration}: give a positive number")
    judgements = 2 if calibration else 1
    asked = judgements * held_out + calibration
    ids = draw_ids((item.id for item in pool), asked + (SPARE - 1) * calibration, seed)
    held = max(MIN_HELD_OUT, held_out * min(len(ids), asked) // asked)
    if len(ids) < judgements * held + min(calibration, 1):
        _refuse(pool.uri, len(ids), calibration)
    items = pool.find(ids)
    tuned = judgements * held
    last = tuned + calibration
    return PoolSample(pool.uri, items[:held], items[held:tuned], items[tuned:last], items[last:])


def _refuse(uri: str, found: int, calibration: int) -> None:
    others = f", {MIN_HELD_OUT} others to tune on, and more to calibrate on" if calibration else ""
    raise PoolError(
        f"{uri}: has {found} images, too few: at least {MIN_HELD_OUT} are needed to judge the "
        f"precision on{others}; give a larger pool to --calibrate, or export fp32"
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
