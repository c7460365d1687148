from __future__ import annotations

import numpy as np
import pytest

from lloss.images.crop_box import CropBox

PIXELS = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3) + 1


def test_a_region_inside_is_those_pixels() -> None:
    assert np.array_equal(CropBox(2, 1, 4).cut(PIXELS), PIXELS[1:5, 2:6])


@pytest.mark.parametrize("region", [CropBox(-2, -1, 4), CropBox(5, 3, 6), CropBox(-3, -3, 20)])
def test_what_is_outside_is_black(region: CropBox) -> None:
    cut = region.cut(PIXELS)
    assert cut.shape == (region.side, region.side, 3)
    for row in range(region.side):
        for column in range(region.side):
            y, x = row + region.top, column + region.left
            inside = 0 <= y < 6 and 0 <= x < 8
            assert np.array_equal(cut[row, column], PIXELS[y, x] if inside else [0, 0, 0])


@pytest.mark.parametrize("region", [CropBox(8, 0, 3), CropBox(-3, 0, 3), CropBox(0, 100, 5)])
def test_a_region_beside_the_image_is_all_black(region: CropBox) -> None:
    assert not region.cut(PIXELS).any()


def test_a_region_grows_around_its_centre() -> None:
    assert CropBox(10, 20, 8).grown(2) == CropBox(6, 16, 16)
    assert CropBox.around(50, 40, 20.4) == CropBox(40, 30, 20)
    assert CropBox.around(5, 5, 0.1).side == 1
