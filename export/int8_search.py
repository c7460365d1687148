"""Search for an int8 graph that is faithful enough, by recipes in a fixed order.

Ranges from the smallest to the largest value seen come first. Where they fall short, an outlier
may have stretched them: then ranges are cut at a percentile, or where the entropy lost is least.
Where no calibration passes, a few layers may not bear 8 bits: the search measures each alone, and
keeps one, two, four, … of them in fp32, up to half.

Part of a recipe's success is luck on the images that it was chosen on. So the search has images of
its own, and the chosen graph is judged on others; and the search ends early only with a
margin above the thresholds, and else takes the best of all that pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lloss.export.fidelity import Fidelity, FidelityLimits, Predicted, compare, predict
from lloss.export.pool_sample import PoolSample, batches
from lloss.export.quantize import Calibration, Int8Quantizer
from onnxruntime.quantization.calibrate import TensorsData
from tqdm import tqdm

from lloss.errors import FidelityError, PoolError
from lloss.images.decode import ImageSpec

METHODS: tuple[Calibration, ...] = ("min-max", "percentile", "entropy")

MARGIN = 0.5
"""Share of the way from the thresholds to 1 that ends the search early."""

_PROBES = 32
_MIN_PROBES = 8
_PROBE_PIXELS = _PROBES * 64 * 64
"""A layer's sensitivity is measured on so many images: enough for an order of layers. Larger images
say more each and cost more, so fewer are run."""

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an int8 graph was made: from how many images, and which layers are kept in fp32."""

    calibration: Calibration
    images: int
    weight_bits: int = 8
    kept: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON."""
        return {**dataclasses.asdict(self), "kept": list(self.kept)}

    def __str__(self) -> str:
        kept = f", in fp32: {', '.join(self.kept)}" if self.kept else ""
        bits = "" if self.weight_bits == 8 else f", {self.weight_bits}-bit weights"
        return f"{self.calibration} on {self.images} images{bits}{kept}"


@dataclass(frozen=True)
class Attempt:
    """A recipe and its fidelity on the tuning images."""

    recipe: Recipe
    ranges: TensorsData
    reached: Fidelity


@dataclass
class Int8Search:
    """Tries recipes for one network, until one reaches the limits.

    ``reference`` are the fp32 graph's predictions on the sample's tuning images; ``out`` is the
    path of the graph of each attempt, and in the end of the chosen one.
    """

    quantizer: Int8Quantizer
    sample: PoolSample
    spec: ImageSpec
    reference: Predicted
    limits: FidelityLimits
    out: Path
    weight_bits: int = 8
    log: Log = lambda _: None

    def run(self) -> Attempt:
        """Return the first attempt that reaches the limits with a margin, or the best that passes.

        Its graph is in ``out``.
        """
        attempts: list[Attempt] = []
        for recipes in (self._try_calibrations, self._try_fp32_layers):
            for attempt in recipes(attempts):
                attempts.append(attempt)
                self.log(f"int8 by {attempt.recipe}: {attempt.reached}")
                if self.limits.passes(attempt.reached, MARGIN):
                    return attempt
            passing = [attempt for attempt in attempts if self.limits.passes(attempt.reached)]
            if passing:
                chosen = _best(passing)
                self._write(chosen.recipe, chosen.ranges)
                return chosen
        best = _best(attempts)
        raise FidelityError(
            f"int8 does not rank images as fp32 does: the best of {len(attempts)} recipes "
            f"({best.recipe}) reached {best.reached} on {best.reached.images} tuning images, and "
            f"the limits are {self.limits}; nothing was written. Use --precision fp16 or fp32, or "
            "lower --min-spearman and --min-overlap"
        )

    def _try_calibrations(self, _: Sequence[Attempt]) -> Iterator[Attempt]:
        for method in METHODS:
            yield self._calibrate(method)

    def _try_fp32_layers(self, attempts: Sequence[Attempt]) -> Iterator[Attempt]:
        best = _best(attempts)
        layers = self._by_sensitivity(best.ranges)
        count = 1
        while count <= max(1, len(layers) // 2):
            recipe = dataclasses.replace(best.recipe, kept=tuple(layers[:count]))
            yield self._try_recipe(recipe, best.ranges)
            count *= 2

    def _calibrate(self, method: Calibration) -> Attempt:
        items, count = self.sample.calibration, 0

        def counted() -> Iterator[Any]:
            nonlocal count
            for ids, images in batches(items, self.spec, f"calibrate by {method}"):
                count += len(ids)
                yield images

        if next(batches(items[:64], self.spec, "calibrate"), None) is None:
            raise PoolError(f"{self.sample.uri}: its images cannot be decoded: see lloss score")
        ranges = self.quantizer.calibrate(method, counted())
        recipe = Recipe(calibration=method, images=count, weight_bits=self.weight_bits)
        return self._try_recipe(recipe, ranges)

    def _try_recipe(self, recipe: Recipe, ranges: TensorsData) -> Attempt:
        self._write(recipe, ranges)
        predicted = predict(self.out, batches(self.sample.tuning, self.spec, "compare int8"))
        return Attempt(recipe, ranges, compare(self.reference, predicted))

    def _write(self, recipe: Recipe, ranges: TensorsData) -> None:
        self.quantizer.write(self.out, ranges, recipe.kept, recipe.weight_bits)

    def _by_sensitivity(self, ranges: TensorsData) -> list[str]:
        """Sort layers by how far the predicted loss moves when only that layer is quantized."""
        count = _PROBE_PIXELS // (self.spec.height * self.spec.width)
        items = self.sample.calibration[: min(_PROBES, max(_MIN_PROBES, count))]
        probes = list(batches(items, self.spec, "read images"))
        exact = predict(self.quantizer.prepared, probes).loss
        layers = self.quantizer.layers
        sensitivity = {}
        for layer in tqdm(layers, "measure layers", disable=None, leave=False):
            others = [name for name in layers if name != layer]
            self.quantizer.write(self.out, ranges, others, self.weight_bits)
            difference = np.abs(predict(self.out, probes).loss - exact)
            # A layer that breaks the prediction is the first to keep.
            sensitivity[layer] = float(np.nan_to_num(difference, nan=np.inf).mean())
        return sorted(layers, key=lambda layer: -sensitivity[layer])


def _best(attempts: Sequence[Attempt]) -> Attempt:
    """The best attempt; of equals the earliest, which keeps fewest layers."""
    return max(attempts, key=lambda attempt: attempt.reached.rank)
