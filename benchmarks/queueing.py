"""What the wait for a lane alone does to latency: simulated, from measured batches.

Requests of one image come to as many lanes as the engine has. A lane that is free takes its share
of what waits, as the daemon's do, and is busy for as long as the bare engine once was with so many
images, all lanes computing. There is no HTTP, no interpreter and no client in it, but the wait for
a lane is, which makes a long tail where requests come at random times.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lloss.serve.scoring.scorer import Scorer

Gap = Callable[[], float]
"""Draws the seconds between two requests."""


def at_random(rate: float, draw: random.Random) -> Gap:
    """A Poisson process: each moment is as likely as any."""
    return lambda: draw.expovariate(rate)


def evenly(rate: float) -> Gap:
    """One after each 1/rate seconds."""
    return lambda: 1 / rate


def batch_seconds(model: Path, images: np.ndarray, seconds: float = 0.5) -> list[list[float]]:
    """Seconds the engine took for 1, 2, ... images: many readings each, all lanes computing."""
    with Scorer(model, "cpu") as scorer:
        engine = scorer.engine

        def timed(count: int, until: float, into: list[float]) -> None:
            while (begun := time.perf_counter()) < until:
                engine.run(images[:count])
                into.append(time.perf_counter() - begun)

        readings: list[list[float]] = []
        for count in range(1, scorer.batch_size + 1):
            readings.append([])
            given = (count, time.perf_counter() + seconds, readings[-1])
            lanes = [threading.Thread(target=timed, args=given) for _ in range(engine.concurrency)]
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()
    return readings


def saturated(readings: Sequence[Sequence[float]], lanes: int) -> float:
    """Images a second of whole batches."""
    whole = sorted(readings[-1])
    return lanes * len(readings) / whole[len(whole) // 2]


def latencies(
    readings: Sequence[Sequence[float]], lanes: int, gap: Gap, draw: random.Random, count: int
) -> list[float]:
    """Seconds from arrival to answer of ``count`` requests, sorted."""
    free = [0.0] * lanes  # when each lane is
    waiting: deque[float] = deque()
    taken: list[float] = []
    due = gap()
    while len(taken) < count:
        now = max(free[0], waiting[0] if waiting else due)
        while due <= now:
            waiting.append(due)
            due += gap()
        size = min(len(readings), math.ceil(len(waiting) / lanes))
        end = now + draw.choice(readings[size - 1])
        taken += [end - waiting.popleft() for _ in range(size)]
        heapq.heapreplace(free, end)
    return sorted(taken)


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 of sorted seconds."""
    return {f"p{share}": times[len(times) * share // 100] for share in (50, 90, 99)}
