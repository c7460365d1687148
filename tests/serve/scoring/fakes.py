"""A GPU's memory without a GPU, and sessions that behave as one with CUDA graphs does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lloss.serve.scoring.engine.device_memory import CudaMemory

from ...waiting import PATIENCE


class FakeGpu(CudaMemory):
    """Memory of the fake driver, which a session on the CPU can address."""

    name = "cpu"


class Spy:
    """A session that notes what it is asked, and fails or waits on demand."""

    def __init__(self, session: Any, provider: str = "CPUExecutionProvider") -> None:
        self._session = session
        self.provider = provider
        self.most: int | None = None  # images that its memory holds
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.fail: Exception | None = None
        self.before: Callable[[], object] = lambda: None
        self.gate = self.entered = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self.provider, "CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {self.provider: {}}

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.threads.add(threading.get_ident())
        if self.entered is not None:
            self.entered.set()
            self.gate.wait(PATIENCE)
        self.before()
        if self.fail is not None:
            raise self.fail
        size = binding.get_outputs()[0].shape()[0]
        if self.most is not None and size > self.most:
            raise RuntimeError("bfc_arena.cc:376 Failed to allocate memory for requested buffer")
        self._session.run_with_iobinding(binding, options)
        self.sizes.append(size)


class GraphSession(Spy):
    """A session that behaves as one with CUDA graphs: captures by id, then replays the binding."""

    def __init__(
        self, session: Any, broken: str = "", on_capture: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(session, "CUDAExecutionProvider")
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
            assert self.captured[id] is binding, "a graph has the addresses it was captured with"
            if self.broken == "replay":
                return  # the outputs of before stay
        else:
            self.on_capture()
            self.captured[id] = binding
        super().run_with_iobinding(binding, options)
