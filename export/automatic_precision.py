"""Choose the precision: what is faster on this machine, if it ranks images as fp32 does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lloss.export.fidelity import FidelityLimits
from lloss.export.pool_sample import ReferenceSample
from lloss.export.precision import Log, ReducedPrecision
from lloss.export.trained_network import TrainedNetwork

from lloss.errors import EngineError, ModelFileError, PoolError
from lloss.manifest import Manifest
from lloss.pools import Pool
from lloss.runtime.int8_support import saturates
from lloss.runtime.providers import why_unavailable

AUTO = "auto"

FASTER = 1.1
"""In times of fp32's speed: less is within what two measurements differ by."""


@dataclass(frozen=True, kw_only=True)
class AutomaticPrecision:
    """Tries fp16 on a GPU, int8 on a CPU with VNNI; fp32 stays where that gains nothing.

    Attributes:
        pool: see :class:`.ReducedPrecision`; too few images to judge on mean fp32.
        calibration_images: likewise.
        held_out: likewise.
        limits: likewise; a graph that does not reach them means fp32.
        least_images: of fewer in the pool, scoring takes less time than judging a precision.
    """

    pool: Pool
    calibration_images: int = 512
    held_out: int = 2000
    limits: FidelityLimits = field(default_factory=FidelityLimits)
    least_images: int = 0

    @cached_property
    def attempt(self) -> tuple[ReducedPrecision | None, str]:
        """The reduction to try, or None and the reason for fp32."""
        precision, why = fastest_precision()
        if not precision:
            return None, why
        if self.least_images and (count := self.pool.count()) < self.least_images:
            return None, (
                f"{count:,} images are scored before {precision} could be judged, from "
                f"{self.least_images:,} on it is tried"
            )
        reduction = ReducedPrecision(
            precision=precision,
            pool=self.pool,
            calibration_images=self.calibration_images,
            held_out=self.held_out,
            limits=self.limits,
            min_speed=FASTER,
        )
        try:
            reduction.prepare()
        except PoolError as error:
            return None, _first_clause(error)
        return reduction, ""

    def prepare(self) -> None:
        """Draw the images: a number out of range raises here, before minutes of export."""
        _ = self.attempt

    def run(self, path: Path, manifest: Manifest, trained: TrainedNetwork, log: Log) -> Manifest:
        """Replace the fp32 graph in ``path``, or leave it; return the measured manifest.

        ``log`` receives one line: which precision it is and how much faster, or why it is fp32.
        """
        reduction, why = self.attempt
        if reduction is not None:
            try:
                reduced = reduction.run(path, manifest, trained, lambda _: None)
            except (ModelFileError, PoolError, EngineError) as error:
                why = _first_clause(error)
            else:
                log(_described(reduced))
                return reduced
        log(f"precision: fp32; {why}")
        reference = ReferenceSample(pool=self.pool, required=False).measure(path, manifest.image)
        return dataclasses.replace(manifest, reference=reference)


def fastest_precision() -> tuple[str, str]:
    """Return the precision that this machine computes fastest, or "" and why it is fp32."""
    no_gpu = why_unavailable("cuda")
    if not no_gpu:
        return "fp16", ""
    if not saturates():
        return "int8", ""
    return "", f"this CPU has no VNNI for int8, and for fp16 there is no GPU (cuda {no_gpu})"


def _first_clause(error: Exception) -> str:
    """What an error says without its remedies, which are of an export on request."""
    return str(error).partition("; ")[0]


def _described(manifest: Manifest) -> str:
    speed, measured = manifest.speed, manifest.fidelity["fp32"]
    return (
        f"precision: {manifest.precision}, {speed['times_fp32']:.2f}× as fast as fp32 on "
        f"{speed['cpu']}; Spearman {measured['spearman']:.5f}, top-10% overlap "
        f"{measured['top_decile_overlap']:.3f} on {measured['images']} images"
    )
