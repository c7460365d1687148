"""An NVIDIA driver without a GPU."""

# ruff: noqa: N802

from __future__ import annotations

from typing import Any

NUMBERS = {75: 9, 76: 0}  # attributes: the compute capability


class FakeDriver:
    """Answers as ``libcuda.so.1`` does, with ``gpus`` GPUs; ``broken`` is its error code."""

    def __init__(self, gpus: int = 1, broken: int = 0) -> None:
        self.gpus, self.broken = gpus, broken

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return self.broken

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = number
        return self.broken

    def cuDeviceGetName(self, name: Any, size: int, device: int) -> int:
        name.value = f"Fake GPU {device}".encode()
        return self.broken

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:
        value._obj.value = NUMBERS[attribute]
        return self.broken

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13020
        return self.broken
