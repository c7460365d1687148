"""From the fp32 graph to one of reduced precision that ranks images as it does."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lloss.artifact import PRECISIONS, Manifest
from lloss.checkpoint import Checkpoint
from lloss.errors import FidelityError, PoolError, SettingsError
from lloss.pools import Pool

from .fidelity import Fidelity, Gate, Predicted, fidelity, predict
from .graph import ScoringGraph, write_onnx
from .int8 import Int8Quantizer
from .recipes import Search
from .sample import MIN_HELD_OUT, PoolSample, batches, draw_sample
from .verify import check_batches, check_parity

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """A precision below fp32, and how it is judged.

    Attributes:
        precision: ``fp16``: the network in float16. ``int8``: its convolutions and products in
            8-bit integers. Head and outputs are float32 in both.
        pool: images as they will be scored.
        calibration_images: of the pool, to find the ranges of ``int8``.
        held_out: other images of the pool, to compare with fp32 on; at least 200.
        gate: what has to be reached there.
        seed: of the draw of both.
        weight_bits: of ``int8``: 8, or 7 for processors without VNNI, which add up products of
            8 bits in 16 and saturate.

    Raises:
        SettingsError: a number out of its range.
    """

    precision: str
    pool: Pool
    calibration_images: int = 512
    held_out: int = 2000
    gate: Gate = field(default_factory=Gate)
    seed: int = 0
    weight_bits: int = 8

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS[1:]:
            choices = " or ".join(PRECISIONS[1:])
            raise SettingsError(f"a reduction to {self.precision!r}: choose {choices}")
        if self.weight_bits not in (7, 8):
            raise SettingsError(f"weights of {self.weight_bits} bits: give 7 or 8")
        if self.calibration_images < 1:
            raise SettingsError(
                f"--calibration-images {self.calibration_images}: give a positive number"
            )

    def draw(self) -> PoolSample:
        """The images; see :func:`lloss.export.sample.draw_sample`."""
        calibration = self.calibration_images if self.precision == "int8" else 0
        return draw_sample(self.pool, self.held_out, calibration, self.seed)


class Reducer:
    """Makes one artifact of reduced precision.

    Args:
        reduction: which, and how it is judged.
        sample: drawn from its pool.
        checkpoint: what is exported.
        tell: receives a line on each attempt.
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
            reference = self._reference(fp32, manifest)
            make = {"fp16": self._fp16, "int8": self._int8}[self.reduction.precision]
            reached, recipe = make(fp32, out, manifest, reference)
            shutil.copyfile(out, path)
        measured = {**reached.as_dict(), "pool": self.sample.uri}
        return dataclasses.replace(
            manifest,
            precision=self.reduction.precision,
            fidelity={**manifest.fidelity, "fp32": measured},
            recipe=recipe,
        )

    def _reference(self, fp32: Path, manifest: Manifest) -> Predicted:
        shown = batches(self.sample.held_out, manifest.image, "score by fp32")
        reference = predict(fp32, shown)
        asked, found = len(self.sample.held_out), len(reference.ids)
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

    def _fp16(
        self, fp32: Path, out: Path, manifest: Manifest, reference: Predicted
    ) -> tuple[Fidelity, Mapping[str, Any]]:
        settings = self.checkpoint.settings
        network = self.checkpoint.network()
        graph = ScoringGraph(network, settings.mean, settings.std, half=True).eval()
        self._refuse_overflow(graph)
        write_onnx(graph, manifest, out)
        check_parity(out, graph, self.checkpoint.sample)
        shown = batches(self.sample.held_out, manifest.image, "compare fp16")
        reached = fidelity(reference, predict(out, shown))
        self.tell(f"fp16: {reached}")
        if not self.reduction.gate.passes(reached):
            raise FidelityError(
                f"fp16 does not rank images as fp32 does: it reached {reached} on "
                f"{reached.images} held-out images, and {self.reduction.gate} are asked for; "
                "nothing was written. Use --precision fp32, or lower --min-spearman and "
                "--min-overlap"
            )
        return reached, {}

    def _refuse_overflow(self, graph: ScoringGraph) -> None:
        # ONNX Runtime computes float16 in float32 on a CPU and would hide it; torch does not.
        with torch.no_grad():
            outputs = graph.outputs(torch.from_numpy(self.checkpoint.sample))
        if not all(bool(value.isfinite().all()) for value in outputs.values()):
            raise FidelityError(
                "the network overflows in float16 (numbers beyond 65,504 inside): nothing was "
                "written. Use --precision fp32 or int8"
            )

    def _int8(
        self, fp32: Path, out: Path, manifest: Manifest, reference: Predicted
    ) -> tuple[Fidelity, Mapping[str, Any]]:
        quantizer = Int8Quantizer(fp32, out.parent)
        search = Search(
            quantizer,
            self.sample,
            manifest.image,
            reference,
            self.reduction.gate,
            out,
            self.reduction.weight_bits,
            self.tell,
        )
        passed = search.run()
        check_batches(out, self.checkpoint.sample)
        return passed.reached, passed.recipe.as_dict()
