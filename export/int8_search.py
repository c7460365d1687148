"""Which calibration makes an int8 graph faithful enough: tried in a fixed order, until one does.

Ranges from the smallest to the largest value seen come first. Where they fall short, an outlier
may have stretched them (ranges cut at a percentile, or where the entropy lost is least), or too
few images were seen, or a few layers do not bear 8 bits: these are found by measuring each alone,
and kept in fp32, one, two, four, … of them, up to half.

Which of many recipes looks best is partly luck of the images that it is seen on. So the search has
its own, and the gate judges what it chose on others; and the search looks for some room above the
thresholds. Where no calibration has it, the roomiest of those that pass at all is put forward:
layers in fp32 cost the speed that int8 is for, and are tried only when no calibration passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lloss.export.fidelity import ROOM, Fidelity, Gate, Predicted, Spread, fidelity, predict, spread
from lloss.export.pool_sample import PoolSample, batches
from lloss.export.quantize import Calibration, Int8Quantizer
from onnxruntime.quantization.calibrate import TensorsData
from tqdm import tqdm

from lloss.errors import FidelityError, PoolError
from lloss.images.decode import ImageSpec
from lloss.pools import Item

METHODS: tuple[Calibration, ...] = ("min-max", "percentile", "entropy")

PROBES = 32
"""Images on which a layer's sensitivity is measured: enough for an order of layers, and a run of
them for each layer is what it costs."""

MIN_PROBES = 8
PROBE_PIXELS = PROBES * 64 * 64
"""Larger images say more each, and cost more: as few are run as have so many pixels together."""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an int8 graph was made.

    Attributes:
        calibration: how ranges come from the values seen.
        images: that were seen.
        weight_bits: 8, or 7 for processors that add up 8-bit products in 16 bits.
        kept: layers that stay in fp32.
    """

    calibration: Calibration
    images: int
    weight_bits: int = 8
    kept: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return {**dataclasses.asdict(self), "kept": list(self.kept)}

    def __str__(self) -> str:
        kept = f", in fp32: {', '.join(self.kept)}" if self.kept else ""
        bits = "" if self.weight_bits == 8 else f", {self.weight_bits}-bit weights"
        return f"{self.calibration} on {self.images} images{bits}{kept}"


@dataclass(frozen=True)
class Attempt:
    """A recipe and what it reached on the tuning images, give or take a standard error."""

    recipe: Recipe
    ranges: TensorsData
    reached: Fidelity
    spread: Spread

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better; NaN is below all."""
        figures = self.reached
        return (
            np.nan_to_num(figures.spearman, nan=-2.0),
            np.nan_to_num(figures.top_decile_overlap, nan=-2.0),
        )


def probes_of(spec: ImageSpec) -> int:
    """Images to measure a layer's sensitivity on: 32, fewer beyond 64 by 64 pixels, at least 8."""
    return min(PROBES, max(MIN_PROBES, PROBE_PIXELS // (spec.height * spec.width)))


class Search:
    """Tries recipes for one network.

    Args:
        quantizer: of its fp32 graph.
        sample: of a pool.
        spec: the graph's input.
        reference: the fp32 graph's predictions on the tuning images.
        gate: what will have to be reached on other images.
        out: where the graph of each attempt is written; in the end that of the one that passed.
        weight_bits: 8 or 7.
        tell: receives a line on each attempt.
    """

    def __init__(
        self,
        quantizer: Int8Quantizer,
        sample: PoolSample,
        spec: ImageSpec,
        reference: Predicted,
        gate: Gate,
        out: Path,
        weight_bits: int = 8,
        tell: Tell = lambda _: None,
    ) -> None:
        self.quantizer = quantizer
        self.sample = sample
        self.spec = spec
        self.reference = reference
        self.gate = gate
        self.out = out
        self.weight_bits = weight_bits
        self.tell = tell
        self.best: Attempt | None = None
        self.passed: Attempt | None = None

    def run(self) -> Attempt:
        """The first attempt with room above the gate, or the roomiest that passes it.

        Its graph is in ``out``.

        Raises:
            FidelityError: none passes.
            PoolError: none of the calibration images can be decoded.
        """
        count = 0
        widest = 0.0
        for attempt in self._attempts():
            count += 1
            self.tell(f"int8 by {attempt.recipe}: {attempt.reached} ({attempt.spread})")
            if self.gate.passes(attempt.reached):
                room = self.gate.room(attempt.reached, attempt.spread)
                if room >= ROOM:
                    return attempt
                if self.passed is None or room > widest:  # of equals the earlier, which keeps less
                    self.passed, widest = attempt, room
            if self.best is None or attempt.rank > self.best.rank:
                self.best = attempt
        if self.passed is not None:
            self._write(self.passed.recipe, self.passed.ranges)
            return self.passed
        assert self.best is not None, "there is at least one method"
        raise FidelityError(
            f"int8 does not rank images as fp32 does: the best of {count} recipes "
            f"({self.best.recipe}) reached {self.best.reached} on {self.best.reached.images} "
            f"tuning images, and {self.gate} are asked for; nothing was written. "
            "Use --precision fp16 or fp32, or lower --min-spearman and --min-overlap"
        )

    def _attempts(self) -> Iterator[Attempt]:
        for method in METHODS:
            yield self._calibrated(method, self.sample.calibration)
        assert self.best is not None, "these were judged"
        if self.sample.spare:
            more = [*self.sample.calibration, *self.sample.spare]
            yield self._calibrated(self.best.recipe.calibration, more)
        if self.passed is not None:
            return
        ranges, recipe = self.best.ranges, self.best.recipe
        order = self._most_sensitive(ranges)
        count = 1
        while count <= max(1, len(order) // 2):
            kept = dataclasses.replace(recipe, kept=tuple(order[:count]))
            yield self._tried(kept, ranges)
            count *= 2

    def _calibrated(self, method: Calibration, items: Sequence[Item]) -> Attempt:
        count = 0

        def counted() -> Iterator[Any]:
            nonlocal count
            for ids, images in batches(items, self.spec, f"calibrate by {method}"):
                count += len(ids)
                yield images

        if next(batches(items[:64], self.spec, "calibrate"), None) is None:
            raise PoolError(f"{self.sample.uri}: its images cannot be decoded: see lloss score")
        ranges = self.quantizer.calibrate(method, counted())
        recipe = Recipe(calibration=method, images=count, weight_bits=self.weight_bits)
        return self._tried(recipe, ranges)

    def _tried(self, recipe: Recipe, ranges: TensorsData) -> Attempt:
        self._write(recipe, ranges)
        shown = batches(self.sample.tuning, self.spec, "compare int8")
        found, wanted = predict(self.out, shown), self.reference
        return Attempt(recipe, ranges, fidelity(wanted, found), spread(wanted, found))

    def _write(self, recipe: Recipe, ranges: TensorsData) -> None:
        self.quantizer.write(self.out, ranges, recipe.kept, recipe.weight_bits)

    def _most_sensitive(self, ranges: TensorsData) -> list[str]:
        """The layers by how far the predicted loss moves when one alone is quantized."""
        shown = self.sample.calibration[: probes_of(self.spec)]
        probes = list(batches(shown, self.spec, "read images"))
        exact = predict(self.quantizer.prepared, probes).loss
        layers = self.quantizer.layers
        moved = {}
        for layer in tqdm(layers, "measure layers", disable=None, leave=False):
            others = [name for name in layers if name != layer]
            self.quantizer.write(self.out, ranges, others, self.weight_bits)
            difference = np.abs(predict(self.out, probes).loss - exact)
            # A layer that breaks the prediction is the first to keep.
            moved[layer] = float(np.nan_to_num(difference, nan=np.inf).mean())
        return sorted(layers, key=lambda layer: -moved[layer])
