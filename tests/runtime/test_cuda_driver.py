"""The driver's interface, against a driver that checks what it is given."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from lloss.errors import DeviceMemoryError, EngineError
from lloss.runtime import cuda_driver as cuda
from lloss.runtime.cuda_driver import Driver


@pytest.fixture
def library(fake_cuda: Path) -> ctypes.CDLL:
    made = ctypes.CDLL(str(fake_cuda))
    made.fake_gpus(1)
    return made


def test_it_tells_what_the_gpu_is(library: ctypes.CDLL) -> None:
    gpu = Driver(library).gpu(0)
    assert (gpu.name, gpu.compute_capability, gpu.cuda) == ("Fake GPU", "9.0", "13.2")


def test_a_gpu_that_is_not_there_is_named(library: ctypes.CDLL) -> None:
    with pytest.raises(EngineError, match="GPU 1: this machine shows 1, counted from 0"):
        Driver(library).gpu(1)


def test_a_driver_without_a_gpu_is_told(library: ctypes.CDLL) -> None:
    library.fake_gpus(0)
    with pytest.raises(EngineError, match="finds no GPU: look at CUDA_VISIBLE_DEVICES"):
        Driver(library)
    library.fake_gpus(-1)
    with pytest.raises(EngineError, match=r"cuInit failed with CUDA_ERROR_NO_DEVICE \(100\)"):
        Driver(library)


def test_no_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LIBRARY", "libcuda.so.none")
    with pytest.raises(EngineError, match=r"libcuda\.so\.none is not on this machine.*driver"):
        Driver()


def test_failures_carry_the_drivers_name_for_them(library: ctypes.CDLL) -> None:
    driver = Driver(library)
    with pytest.raises(EngineError, match="cuMemAlloc_v2 failed with 201"):  # it has no name
        driver.alloc(16)
    with driver.using(driver.retain(0)):
        with pytest.raises(DeviceMemoryError, match="CUDA_ERROR_OUT_OF_MEMORY"):
            driver.alloc(1 << 40)
        with pytest.raises(EngineError, match="CUDA_ERROR_OUT_OF_MEMORY") as raised:
            driver.host_alloc(1 << 40)
        assert not isinstance(raised.value, DeviceMemoryError), "that is the host's memory"


def test_the_threads_own_context_is_left_as_it_was(library: ctypes.CDLL) -> None:
    library.fake_gpus(2)
    library.fake_current.restype = ctypes.c_void_p
    driver = Driver(library)
    first, second = driver.retain(0), driver.retain(1)
    with driver.using(first):
        with pytest.raises(EngineError), driver.using(second):
            assert library.fake_current() == second != first
            driver.alloc(1 << 40)
        assert library.fake_current() == first
        driver.free_memory(1)
        assert library.fake_current() == first
    assert library.fake_current() is None


def test_free_memory_is_asked_of_the_gpu(library: ctypes.CDLL) -> None:
    library.fake_free(ctypes.c_size_t(5 << 30))
    assert Driver(library).free_memory(0) == 5 << 30


def test_the_real_driver(tmp_path: Path) -> None:
    try:
        driver = cuda.driver()
    except EngineError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")
    gpu = driver.gpu(0)
    assert gpu.name and float(gpu.compute_capability) >= 5 and float(gpu.cuda) >= 12
