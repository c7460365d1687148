"""A GPU's memory without a GPU, and sessions that behave as one with CUDA graphs does."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lloss.serve.scoring.batch.slots import Slots
from lloss.serve.scoring.engine.device_memory import CudaMemory

from lloss.runtime.cuda_driver import Driver

from ...waiting import PATIENCE


class FakeGpu(CudaMemory):
    """Memory of the fake driver, which a session on the CPU can address."""

    name = "cpu"


def fake_library(path: Path, gpus: int = 1) -> Any:
    library = ctypes.CDLL(str(path))
    library.fake_gpus(gpus)
    library.fake_free(ctypes.c_size_t(8 << 30))
    return library


def fake_gpu(path: Path) -> FakeGpu:
    return FakeGpu(0, Driver(fake_library(path)))


def pictures(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def hold_all(slots: Slots, count: int = 0) -> contextlib.ExitStack:
    """Hold some or all slots, before every other waiter, until the stack is closed."""
    held = contextlib.ExitStack()
    for _ in range(count or slots.count):
        held.enter_context(slots.held(-1))
    return held


class Spy:
    """A session that notes its runs, and fails or waits on demand."""

    def __init__(self, session: Any, provider: str = "CUDAExecutionProvider") -> None:
        self._session, self.provider = session, provider
        self.most: int | None = None  # images that its memory holds
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.error: Exception | None = None
        self.before: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self.provider, "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {self.provider: {}}

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.threads.add(threading.get_ident())
        self.before()
        if self.error is not None:
            raise self.error
        size = binding.get_outputs()[0].shape()[0]
        if self.most is not None and size > self.most:
            raise RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer")
        self._session.run_with_iobinding(binding, options)
        self.sizes.append(size)


class Gate:
    """Holds up a call until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self.opened.wait(PATIENCE)


class GraphSession(Spy):
    """A session with CUDA graphs: it captures by id, then replays the binding."""

    def __init__(
        self, session: Any, broken: str = "", on_capture: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(session)
        self.broken, self.on_capture = broken, on_capture
        self.captured: dict[int, Any] = {}
        self.plain = 0

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        id = int(options.get_run_config_entry("gpu_graph_id"))
        if id < 0:
            self.plain += 1
        elif self.broken == "capture":
            raise RuntimeError("operation not permitted when stream is capturing\nat cuda.cc:3")
        elif id in self.captured:
            assert self.captured[id] is binding, "a graph has the addresses of its capture"
            if self.broken == "replay":
                return  # the outputs of before stay
        else:
            self.on_capture()
            self.captured[id] = binding
        super().run_with_iobinding(binding, options)
