"""Where the time of a run went, and what would make it faster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from lloss.serve.scoring.scorer import Scorer
from lloss.serve.scoring.telemetry import STAGES

_BUSY = 0.85
"""Threads that are busy for this share of the time limit a run."""

_REMEDIES = {
    "decode": "keep the images nearer to the model's size, or as .npy; give it more cores",
    "read": "more --readers for a store; a faster disk, or fewer and larger files (tar shards, "
    ".npy)",
    "write": "put -o on a faster disk",
    "listing": "the pool does not list its images fast enough: larger tar shards, .npy, or a list",
}
_FASTER_ENGINE = {
    True: {
        "fp32": "export with --precision int8, give it more cores, or a GPU (--provider cuda)",
        "int8": "give it more cores, --shard the pool, or a GPU with an fp16 artifact",
        "fp16": "on a CPU int8 is faster: export with --precision int8; or use a GPU",
    },
    False: {
        "fp32": "export with --precision fp16, try a larger --batch-size, or --shard the pool",
        "fp16": "try a larger --batch-size, build TensorRT's engine, or --shard the pool",
        "int8": "int8 is for CPUs: export with --precision fp16",
    },
}
"""Remedies where the engine limits a run: by whether it is the CPU, and by precision."""


@dataclass(frozen=True)
class Profile:
    """The time of a run by stage."""

    images: int  # scored or skipped
    seconds: float  # by the clock
    busy: Mapping[str, float]  # thread seconds of each stage
    threads: Mapping[str, int]  # of each stage
    on_host: bool  # whether one thread does read, decode and infer, as on the CPU
    remote: bool  # whether reading waits for a network
    precision: str = "fp32"

    def share(self, stage: str) -> float:
        """Share of the time of a stage's threads that they were busy, 0 to 1."""
        return self.busy[stage] / (self.seconds * self.threads[stage]) if self.seconds else 0.0

    def bound(self) -> str:
        """The stage that limits the run; ``listing`` when the threads mostly wait for the pool."""
        workers = ["decode"] if self.remote else ["read", "decode"]
        same_threads = [[*workers, "infer"]] if self.on_host else [["infer"], workers]
        for stages in (["write"], *same_threads):
            if sum(map(self.share, stages)) >= _BUSY:
                return max(stages, key=self.share)
        return "read" if self.remote else "listing"

    def text(self) -> str:
        """A table of the stages, and a line on what to change."""
        rate = self.images / self.seconds if self.seconds else 0.0
        lines = [f"{self.images} images in {self.seconds:.1f} s, {rate:.0f} images/s"]
        lines.append(f"{'stage':8s} {'seconds':>9s} {'threads':>8s} {'busy':>6s}")
        lines += [
            f"{name:8s} {self.busy[name]:9.2f} {self.threads[name]:8d} {self.share(name):6.0%}"
            for name in STAGES
        ]
        bound = self.bound()
        faster = _FASTER_ENGINE[self.on_host][self.precision]
        remedy = faster if bound == "infer" else _REMEDIES[bound]
        return "\n".join([*lines, f"bound by {bound}: {remedy}"])


class Profiler:
    """Measures a scorer from its construction to :meth:`profile`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._begun = scorer, time.perf_counter()
        self._images, self._busy = self._totals()

    def profile(self, remote: bool = False) -> Profile:
        """Return what the scorer did since."""
        scorer, engine = self._scorer, self._scorer.engine
        images, busy = self._totals()
        workers = engine.concurrency if engine.on_host else scorer.threads
        counts = (scorer.readers if remote else workers, workers, engine.concurrency, 1)
        return Profile(
            images=images - self._images,
            seconds=time.perf_counter() - self._begun,
            busy={stage: total - self._busy[stage] for stage, total in busy.items()},
            threads=dict(zip(STAGES, counts)),
            on_host=engine.on_host,
            remote=remote,
            precision=scorer.manifest.precision,
        )

    def _totals(self) -> tuple[int, dict[str, float]]:
        telemetry = self._scorer.telemetry
        return telemetry.images, {stage: telemetry.total_seconds(stage) for stage in STAGES}
