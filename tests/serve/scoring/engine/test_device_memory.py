"""Host and device memory: what goes up comes down, and nothing is left."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.engine.device_memory import Copy, CudaMemory, HostMemory, Memory

from lloss.errors import EngineError
from lloss.runtime.cuda_driver import Driver


@pytest.fixture
def library(fake_cuda: Path) -> ctypes.CDLL:
    made = ctypes.CDLL(str(fake_cuda))
    made.fake_gpus(1)
    return made


@pytest.fixture(params=["cpu", "cuda"])
def make(request: pytest.FixtureRequest) -> Callable[[], Memory]:
    if request.param == "cpu":
        return HostMemory
    library = request.getfixturevalue("library")
    return lambda: CudaMemory(0, Driver(library))


def test_what_goes_up_comes_down(make: Callable[[], Memory]) -> None:
    memory = make()
    there, back = memory.host(1000), memory.host(1000)
    there[:] = np.arange(1000) % 251
    device, stream = memory.device(1000), memory.stream()
    memory.upload([Copy(there.ctypes.data, device, 1000)], stream)
    memory.download(
        [Copy(back.ctypes.data + start, device + start, 500) for start in (0, 500)], stream
    )
    np.testing.assert_array_equal(back, there)
    memory.close()


def test_pinned_memory_lives_as_long_as_a_view_of_it(library: ctypes.CDLL) -> None:
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


def test_too_much_is_told(library: ctypes.CDLL) -> None:
    with pytest.raises(EngineError, match="cuMemHostAlloc failed with CUDA_ERROR_OUT_OF_MEMORY"):
        CudaMemory(0, Driver(library)).host(1 << 40)
    with pytest.raises(EngineError, match="GPU 3"):
        CudaMemory(3, Driver(library))
