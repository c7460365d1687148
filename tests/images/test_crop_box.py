from __future__ import annotations

import numpy as np
import pytest

from lloss.images.crop_box import CropBox

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3) + 1


@pytest.mark.parametrize(
    "region",
    [CropBox(2, 1, 4), CropBox(-2, -1, 4), CropBox(5, 3, 6), CropBox(-3, -3, 20), CropBox(8, 0, 3)],
)
def test_a_region_is_its_pixels_and_black_outside(region: CropBox) -> None:
    cut = region.cut(PIXELS)
    assert cut.shape == (region.side, region.side, 3)
    for row in range(region.side):
        for column in range(region.side):
            y, x = row + region.top, column + region.left
            inside = 0 <= y < 6 and 0 <= x < 8
            assert np.array_equal(cut[row, column], PIXELS[y, x] if inside else [0, 0, 0])


def test_a_region_grows_around_its_centre() -> None:
    assert CropBox(10, 20, 8).grown(2) == CropBox(6, 16, 16)
    assert CropBox.around(50, 40, 20.4) == CropBox(40, 30, 20)
    assert CropBox.around(5, 5, 0.1).side == 1
