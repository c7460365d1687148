"""What a failed read means: one bad image, or the end of the pool."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lloss.errors import ImageError, LlossError, PoolError
from lloss.pools.confinement import Confinement

_NAMES = "EIO ESTALE ENOTCONN ENODEV EMFILE ENFILE ETIMEDOUT EHOSTDOWN"
_OF_THE_POOL = frozenset(getattr(errno, name) for name in _NAMES.split() if hasattr(errno, name))
"""What a disk, a network or this process suffers from, and no image: the next would fail too."""

_MISSING = (errno.ENOENT, errno.ENOTDIR)

_AGAIN = "mend it and run the same command again, it goes on from there"


class Root:
    """The folder that images are read below; tells an image that is gone from a pool that is.

    Args:
        path: of the folder. Its device is noted now: where a disk was taken away, the mount
            point is still there, and empty. (Inode numbers tell nothing:
            network mounts give new ones.)
        within: what its files must lie in; None for anywhere.
    """

    def __init__(self, path: str | bytes | Path, within: Confinement | None = None) -> None:
        self.path = path
        self.within = within
        self._found = self._device()

    def _device(self) -> int | None:
        try:
            return os.stat(self.path).st_dev  # noqa: PTH116  Path knows no bytes
        except (OSError, ValueError):
            return None

    @property
    def gone(self) -> bool:
        """Whether nothing lies there any more, or a folder of another device."""
        now = self._device()
        return now is None or now != self._found


def failure(error: OSError, path: str | bytes | Path, root: Root | None = None) -> LlossError:
    """The error to raise where a file of a pool could not be read.

    Args:
        error: what the system raised.
        path: of the file.
        root: the folder of its pool, if it is of one.

    Returns:
        A :class:`PoolError` where no other image could be read either, else an
        :class:`ImageError`.
    """
    reason = error.strerror or str(error)
    if error.errno in _OF_THE_POOL:
        return PoolError(f"{os.fsdecode(path)}: cannot be read: {reason}; {_AGAIN}")
    if root is not None and error.errno in _MISSING and root.gone:
        return PoolError(f"{os.fsdecode(root.path)}: the pool is gone; {_AGAIN}")
    return ImageError(f"cannot be read: {reason}")
