"""Number of images in one run."""

from __future__ import annotations

import pytest

from lloss.images.decode import ImageSpec
from lloss.runtime.batch_size import device_batch, halved, host_batch, padded_sizes


@pytest.mark.parametrize(
    ("most", "sizes"),
    [
        (256, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
        (100, (1, 2, 4, 8, 16, 32, 64, 100)),
        (5, (1, 2, 4, 5)),
        (1, (1,)),
    ],
)
def test_padded_sizes_are_powers_of_two_and_the_most(most: int, sizes: tuple[int, ...]) -> None:
    assert padded_sizes(most) == sizes
    for count in range(1, most + 1):
        assert min(size for size in sizes if size >= count) < 2 * count


def test_small_images_go_in_larger_batches() -> None:
    for batch in (host_batch, device_batch):
        sides = [batch(ImageSpec(side, side)) for side in (8, 32, 224, 448, 1024, 8192)]
        assert sides == sorted(sides, reverse=True) and sides[0] > sides[-1] >= 1, batch
    sides = [device_batch(ImageSpec(side, side)) for side in (32, 224, 448, 1024)]
    assert sides == [256, 256, 64, 8]


def test_halves_end_at_one_image() -> None:
    assert [halved(count) for count in (256, 255, 100, 5, 4, 3, 2)] == [128, 128, 64, 4, 2, 2, 1]
