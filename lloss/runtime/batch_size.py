"""Number of images in one run: by the size of the images, the provider and free memory."""

from __future__ import annotations

from lloss.images.decode import ImageSpec

DEVICE_BATCH = 256
"""Images a run on a GPU at most, where the user sets no number."""

_DEVICE_PIXELS = DEVICE_BATCH * 224 * 224
_DEVICE_BYTES = 2048
"""GPU memory for a pixel of the input: some feature maps of 64 channels in fp32, and cuDNN's
workspace. A rough guess; a run that does not fit is halved."""

_HOST_PIXELS = 16 * 32 * 32
_HOST_BATCHES = (4, 64)


def host_batch(image: ImageSpec) -> int:
    """Images a run on the CPU: as many as keep a layer's maps in the core's own cache."""
    least, most = _HOST_BATCHES
    return max(least, min(most, _power_below(_HOST_PIXELS // _pixels(image))))


def device_batch(image: ImageSpec) -> int:
    """Images a batch on a GPU: by the size of the images alone, so that a run can be resumed."""
    return min(DEVICE_BATCH, _power_below(_DEVICE_PIXELS // _pixels(image)))


def batch_in_memory(image: ImageSpec, batch_size: int, free: int) -> int:
    """Images of a batch that half of the GPU's ``free`` bytes hold at a time; at least one."""
    count = _power_below(free // 2 // (_pixels(image) * _DEVICE_BYTES))
    return batch_size if count >= batch_size else count


def captured_sizes(most: int) -> tuple[int, ...]:
    """The batch sizes that CUDA runs, ascending: powers of two and the largest.

    A count between two is padded to the larger, which at most doubles the work: cuDNN plans few
    shapes, and few CUDA graphs are captured.
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
