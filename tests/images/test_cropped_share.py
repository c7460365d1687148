from __future__ import annotations

import numpy as np
import pytest

from lloss.images.cropped_share import CroppedShare
from lloss.images.decode import ImageSpec


def test_a_wide_image_loses_its_outer_thirds_and_what_is_on_them() -> None:
    cut = CroppedShare(ImageSpec(64, 64, "crop"), "objects")
    cut.add((64, 192), np.array([[32, 32], [96, 32], [160, 32]]))
    assert cut.line("held-out", "counts as missed") == (
        "fit crop cuts off 67% of the pixels and 2 of 3 objects of the 1 held-out images; what is "
        "cut off counts as missed (--fit pad or stretch keeps all of an image)"
    )
    assert cut.as_dict() == {"fit": "crop", "pixels": 0.6667, "objects": {"cut": 2, "of": 3}}


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_other_fits_cut_nothing_off(fit: str) -> None:
    cut = CroppedShare(ImageSpec(64, 48, fit), "objects")  # type: ignore[arg-type]
    for size in ((64, 192), (333, 17), (1, 90), (48, 64), (999, 1000)):
        cut.add(size, np.array([[0.5, 0.5], [size[1] - 0.5, size[0] - 0.5]]))
    assert cut.line("labeled", "is not learned") == ""
    assert cut.as_dict() == {}


def test_a_row_that_rounding_cuts_is_not_worth_a_line() -> None:
    cut = CroppedShare(ImageSpec(32, 32, "crop"))
    cut.add((1000, 1001))
    assert cut.line("labeled", "is not learned") == ""
    cut.add((1000, 1500))
    assert "fit crop cuts off 20% of the pixels of the 2 labeled images" in cut.line("labeled", "x")


def test_joints_outside_of_a_square_are_reported_without_a_fit() -> None:
    cut = CroppedShare(ImageSpec(64, 64, "pad"), "joints")
    cut.add((100, 100), np.array([[-3.0, 50], [50, 50]]))
    assert cut.line("held-out", "counts as missed") == (
        "1 of 2 joints are outside of what the network sees of the 1 held-out images; "
        "that counts as missed"
    )


def test_nothing_counted_is_nothing_to_say() -> None:
    assert CroppedShare(ImageSpec(8, 8)).line("labeled", "x") == ""
    assert CroppedShare(ImageSpec(8, 8)).as_dict() == {}
