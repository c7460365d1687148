"""Start a session and its executor on a GPU; retry where CUDA graphs or memory fail.

Three answers to a GPU with too little memory: runs begin with a size that its free memory should
hold; each start that fails is tried again with half the size; and the executor halves a run that
fails later.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

from lloss.serve.scoring.engine.gpu_executor import GpuExecutor, OnHalving

from lloss.errors import CaptureError, DeviceMemoryError
from lloss.runtime import cuda_driver
from lloss.runtime.batch_size import batch_in_memory, halved
from lloss.runtime.providers import SessionSetup, open_session


def open_gpu(
    path: Path,
    sha256: str,
    setup: SessionSetup,
    buffers: int,
    fit_memory: bool = False,
    on_halving: OnHalving = lambda size, smaller: None,
) -> tuple[GpuExecutor, list[str]]:
    """Start an artifact on a GPU.

    Each attempt gets a new session: after a failed capture the old one may hold a stream that is
    still capturing, and after a run that did not fit, memory that it cannot use. With
    ``fit_memory``, CUDA's runs begin no larger than the GPU's free memory should hold.

    Returns:
        The executor, and remarks, such as why it has no CUDA graphs.
    """
    limit, notes, batch_size = setup.batch_size, list[str](), setup.batch_size
    if fit_memory and setup.provider == "cuda":  # a TensorRT engine is built for a number
        free = cuda_driver.driver().free_memory(setup.device_id)
        limit = batch_in_memory(setup.manifest.image, batch_size, free)
        if limit < batch_size:
            gib = free / 2**30
            notes.append(
                f"runs of {limit} images: {gib:.1f} GiB are free on cuda:{setup.device_id}"
            )

    def attempt() -> tuple[GpuExecutor, list[str]]:
        opened = open_session(path, replace(setup, batch_size=limit), sha256)
        executor = GpuExecutor(
            opened.session, setup.manifest, batch_size, buffers, setup.device_id, limit, on_halving
        )
        return executor, [*notes, opened.note]

    while True:
        try:
            return attempt()
        except CaptureError as error:
            setup = replace(setup, graphs=False)
            notes.append(f"no CUDA graphs: {error}")
        except DeviceMemoryError:
            if limit == 1:
                raise
            on_halving(limit, halved(limit))
            limit = halved(limit)
        gc.collect()  # the failed session, with its stream and its memory
