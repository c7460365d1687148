"""Start a session and its executor on a GPU; retry where CUDA graphs or memory fail."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lloss.serve.scoring.engine.gpu_executor import GpuExecutor

from lloss.errors import CaptureError, DeviceMemoryError
from lloss.manifest import Manifest
from lloss.runtime.batch_size import halved
from lloss.runtime.providers import Setup, open_session


def open_gpu(
    path: Path,
    manifest: Manifest,
    sha256: str,
    setup: Setup,
    buffers: int,
    limit: int = 0,
    on_halving: Callable[[str], None] = lambda line: None,
) -> tuple[GpuExecutor, str]:
    """Start an artifact on a GPU.

    Each attempt gets a new session: after a failed capture the old one may hold a stream that is
    still capturing, and after a run that did not fit, memory that it cannot use.

    Returns:
        The executor, and why it has no CUDA graphs although the setup asks for them, or "".
    """
    limit, note = limit or setup.batch_size, ""

    def attempt() -> tuple[GpuExecutor, str]:
        opened = open_session(path, replace(setup, batch_size=limit), sha256)
        executor = GpuExecutor(
            opened.session, manifest, setup.batch_size, buffers, setup.device_id, limit, on_halving
        )
        return executor, note or opened.note

    while True:
        try:
            return attempt()
        except CaptureError as error:
            setup, note = replace(setup, graphs=False), f"no CUDA graphs: {error}"
        except DeviceMemoryError:
            if limit == 1:
                raise
            smaller = halved(limit)
            on_halving(
                f"cuda:{setup.device_id} has too little memory for runs of {limit} images: "
                f"runs of {smaller} at most"
            )
            limit = smaller
        gc.collect()  # the failed session, with its stream and its memory
