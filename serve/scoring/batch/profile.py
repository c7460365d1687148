"""Where the time of a run went, and what would make it faster."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lloss.serve.scoring.scorer import Scorer

_BOUND = 0.85
"""Threads that are busy for this share of the time are what bounds a run."""


@dataclass(frozen=True)
class Stage:
    """What one stage of a run took.

    Attributes:
        name: such as ``decode``.
        seconds: of all its threads together.
        threads: that do it.
        share: of the time that those threads had, 0 to 1.
    """

    name: str
    seconds: float
    threads: int
    share: float


@dataclass(frozen=True)
class Profile:
    """A run, stage by stage.

    Attributes:
        images: scored or skipped.
        seconds: of the run, by the clock.
        stages: in the order of the data.
        on_host: whether one thread does read, decode and infer, as on the CPU.
        remote: whether the pool lies behind a network.
        precision: of the artifact.
    """

    images: int
    seconds: float
    stages: tuple[Stage, ...]
    on_host: bool
    remote: bool
    precision: str = "fp32"

    def bound(self) -> str:
        """The stage that bounds the run; ``listing`` when the threads mostly wait for the pool."""
        shares = {stage.name: stage.share for stage in self.stages}
        if shares["write"] >= _BOUND:
            return "write"
        for team in self._teams():
            if sum(shares[name] for name in team) >= _BOUND:
                return max(team, key=lambda name: shares[name])
        return "read" if self.remote else "listing"

    def _teams(self) -> list[list[str]]:
        """Stages that the same threads do, one after another."""
        workers = ["decode"] if self.remote else ["read", "decode"]
        return [[*workers, "infer"]] if self.on_host else [["infer"], workers]

    def text(self) -> str:
        """A table of the stages, and a line that says what to change."""
        rate = self.images / self.seconds if self.seconds else 0.0
        lines = [f"{self.images} images in {self.seconds:.1f} s, {rate:.0f} images/s"]
        lines.append(f"{'stage':8s} {'seconds':>9s} {'threads':>8s} {'busy':>6s}")
        lines += [
            f"{stage.name:8s} {stage.seconds:9.2f} {stage.threads:8d} {stage.share:6.0%}"
            for stage in self.stages
        ]
        bound = self.bound()
        return "\n".join([*lines, f"bound by {bound}: {self.remedy()}"])

    def remedy(self) -> str:
        """What to change so that the stage that bounds the run takes less."""
        bound = self.bound()
        if bound == "infer":
            return _FASTER_ENGINE[self.on_host][self.precision]
        return _REMEDIES[bound]


_DECODE = "keep the images nearer to the model's size, or as .npy; give it more cores"
_READ = "more --readers for a store; a faster disk, or fewer and larger files (tar shards, .npy)"
_WRITE = "put -o on a faster disk"
_LISTING = "the pool does not list its images fast enough: larger tar shards, .npy, or a list"
_REMEDIES = {"decode": _DECODE, "read": _READ, "write": _WRITE, "listing": _LISTING}
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
"""What to change where the engine bounds a run: on the host or a device, by precision."""


class Profiler:
    """Watches a scorer from when it is made to :meth:`profile`."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._begun = time.perf_counter()
        self._before = scorer.telemetry.spent_so_far()
        self._images = scorer.telemetry.images

    def profile(self, remote: bool = False) -> Profile:
        """What happened since."""
        scorer = self._scorer
        seconds = time.perf_counter() - self._begun
        spent = scorer.telemetry.spent_so_far()
        workers = scorer.engine.lanes if scorer.engine.on_host else scorer.threads
        threads = {
            "read": scorer.readers if remote else workers,
            "decode": workers,
            "infer": scorer.engine.lanes,
            "write": 1,
        }
        stages = []
        for name, count in threads.items():
            busy = spent[name] - self._before[name]
            stages.append(Stage(name, busy, count, busy / (seconds * count) if seconds else 0.0))
        images = scorer.telemetry.images - self._images
        host, precision = scorer.engine.on_host, scorer.manifest.precision
        return Profile(images, seconds, tuple(stages), host, remote, precision)
