"""The driver's interface, against a fake driver that checks its arguments."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from lloss.errors import DeviceMemoryError, EngineError
from lloss.runtime import cuda_driver
from lloss.runtime.cuda_driver import Driver


@pytest.fixture
def library(fake_cuda: Path) -> Any:
    library = ctypes.CDLL(str(fake_cuda))
    library.fake_gpus(1)
    return library


def test_it_describes_a_gpu(library: Any) -> None:
    driver = Driver(library)
    gpu = driver.gpu(0)
    assert (gpu.name, gpu.compute_capability, gpu.cuda) == ("Fake GPU", "9.0", "13.2")
    library.fake_free(ctypes.c_size_t(5 << 30))
    assert driver.free_memory(0) == 5 << 30
    with pytest.raises(EngineError, match="GPU 1: this machine shows 1, counted from 0"):
        driver.gpu(1)


def test_no_driver_or_no_gpu_is_one_line(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library.fake_gpus(0)
    with pytest.raises(EngineError, match="finds no GPU: look at CUDA_VISIBLE_DEVICES"):
        Driver(library)
    library.fake_gpus(-1)
    with pytest.raises(EngineError, match=r"cuInit failed with CUDA_ERROR_NO_DEVICE \(100\)"):
        Driver(library)
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda.so.none")
    with pytest.raises(EngineError, match=r"libcuda\.so\.none is not on this machine.*driver"):
        Driver()


def test_an_error_has_the_drivers_name_for_it(library: Any) -> None:
    driver = Driver(library)
    with pytest.raises(EngineError, match="cuMemAlloc_v2 failed with 201"):  # it has no name
        driver.value("cuMemAlloc_v2", ctypes.c_uint64, 16)
    with driver.using(driver.context(0)):
        with pytest.raises(DeviceMemoryError, match="CUDA_ERROR_OUT_OF_MEMORY"):
            driver.value("cuMemAlloc_v2", ctypes.c_uint64, 1 << 40)
        with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY") as raised:
            driver.value("cuMemHostAlloc", ctypes.c_void_p, 1 << 40, 1)
        assert not isinstance(raised.value, DeviceMemoryError), "it is the host's memory"


def test_the_threads_own_context_is_restored(library: Any) -> None:
    library.fake_gpus(2)
    library.fake_current.restype = ctypes.c_void_p
    driver = Driver(library)
    first, second = driver.context(0), driver.context(1)
    with driver.using(first):
        with pytest.raises(EngineError), driver.using(second):
            assert library.fake_current() == second != first
            driver.value("cuMemAlloc_v2", ctypes.c_uint64, 1 << 40)
        assert library.fake_current() == first
        driver.free_memory(1)
        assert library.fake_current() == first
    assert library.fake_current() is None


def test_the_real_driver() -> None:
    try:
        gpu = cuda_driver.driver().gpu(0)
    except EngineError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")
    assert gpu.name and float(gpu.compute_capability) >= 5 and float(gpu.cuda) >= 12
