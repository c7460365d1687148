"""Read an image file whole, and decide what a failed read means: one bad image, or a lost pool."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from lloss.errors import ImageError, LlossError, PoolError
from lloss.pools.confinement import OUTSIDE, Confinement

MAX_ENCODED = 1 << 30
"""Bytes of an encoded image; a larger one is refused before it is read."""

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Not blocking: nobody may ever write to a pipe by an image's name."""

_NAMES = "EIO ESTALE ENOTCONN ENODEV EMFILE ENFILE ETIMEDOUT EHOSTDOWN"
_OF_THE_POOL = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))
"""Failures of a disk, a network or this process: the next image would fail too."""

_RESUME = "repair it and run the same command again to continue"


class ImageRoot:
    """The folder that images are read below; it distinguishes a missing image from a missing pool.

    Its device is noted now: where a disk was taken away, the mount point is still there, and
    empty. (Network mounts change inode numbers.) ``within`` is what its files must be in.
    """

    def __init__(self, path: str | bytes | Path, within: Confinement | None = None) -> None:
        self.path, self.within, self._device = path, within, _device(path)

    @property
    def gone(self) -> bool:
        """Whether the folder disappeared, or is on another device now."""
        device = _device(self.path)
        return device is None or device != self._device


def _device(path: str | bytes | Path) -> int | None:
    try:
        return os.stat(path).st_dev  # noqa: PTH116  Path knows no bytes
    except (OSError, ValueError):
        return None


def check_encoded(size: int) -> None:
    """Raise ImageError for an encoded image of more than :data:`MAX_ENCODED` bytes."""
    if size > MAX_ENCODED:
        raise ImageError(f"has {size} bytes, over the limit of {MAX_ENCODED} for an encoded image")


def failing_read(error: ImageError) -> Callable[[], bytes]:
    """Make the ``read`` of an image that is known to be bad."""

    def read() -> bytes:
        raise error

    return read


def read_file(path: str | bytes | Path, root: ImageRoot | None = None) -> bytes:
    """Read a regular file, of the pool in ``root``.

    Raises:
        ImageError: it cannot be read, is too large, not a regular file, or outside of
            ``root.within``.
        PoolError: no other file could be read either.
    """
    try:
        file = os.open(path, _OPEN)
        try:
            within = None if root is None else root.within
            if within is not None and not within.holds_file(file, path):
                raise ImageError(OUTSIDE)
            return _read_regular(file)
        finally:
            os.close(file)
    except OSError as error:
        raise read_error(error, path, root) from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"cannot be read: {error}") from error


def _read_regular(file: int) -> bytes:
    status = os.fstat(file)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise ImageError("is not a regular file")
    check_encoded(status.st_size)
    data = os.read(file, status.st_size + 1)
    if len(data) == status.st_size:
        return data
    # It grows, or a read gives two gigabytes at most.
    parts, size = [data], len(data)
    while part := os.read(file, 1 << 20):
        parts.append(part)
        size += len(part)
        check_encoded(size)
    return b"".join(parts)


def read_error(
    error: OSError, path: str | bytes | Path, root: ImageRoot | None = None
) -> LlossError:
    """Make a :class:`PoolError` where no other image could be read either, else an ImageError."""
    reason = error.strerror or str(error)
    if error.errno in _OF_THE_POOL:
        return PoolError(f"{os.fsdecode(path)}: cannot be read: {reason}; {_RESUME}")
    if root is not None and error.errno in (errno.ENOENT, errno.ENOTDIR) and root.gone:
        return PoolError(f"{os.fsdecode(root.path)}: the pool is gone; {_RESUME}")
    return ImageError(f"cannot be read: {reason}")
