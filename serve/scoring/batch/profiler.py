"""Where the time of a run went, and what would make it faster."""

from __future__ import annotations

import time

from lloss.serve.scoring.scorer import Scorer
from lloss.serve.scoring.telemetry import STAGES

_BUSY = 0.85
"""Below this sum of all shares, the threads mostly wait for the pool's listing."""

_REMEDIES = {
    "read": "more --readers for a store; a faster disk, or fewer and larger files (tar shards, "
    ".npy)",
    "decode": "keep the images nearer to the model's size, or as .npy; give it more cores",
    "infer": "export with --precision int8 for a CPU, fp16 for a GPU; give it more cores, or "
    "--shard the pool",
    "write": "put -o on a faster disk",
    "listing": "the pool does not list its images fast enough: larger tar shards, .npy, or a list",
}


class Profiler:
    """Measures a scorer from its construction on."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer, self._begun = scorer, time.perf_counter()
        self._before = self._totals()

    def text(self, remote: bool = False) -> str:
        """A table of the stages until now, and a line on what to change.

        The slowest stage is that whose threads were busy for the largest share of the time.
        """
        engine, seconds = self._scorer.engine, time.perf_counter() - self._begun
        workers = self._scorer.threads
        readers = self._scorer.readers if remote else workers
        threads = dict(zip(STAGES, (readers, workers, engine.concurrency, 1)))
        spent = {name: total - self._before[name] for name, total in self._totals().items()}
        shares = {stage: spent[stage] / (seconds * threads[stage]) for stage in STAGES}
        images = int(spent["images"])
        lines = [
            f"{images} images in {seconds:.1f} s, {images / seconds:.0f} images/s",
            f"{'stage':8s} {'seconds':>9s} {'threads':>8s} {'busy':>6s}",
            *(
                f"{name:8s} {spent[name]:9.2f} {threads[name]:8d} {shares[name]:6.0%}"
                for name in STAGES
            ),
        ]
        slowest = max(STAGES, key=lambda stage: shares[stage])
        bound = slowest if sum(shares.values()) >= _BUSY else "listing"
        return "\n".join([*lines, f"bound by {bound}: {_REMEDIES[bound]}"])

    def _totals(self) -> dict[str, float]:
        telemetry = self._scorer.telemetry
        stages = {stage: telemetry.total_seconds(stage) for stage in STAGES}
        return {"images": telemetry.images, **stages}
