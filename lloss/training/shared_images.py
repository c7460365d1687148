"""Decoded images that several processes read: one file for all processes of a machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from lloss.files import write_error
from lloss.training.process_group import Processes

CHUNK = 64 << 20  # Bytes that are sent to another machine at once


def shared_images(
    processes: Processes, images: NDArray[np.uint8] | None, scratch: Path | None
) -> NDArray[np.uint8]:
    """Return the leading process's images, uint8 [N, H, W, 3], in each process.

    Those of a machine map one file, of which the operating system keeps one copy in memory. It is
    in ``scratch``, a folder; where that is None, in the folder for temporary files. It has no name
    any more when this returns.
    """
    shape = processes.sent(None if images is None else images.shape)
    process = processes.process
    first = process.local_rank == 0
    firsts = [rank for rank, local in enumerate(processes.listed(process.local_rank)) if not local]
    group = distributed.new_group(firsts, backend="gloo")
    path = ""
    try:
        if first:
            chunks = _chunks(images, shape, group if len(firsts) > 1 else None)
            path = str(_written(chunks, scratch))
        paths = dict(filter(lambda pair: pair[1], processes.listed((process.node, path))))
        mapped = np.memmap(paths[process.node], np.uint8, "r", shape=shape)
        processes.listed(None)  # all have it open
    finally:
        if path:
            Path(path).unlink()
    return mapped


def _chunks(
    images: NDArray[np.uint8] | None, shape: tuple[int, ...], group: Any
) -> Iterator[NDArray[np.uint8]]:
    """Yield the images, some at a time; between machines they are sent."""
    rows = max(1, CHUNK // int(np.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        size = min(rows, shape[0] - start)
        if images is None:
            chunk = torch.empty(size, *shape[1:], dtype=torch.uint8)
        else:
            chunk = torch.from_numpy(np.array(images[start : start + size]))
        if group is not None:
            distributed.broadcast(chunk, 0, group=group)
        yield chunk.numpy()


def _written(chunks: Iterator[NDArray[np.uint8]], scratch: Path | None) -> Path:
    # Of a name that `lloss.files.sweep` removes, should this process be killed.
    folder = scratch or Path(tempfile.gettempdir())
    path = folder / f".images.{secrets.token_hex(4)}.part"
    try:
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            for chunk in chunks:
                file.write(chunk.data)
    except BaseException as error:
        with contextlib.suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise write_error(error, path) from error
        raise
    return path
