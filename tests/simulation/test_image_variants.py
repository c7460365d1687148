from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.images.decode import ImageSpec, decode, size_of
from lloss.pools import Item
from lloss.simulation.image_variants import JUNK, ORIGINAL, content_digest, variant_of

# A smooth picture: compression and brightness change it little, a shift much.
ROWS, COLUMNS = np.mgrid[:24, :36]
PIXELS = np.stack([ROWS * 8, COLUMNS * 6, 0 * ROWS + 90], 2).astype(np.uint8)


def _item(pixels: Any = PIXELS) -> Item:
    return Item("a", lambda: pixels)


def _decoded(item: Item) -> np.ndarray[Any, Any]:
    raw = item.read()
    return decode(raw, ImageSpec(*size_of(raw), "stretch")).astype(float)


def test_an_image_itself_is_the_item() -> None:
    item = _item()
    assert variant_of(item, ORIGINAL, True) is item


@pytest.mark.parametrize("variant", [1, 2, 3, JUNK])
def test_variants_are_the_same_each_time_and_as_large(variant: int) -> None:
    one, two = (variant_of(_item(), variant, True) for _ in range(2))
    assert content_digest(one.read()) == content_digest(two.read())
    assert _decoded(one).shape == PIXELS.shape
    assert one.id != "a"


def test_jitters_differ_from_each_other_and_resemble_the_image() -> None:
    jitters = [_decoded(variant_of(_item(), number, False)) for number in range(1, 9)]
    assert len({jitter.tobytes() for jitter in jitters}) == 8
    for jitter in jitters:  # up to 20 % brighter or darker, at the same place
        factor = (jitter * PIXELS).sum() / (PIXELS.astype(float) ** 2).sum()
        assert 0.78 < factor < 1.22
        assert np.abs(jitter - np.clip(PIXELS * factor, 0, 255)).mean() < 8


def test_shifts_stay_within_an_eighth_of_the_side() -> None:
    # Red rises by 8 a row, so the difference of neighbours is unchanged and the level says how far.
    shifts = []
    for number in range(1, 30):
        jitter = _decoded(variant_of(_item(), number, True))
        slope = (jitter[12, 10, 0] - jitter[8, 10, 0]) / 4 / 8  # the brightness
        shifts.append(jitter[10, 10, 0] / slope / 8 - 10)
    assert max(map(abs, shifts)) < 5 and max(shifts) - min(shifts) > 2


def test_junk_hardly_resembles_the_image() -> None:
    random = np.random.default_rng(0)
    for seed in range(6):
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        junk = _decoded(variant_of(_item(pixels), JUNK, True))
        assert abs(np.corrcoef(junk.ravel(), pixels.ravel())[0, 1]) < 0.4, seed


def test_other_contents_have_other_digests() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    digests = {content_digest(file.getvalue()), content_digest(PIXELS)}
    digests |= {content_digest(PIXELS.reshape(36, 24, 3)), content_digest(PIXELS + 1)}
    assert len(digests) == 4
    assert content_digest(PIXELS[:, ::-1][:, ::-1]) == content_digest(PIXELS)
