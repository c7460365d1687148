"""The driver's GPUs, against a fake driver."""

from __future__ import annotations

import pytest

from lloss.errors import EngineError
from lloss.runtime import cuda_driver
from lloss.runtime.cuda_driver import Gpu, check_gpu, gpu

from .fake_driver import FakeDriver


def test_it_describes_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "load_library", lambda: FakeDriver(2))
    assert gpu(1) == Gpu("Fake GPU 1", "9.0", "13.2")
    for number in (-1, 2):
        with pytest.raises(EngineError, match=f"GPU {number}: this machine shows 2, counted from"):
            gpu(number)


def test_no_driver_or_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cuda_driver, "LIBRARY", "libcuda.so.none")
        with pytest.raises(EngineError, match=r"libcuda\.so\.none is not on this machine.*driver"):
            cuda_driver.load_library.__wrapped__()
    monkeypatch.setattr(cuda_driver, "load_library", lambda: FakeDriver(0))
    with pytest.raises(EngineError, match="finds no GPU: look at CUDA_VISIBLE_DEVICES"):
        check_gpu(0)
    monkeypatch.setattr(cuda_driver, "load_library", lambda: FakeDriver(1, broken=100))
    with pytest.raises(EngineError, match="the NVIDIA driver: cuDeviceGetCount failed with error"):
        check_gpu(0)


def test_the_real_driver() -> None:
    try:
        real = gpu(0)
    except EngineError as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")
    assert real.name and float(real.compute_capability) >= 5 and float(real.cuda) >= 12
