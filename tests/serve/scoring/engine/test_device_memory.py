"""GPU memory: copies arrive, and nothing is left allocated."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.engine.device_memory import Copy, CudaMemory

from lloss.errors import EngineError
from lloss.runtime.cuda_driver import Driver

from ..fakes import fake_library


@pytest.fixture
def library(fake_cuda: Path) -> Any:
    return fake_library(fake_cuda)


def test_a_copy_goes_up_and_comes_down(library: Any) -> None:
    memory = CudaMemory(0, Driver(library))
    source, target = memory.host(1000), memory.host(1000)
    source[:] = np.arange(1000) % 251
    device, stream = memory.device(1000), memory.stream()
    memory.upload([Copy(source.ctypes.data, device, 1000)], stream)
    halves = [Copy(target.ctypes.data + at, device + at, 500) for at in (0, 500)]
    memory.download(halves, stream)
    np.testing.assert_array_equal(target, source)
    memory.close()


def test_pinned_memory_lives_as_long_as_a_view_of_it(library: Any) -> None:
    memory = CudaMemory(0, Driver(library))
    gc.collect()  # what earlier tests left
    before = library.fake_live()
    view = memory.host(4096).reshape(4, 1024)[1:]
    memory.device(64), memory.stream()
    assert library.fake_live() == before + 3
    memory.close()
    memory.close()
    assert library.fake_live() == before + 1
    view[:] = 7
    assert view.sum() == 7 * 3 * 1024
    del view
    gc.collect()
    assert library.fake_live() == before


def test_too_much_memory_or_a_wrong_gpu_is_an_error(library: Any) -> None:
    with pytest.raises(EngineError, match="cuMemHostAlloc failed with CUDA_ERROR_OUT_OF_MEMORY"):
        CudaMemory(0, Driver(library)).host(1 << 40)
    with pytest.raises(EngineError, match="GPU 3"):
        CudaMemory(3, Driver(library))
