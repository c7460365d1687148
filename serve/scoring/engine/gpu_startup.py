"""Session and executor of a device, made again where graphs or memory fail."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lloss.serve.scoring.engine.device_memory import Memory
from lloss.serve.scoring.engine.gpu_executor import DeviceExecutor

from lloss.errors import CaptureError, DeviceMemoryError
from lloss.manifest import Manifest
from lloss.runtime.batch_size import halved
from lloss.runtime.providers import Setup, open_session


def open_device(
    path: Path,
    manifest: Manifest,
    sha256: str,
    setup: Setup,
    buffers: int,
    limit: int = 0,
    tell: Callable[[str], None] = lambda line: None,
    memory: Memory | None = None,
) -> tuple[DeviceExecutor, str]:
    """Make a session and its executor.

    After a capture that failed the session may hold a stream that is still capturing, and after a
    run that did not fit, memory that is of no use: each try gets a new session.

    Args:
        path: the artifact.
        manifest: of it.
        sha256: of its file.
        setup: of provider, GPU and batch size.
        buffers: that rotate.
        limit: images a run at most; 0 for the batch size.
        tell: receives a line each time that runs are halved, now and later.
        memory: by default that of the device.

    Returns:
        The executor, and why it has no CUDA graphs although the setup asks for them; often nothing.

    Raises:
        EngineError: the provider cannot run the artifact, not even one image at a time.
    """
    device = "cpu" if setup.provider == "cpu" else "cuda"
    limit, note = limit or setup.batch_size, ""

    def attempt() -> tuple[DeviceExecutor, str]:
        opened = open_session(path, replace(setup, batch_size=limit), sha256)
        executor = DeviceExecutor(
            opened.session,
            manifest,
            setup.batch_size,
            buffers,
            device,
            setup.device_id,
            memory,
            limit,
            tell,
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
            tell(
                f"{device}:{setup.device_id} has too little memory for runs of {limit} images: "
                f"runs of {smaller} at most"
            )
            limit = smaller
        gc.collect()  # the session that failed, with its stream and its memory
