"""Number of images in one run."""

from __future__ import annotations

from lloss.images.decode import ImageSpec

DEVICE_BATCH = 256
"""Images per run on a GPU at most, where the user sets no number."""

_DEVICE_PIXELS = DEVICE_BATCH * 224 * 224

_HOST_PIXELS = 16 * 32 * 32
_HOST_BATCHES = (4, 64)


def host_batch(image: ImageSpec) -> int:
    """Images per run on the CPU: as many as keep a layer's maps in the core's own cache."""
    least, most = _HOST_BATCHES
    return max(least, min(most, _power_below(_HOST_PIXELS // _pixels(image))))


def device_batch(image: ImageSpec) -> int:
    """Images per batch on a GPU: by the size of the images alone, so that a run can be resumed."""
    return min(DEVICE_BATCH, _power_below(_DEVICE_PIXELS // _pixels(image)))


def padded_sizes(most: int) -> tuple[int, ...]:
    """The batch sizes that a GPU runs, ascending: powers of two and the largest.

    A count between two is padded to the larger, which at most doubles the work: cuDNN plans few
    shapes.
    """
    return tuple(sorted({1 << power for power in range(most.bit_length())} | {most}))


def halved(count: int) -> int:
    """The next smaller number to try: the power of two below ``count``, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1


def _pixels(image: ImageSpec) -> int:
    return image.height * image.width


def _power_below(count: int) -> int:
    """The largest power of two that is not more than ``count``; at least 1."""
    return 1 << max(count, 1).bit_length() - 1
