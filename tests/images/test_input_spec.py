"""The model's input and where images are in it."""

from __future__ import annotations

import numpy as np
import pytest

from lloss.errors import SettingsError
from lloss.images.decode import Fit, Frame, ImageSpec, decode


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        *(((*size,), "pixels") for size in [(0, 8), (8, 0), (8193, 8), (8, -1)]),
        ((8, 8, "squeeze"), r"squeeze.*crop, pad, stretch"),
        ((8, 8, "crop", -1), "white = -1"),
        ((8, 8, "pad", 0, 256), "fill = 256: give a grey from 0 to 255"),
        ((8, 8, "crop", 0, 0, 1.5), "share = 1.5 with fit 'crop': give above 0 to 1"),
        ((8, 8, "crop", 0, 0, 0.0), "share = 0.0"),
        ((8, 8, "pad", 0, 0, 0.9), "share = 0.9 with fit 'pad': .* below 1 with crop"),
        ((8, 8, "crop", 0, 0, 1.0, "lanczos"), "resample 'lanczos': choose one of bilinear, bic"),
    ],
)
def test_a_wrong_spec_is_refused(fields: tuple[int, ...], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        ImageSpec(*fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(64, 48), (31, 90), (32, 48), (200, 151), (10, 300)])
@pytest.mark.parametrize("share", [1.0, 0.8])
def test_a_frame_locates_a_dot_of_the_image_in_the_input(
    size: tuple[int, int], fit: Fit, share: float
) -> None:
    spec = ImageSpec(32, 48, fit, share=share if fit == "crop" else 1.0)
    frame = Frame.of(size, spec)
    assert frame.size == size
    for x, y in ((0.5, 0.5), (0.4, 0.6)):
        image = np.zeros((*size, 3), np.uint8)
        height, width = size
        x0, y0 = int(x * width), int(y * height)
        image[max(0, y0 - 4) : y0 + 5, max(0, x0 - 4) : x0 + 5] = 255
        shown = decode(image, spec)[..., 0].astype(float)
        if not shown.any():
            continue  # cut off
        rows, columns = np.mgrid[0.5:32, 0.5:48]
        inside = [
            np.clip(np.arange(at - 4, at + 6), 0, length)
            for at, length in ((x0, width), (y0, height))
        ]
        wanted = [
            (c.min() + c.max()) / 2 * scale + offset
            for c, scale, offset in zip(inside, frame.scale, frame.offset)
        ]
        reach = [np.ptp(c) / 2 * scale for c, scale in zip(inside, frame.scale)]
        if not all(r <= at <= side - r for r, at, side in zip(reach, wanted, (48, 32))):
            continue  # the dot itself is cut
        found = (columns * shown).sum() / shown.sum(), (rows * shown).sum() / shown.sum()
        assert np.abs(np.subtract(found, wanted)).max() < 0.35
