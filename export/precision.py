"""Replace an fp32 graph by one of reduced precision that ranks images as it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lloss.export.fidelity import PROVIDER, Fidelity, FidelityLimits, Predicted, compare, predict
from lloss.export.graph import cause, write_onnx
from lloss.export.pool_sample import MIN_HELD_OUT, PoolSample, batches, draw_sample
from lloss.export.speed_check import measure_gpu_speed, measure_speed
from lloss.export.torch_parity import check_batches, check_parity
from lloss.export.trained_network import TrainedNetwork

from lloss.errors import (
    FidelityError,
    LlossError,
    ParityError,
    PoolError,
    SettingsError,
    SlowGraphError,
)
from lloss.files import temporary_folder
from lloss.manifest import PRECISIONS, Manifest
from lloss.pools import Item, Pool
from lloss.runtime.int8_support import MADE_FOR, saturates
from lloss.statistics.loss_distribution import LossReference

Log = Callable[[str], None]

PROBES = 16
"""Images that find ranges for a graph of which only the speed counts."""

COPIES = {"fp16": 2, "int8": 6}
"""Temporary files in sizes of the fp32 file: a copy, for int8 what ONNX Runtime makes of it on the
way, and the reduced file."""


@dataclass(frozen=True, kw_only=True)
class ReducedPrecision:
    """Makes models of a precision below fp32, judged on images of a pool.

    Attributes:
        precision: ``fp16``: the network in float16. ``int8``: its convolutions and products in
            8-bit integers. Head and outputs are float32 in both.
        pool: images as they will be scored.
        calibration_images: number of images that find the ranges of ``int8``.
        held_out: number of other images to compare with fp32 on in the end, at least 200. For
            ``int8``, as many again choose the recipe.
        limits: that the graph must reach on the held-out images.
        reduce_range: for ``int8``, weights of 7 bits for processors without VNNI, which compute
            products of 8 bits slowly or wrongly (:mod:`lloss.runtime.int8_support`); None for what
            this machine's CPU needs.
        min_speed: least speed on this machine in times of fp32's; 0 for any.

    Raises:
        SettingsError: a number out of range.
    """

    precision: str
    pool: Pool
    calibration_images: int = 512
    held_out: int = 2000
    limits: FidelityLimits = field(default_factory=FidelityLimits)
    reduce_range: bool | None = None
    min_speed: float = 0.0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[1:]:
            choices = " or ".join(PRECISIONS[1:])
            raise SettingsError(f"a reduction to {self.precision!r}: choose {choices}")
        if self.calibration_images < 1:
            raise SettingsError(
                f"--calibration-images {self.calibration_images}: give a positive number"
            )

    @property
    def weight_bits(self) -> int:
        """Bits of int8 weights: as asked, or as this machine's CPU needs."""
        reduced = saturates() if self.reduce_range is None else self.reduce_range
        return 7 if reduced else 8

    @cached_property
    def sample(self) -> PoolSample:
        """The images, drawn on first use; see :func:`.pool_sample.draw_sample`."""
        calibration = self.calibration_images if self.precision == "int8" else 0
        return draw_sample(self.pool, self.held_out, calibration)

    def prepare(self) -> None:
        """Draw the images: a pool that is too small raises here, before minutes of export."""
        _ = self.sample

    def run(self, path: Path, manifest: Manifest, trained: TrainedNetwork, log: Log) -> Manifest:
        """Replace the fp32 graph in ``path`` by the reduced one; return the measured manifest.

        Only the finished graph is run on the held-out images.

        Raises:
            FidelityError: the graph does not reach the limits.
            SlowGraphError: it does not reach ``min_speed``.
            ParityError: it does not compute what it should.
            PoolError: too few of the pool's images can be decoded.
        """
        write = {"fp16": self._write_fp16, "int8": self._write_int8}[self.precision]
        needed = COPIES[self.precision] * path.stat().st_size
        with temporary_folder("lloss-export-", needed) as folder:
            fp32, out = folder / "fp32.onnx", folder / "reduced.onnx"
            fp32.write_bytes(path.read_bytes())
            recipe, speed = write(fp32, out, manifest, trained, log)
            reached, predicted = self._judge(fp32, out, manifest, log)
            reduced = out.read_bytes()
        path.write_bytes(reduced)  # on a disk of its own
        measured = {**reached.as_dict(), "pool": self.sample.uri, "provider": PROVIDER}
        return dataclasses.replace(
            manifest,
            precision=self.precision,
            fidelity={**manifest.fidelity, "fp32": measured},
            recipe=recipe,
            speed=speed,
            reference=LossReference.of(predicted.loss, self.sample.uri),
        )

    def _write_fp16(
        self, fp32: Path, out: Path, manifest: Manifest, trained: TrainedNetwork, log: Log
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            graph = trained.graph(half=True)
            # onnxruntime computes float16 in float32 on a CPU and would hide an overflow; torch
            # does not.
            with torch.no_grad():
                outputs = graph.outputs(torch.from_numpy(trained.sample))
            write_onnx(graph, manifest, out)
        except (LlossError, OSError):
            raise
        except Exception as error:  # a network from outside may compute in float32 alone
            raise ParityError(
                f"{trained.where}: the network cannot be computed in float16 ({cause(error)}); "
                "nothing was written. Use --precision fp32 or int8"
            ) from error
        if not all(bool(value.isfinite().all()) for value in outputs.values()):
            raise FidelityError(
                "the network overflows in float16 (numbers beyond 65,504 inside); nothing was "
                "written. Use --precision fp32 or int8"
            )
        check_parity(out, graph, trained.sample)
        if not self.min_speed:
            return {}, {}  # fp16 is for GPUs: a CPU's speed says nothing
        speed = measure_gpu_speed(fp32, out, manifest, trained.sample)
        self._refuse_slow(speed)
        return {}, speed

    def _write_int8(
        self, fp32: Path, out: Path, manifest: Manifest, trained: TrainedNetwork, log: Log
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        # onnxruntime's tools are imported where they are used: an extra installs onnxruntime.
        from lloss.export.int8_search import Int8Search
        from lloss.export.quantize import Int8Quantizer

        bits, images = self.weight_bits, trained.sample
        log(
            f"int8 weights of {bits} bits, for CPUs with {MADE_FOR[bits]}; --no-reduce-range gives "
            "8 bits for VNNI, --reduce-range 7 bits for CPUs without it"
        )
        quantizer = Int8Quantizer(fp32, out.parent)
        if self.min_speed:  # ranges of any images do for it, and the search takes minutes
            quantizer.write(out, quantizer.calibrate([images[:PROBES]]), weight_bits=bits)
            self._refuse_slow(measure_speed(fp32, out, manifest.image, images, bits))
        search = Int8Search(quantizer, self.sample, manifest.image, self.limits, bits, log)
        recipe = search.run(self._reference(fp32, self.sample.tuning, manifest), out)
        check_batches(out, images)
        speed = measure_speed(fp32, out, manifest.image, images, bits)
        self._refuse_slow(speed)
        if speed["times_fp32"] <= 1:
            log(
                f"note: int8 is no faster than fp32 on this CPU ({speed['times_fp32']:.2g}×): "
                "here --precision fp32 is the better model"
            )
        return {**recipe, "instructions": MADE_FOR[bits]}, speed

    def _refuse_slow(self, speed: dict[str, Any]) -> None:
        if speed["times_fp32"] < self.min_speed:
            raise SlowGraphError(
                f"{self.precision} is {speed['times_fp32']:.2f}× as fast as fp32 on "
                f"{speed['cpu']}, below {self.min_speed:g}×; nothing was written. Use --precision "
                "fp32"
            )

    def _judge(
        self, fp32: Path, out: Path, manifest: Manifest, log: Log
    ) -> tuple[Fidelity, Predicted]:
        precision, items = self.precision, self.sample.held_out
        reference = self._reference(fp32, items, manifest)
        predicted = predict(out, batches(items, manifest.image, f"compare {precision}"))
        reached = compare(reference, predicted)
        log(f"{precision} on {reached.images} held-out images: {reached} (computed on {PROVIDER})")
        if self.limits.passes(reached):
            return reached, predicted
        raise FidelityError(
            f"{precision} does not rank images as fp32 does: it reached {reached} on "
            f"{reached.images} held-out images, and the limits are {self.limits}; nothing was "
            f"written. {_REMEDIES[precision]}, or lower --min-spearman and --min-overlap"
        )

    def _reference(self, fp32: Path, items: Sequence[Item], manifest: Manifest) -> Predicted:
        reference = predict(fp32, batches(items, manifest.image, "score by fp32"))
        count = len(reference.ids)
        if count < MIN_HELD_OUT:
            raise PoolError(
                f"{self.sample.uri}: only {count} of {len(items)} images drawn can be decoded, and "
                f"{MIN_HELD_OUT} are needed to judge a precision; see lloss score for the reasons"
            )
        if reference.broken:
            raise FidelityError(
                f"the network itself, in fp32, gives NaN or infinite outputs for "
                f"{reference.broken} of {count} images; nothing was written. Train it again"
            )
        if reference.loss.min() == reference.loss.max():
            raise FidelityError(
                f"the network itself, in fp32, predicts the same loss, {reference.loss[0]:.3g}, "
                f"for all {count} images: nothing can be ranked, and nothing was written. Train "
                "it longer, or use --precision fp32"
            )
        return reference


_REMEDIES = {
    "fp16": "Use --precision fp32",
    "int8": "Give more --calibration-images or a larger --held-out, or --precision fp16 or fp32",
}
