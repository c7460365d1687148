"""From the fp32 graph to one of reduced precision that ranks images as it does."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lloss.export.fidelity import PROVIDER, Fidelity, Gate, Predicted, fidelity, predict
from lloss.export.graph import ScoringGraph, write_onnx
from lloss.export.int8_search import Search
from lloss.export.parity import check_batches, check_parity
from lloss.export.pool_sample import MIN_HELD_OUT, PoolSample, batches, draw_sample
from lloss.export.quantize import Int8Quantizer
from lloss.export.speed_check import measure_speed

from lloss.errors import FidelityError, PoolError, SettingsError
from lloss.manifest import PRECISIONS, Manifest
from lloss.pools import Item, Pool
from lloss.runtime.int8_support import MADE_FOR, instructions, saturates
from lloss.statistics.loss_distribution import LossReference
from lloss.training.checkpoint import Checkpoint

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """A precision below fp32, and how it is judged.

    Attributes:
        precision: ``fp16``: the network in float16. ``int8``: its convolutions and products in
            8-bit integers. Head and outputs are float32 in both.
        pool: images as they will be scored.
        calibration_images: of the pool, to find the ranges of ``int8``.
        held_out: other images of the pool, to compare with fp32 on in the end; at least 200.
            For ``int8`` as many again choose between recipes.
        gate: what has to be reached there.
        seed: of the draw of all.
        weight_bits: of ``int8``: 8, or 7 for processors without VNNI, which compute products of
            8 bits slowly or wrongly (:mod:`lloss.runtime.int8_support`); 0: as this machine's CPU
            needs them.

    Raises:
        SettingsError: a number out of its range.
    """

    precision: str
    pool: Pool
    calibration_images: int = 512
    held_out: int = 2000
    gate: Gate = field(default_factory=Gate)
    seed: int = 0
    weight_bits: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[1:]:
            choices = " or ".join(PRECISIONS[1:])
            raise SettingsError(f"a reduction to {self.precision!r}: choose {choices}")
        if self.weight_bits not in (0, 7, 8):
            raise SettingsError(f"weights of {self.weight_bits} bits: give 7 or 8")
        if self.calibration_images < 1:
            raise SettingsError(
                f"--calibration-images {self.calibration_images}: give a positive number"
            )

    @property
    def bits(self) -> int:
        """Of the weights: those asked for, or those for this machine's CPU."""
        return self.weight_bits or (7 if saturates() else 8)

    def draw(self) -> PoolSample:
        """The images; see :func:`lloss.export.pool_sample.draw_sample`."""
        calibration = self.calibration_images if self.precision == "int8" else 0
        return draw_sample(self.pool, self.held_out, calibration, self.seed)


@dataclass(frozen=True, slots=True)
class Chosen:
    """How a graph came about, before it is judged.

    Attributes:
        how: for the reader of an error; empty where there was nothing to choose.
        remedy: what to do when it is refused.
        recipe: for the manifest.
    """

    how: str
    remedy: str
    recipe: Mapping[str, Any] = field(default_factory=dict)


class Reducer:
    """Makes one artifact of reduced precision.

    Args:
        reduction: which, and how it is judged.
        sample: drawn from its pool.
        checkpoint: what is exported.
        tell: receives a line on each attempt, and one on the judgement.
    """

    def __init__(
        self, reduction: Reduction, sample: PoolSample, checkpoint: Checkpoint, tell: Tell
    ) -> None:
        self.reduction = reduction
        self.sample = sample
        self.checkpoint = checkpoint
        self.tell = tell

    def run(self, path: Path, manifest: Manifest) -> Manifest:
        """Put the reduced graph in the place of the fp32 graph in ``path``.

        The held-out images are looked at once, when the graph is finished.

        Returns:
            The manifest with what was measured.

        Raises:
            FidelityError: the graph does not reach the thresholds.
            ParityError: it does not compute what it should.
            PoolError: too few of the pool's images can be decoded.
        """
        with tempfile.TemporaryDirectory(prefix="lloss-export-") as folder:
            scratch = Path(folder)
            fp32, out = scratch / "fp32.onnx", scratch / "reduced.onnx"
            shutil.copyfile(path, fp32)
            make = {"fp16": self._fp16, "int8": self._int8}[self.reduction.precision]
            chosen = make(fp32, out, manifest)
            reached, predicted = self._judged(fp32, out, manifest, chosen)
            speed = self._speed(fp32, out, manifest)
            shutil.copyfile(out, path)
        measured = {**reached.as_dict(), "pool": self.sample.uri, "provider": PROVIDER}
        return dataclasses.replace(
            manifest,
            precision=self.reduction.precision,
            fidelity={**manifest.fidelity, "fp32": measured},
            recipe=chosen.recipe,
            speed=speed,
            reference=LossReference.of(predicted.loss, self.sample.uri),
        )

    def _judged(
        self, fp32: Path, out: Path, manifest: Manifest, chosen: Chosen
    ) -> tuple[Fidelity, Predicted]:
        precision, items = self.reduction.precision, self.sample.held_out
        reference = self._reference(fp32, items, manifest)
        shown = batches(items, manifest.image, f"compare {precision}")
        predicted = predict(out, shown)
        reached = fidelity(reference, predicted)
        self.tell(
            f"{precision} on {reached.images} held-out images: {reached} (computed on {PROVIDER})"
        )
        if self.reduction.gate.passes(reached):
            return reached, predicted
        raise FidelityError(
            f"{precision} does not rank images as fp32 does: {chosen.how}it reached {reached} on "
            f"{reached.images} held-out images, and {self.reduction.gate} are asked for; "
            f"nothing was written. {chosen.remedy}, or lower --min-spearman and --min-overlap"
        )

    def _reference(self, fp32: Path, items: Sequence[Item], manifest: Manifest) -> Predicted:
        reference = predict(fp32, batches(items, manifest.image, "score by fp32"))
        asked, found = len(items), len(reference.ids)
        if found < MIN_HELD_OUT:
            raise PoolError(
                f"{self.sample.uri}: only {found} of {asked} images drawn can be decoded, and "
                f"{MIN_HELD_OUT} are needed to judge a precision; see lloss score for the reasons"
            )
        if reference.broken:
            raise FidelityError(
                f"the network itself, in fp32, gives NaN or infinite outputs for "
                f"{reference.broken} of {found} images; nothing was written. Train it again"
            )
        return reference

    def _fp16(self, fp32: Path, out: Path, manifest: Manifest) -> Chosen:
        settings = self.checkpoint.settings
        network = self.checkpoint.network()
        graph = ScoringGraph(network, settings.mean, settings.std, half=True).eval()
        self._refuse_overflow(graph)
        write_onnx(graph, manifest, out)
        check_parity(out, graph, self.checkpoint.sample)
        return Chosen("", "Use --precision fp32")

    def _refuse_overflow(self, graph: ScoringGraph) -> None:
        # ONNX Runtime computes float16 in float32 on a CPU and would hide it; torch does not.
        with torch.no_grad():
            outputs = graph.outputs(torch.from_numpy(self.checkpoint.sample))
        if not all(bool(value.isfinite().all()) for value in outputs.values()):
            raise FidelityError(
                "the network overflows in float16 (numbers beyond 65,504 inside): nothing was "
                "written. Use --precision fp32 or int8"
            )

    def _int8(self, fp32: Path, out: Path, manifest: Manifest) -> Chosen:
        bits = self.reduction.bits
        self.tell(_assumed(bits, self.reduction.weight_bits == 0))
        quantizer = Int8Quantizer(fp32, out.parent)
        search = Search(
            quantizer,
            self.sample,
            manifest.image,
            self._reference(fp32, self.sample.tuning, manifest),
            self.reduction.gate,
            out,
            bits,
            self.tell,
        )
        passed = search.run()
        check_batches(out, self.checkpoint.sample)
        seen = passed.reached
        return Chosen(
            f"the recipe chosen ({passed.recipe}) reached {seen} on {seen.images} tuning images, "
            "but ",
            "Give more --calibration-images or a larger --held-out, or --precision fp16 or fp32",
            {
                **passed.recipe.as_dict(),
                "instructions": MADE_FOR[bits],
                "tuning": seen.as_dict(),
            },
        )

    def _speed(self, fp32: Path, out: Path, manifest: Manifest) -> Mapping[str, Any]:
        if self.reduction.precision != "int8":
            return {}  # fp16 is for GPUs, of which a CPU says nothing
        speed = measure_speed(
            fp32, out, manifest.image, self.checkpoint.sample, self.reduction.bits
        )
        if speed.times_fp32 <= 1:
            self.tell(
                f"note: int8 is no faster than fp32 on this CPU ({speed.times_fp32:.2g}×): "
                "here --precision fp32 is the better artifact"
            )
        return dataclasses.asdict(speed)


def _assumed(bits: int, chosen: bool) -> str:
    """The line on which CPUs the int8 graph is for."""
    has = f"this CPU has {instructions()}{', no VNNI' if saturates() else ''}"
    if bits == 7:
        other = "--no-reduce-range for those with VNNI" if chosen else "as --reduce-range asks"
        return f"int8 weights of 7 bits, for CPUs without VNNI ({has}; {other})"
    other = "--reduce-range for those without" if chosen else "as --no-reduce-range asks"
    return f"int8 weights of 8 bits, for CPUs with VNNI ({has}; {other})"
