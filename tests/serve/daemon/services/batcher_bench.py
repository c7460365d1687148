"""A batcher before a real scorer, whose lanes a test can hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lloss.serve.daemon.services.batcher import Batcher
from lloss.serve.daemon.services.request_queue import Answer
from lloss.serve.daemon.settings import Limits

from lloss import Scorer
from lloss.errors import EngineError

from ....waiting import PATIENCE
from ...scoring.fakes import hold_all

BATCH = 8


class Metrics:
    """Stands for the daemon's metrics."""

    def __init__(self) -> None:
        self.refusals: list[tuple[str, int]] = []
        self.losses: list[float] = []
        self.waits: list[float] = []
        self.waiting = 0

    def refused(self, reason: str, images: int = 1) -> None:
        self.refusals.append((reason, images))

    def queued(self, images: int) -> None:
        self.waiting = images

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def served(self, losses: Any, sha256: str) -> None:
        self.losses.extend(losses.tolist())


class Bench:
    """A batcher; ``sizes`` are those of the batches that ran, ``pause`` is seconds an image."""

    def __init__(self, artifact: Path, threads: int = 2, **limits: Any) -> None:
        self.scorer = Scorer(artifact, "cpu", batch_size=BATCH, threads=threads)
        self.metrics: Any = Metrics()
        self.batcher = Batcher(self.scorer, Limits(**limits), self.metrics)
        self.sizes: list[int] = []
        self.failing, self.pause = False, 0.0
        self._executor: Any = self.scorer.engine.executor
        self._run, self._executor.run = self._executor.run, self._watched

    def _watched(self, buffer: Any, count: int) -> Any:
        self.sizes.append(count)
        time.sleep(self.pause * count)
        if self.failing:
            raise EngineError("out of luck")
        return self._run(buffer, count)

    @contextlib.contextmanager
    def busy(self, lanes: int = 0) -> Iterator[None]:
        """Some or all lanes are busy while the block runs."""
        with hold_all(self.scorer._started().slots.cores, lanes):
            yield

    def score(self, images: Any, seconds: float = PATIENCE) -> asyncio.Task[Answer]:
        return asyncio.ensure_future(self.batcher.score(images, seconds))

    def losses(self, images: np.ndarray) -> np.ndarray:
        """Image by image, by the engine itself."""
        buffer, losses = self._executor.buffer(), []
        for image in images:
            buffer.pixels[0] = image
            losses.append(self._run(buffer, 1)["loss"][0])
        self._executor.release(buffer)
        return np.array(losses)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(work(), 20)

        return asyncio.run(bounded())
