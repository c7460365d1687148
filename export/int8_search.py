"""Choose which layers of an int8 graph stay in fp32, until it is faithful enough.

All layers in int8 come first. Where that falls short, a few layers may not bear 8 bits: each is
measured alone, and one, two, four, … of them stay in fp32, up to half.

Part of a choice's success is luck on the images that it was made on. So it has images of its own,
and the chosen graph is judged on others; and layers stay in fp32 only with a margin above the
thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lloss.export.fidelity import FidelityLimits, Predicted, compare, predict
from lloss.export.pool_sample import PoolSample, batches
from lloss.export.quantize import Int8Quantizer
from onnxruntime.quantization.calibrate import TensorsData
from tqdm import tqdm

from lloss.errors import FidelityError, PoolError
from lloss.images.decode import ImageSpec

MARGIN = 0.5
"""Share of the way from the thresholds to 1."""

_PROBES = 32
_MIN_PROBES = 8
_PROBE_PIXELS = _PROBES * 64 * 64
"""A layer's sensitivity is measured on so many images: enough for an order of layers. Larger images
say more each and cost more, so fewer are run."""


@dataclass(frozen=True)
class Int8Search:
    """Makes int8 graphs of the quantizer's network, and compares them on the tuning images."""

    quantizer: Int8Quantizer
    sample: PoolSample
    spec: ImageSpec
    limits: FidelityLimits
    weight_bits: int = 8
    log: Callable[[str], None] = lambda _: None

    def run(self, reference: Predicted, out: Path) -> dict[str, Any]:
        """Write to ``out`` the first graph that reaches the limits; return its recipe, for JSON.

        ``reference`` are the fp32 graph's predictions on the tuning images.
        """
        ranges, images = self._calibrate()
        layers: Sequence[str] = ()
        counts = _kept_counts(len(self.quantizer.layers))
        for count in counts:
            if count and not layers:
                layers = self._by_sensitivity(ranges, out)
            kept = layers[:count]
            self.quantizer.write(out, ranges, kept, self.weight_bits)
            predicted = predict(out, batches(self.sample.tuning, self.spec, "compare int8"))
            reached = compare(reference, predicted)
            in_fp32 = f", in fp32: {', '.join(kept)}" if kept else ""
            self.log(f"int8, calibrated on {images} images{in_fp32}: {reached}")
            if self.limits.passes(reached, MARGIN if 0 < count < counts[-1] else 0.0):
                return {
                    "calibration": "entropy",
                    "images": images,
                    "weight_bits": self.weight_bits,
                    "kept": list(kept),
                    "tuning": reached.as_dict(),
                }
        raise FidelityError(
            f"int8 does not rank images as fp32 does: with {counts[-1]} of "
            f"{len(self.quantizer.layers)} layers in fp32 it reached {reached} on "
            f"{reached.images} tuning images, and the limits are {self.limits}; nothing was "
            "written. Use --precision fp16 or fp32, or lower --min-spearman and --min-overlap"
        )

    def _calibrate(self) -> tuple[TensorsData, int]:
        """Find the ranges of all tensors, and count the images that could be decoded for it."""
        count = 0

        def counted() -> Iterator[Any]:
            nonlocal count
            for ids, images in batches(self.sample.calibration, self.spec, "calibrate"):
                count += len(ids)
                yield images
            if not count:
                raise PoolError(f"{self.sample.uri}: its images cannot be decoded: see lloss score")

        return self.quantizer.calibrate(counted()), count

    def _by_sensitivity(self, ranges: TensorsData, out: Path) -> list[str]:
        """Sort layers by how far the predicted loss moves when only that layer is quantized.

        The loss's logarithm is compared: of low losses as of high ones the order counts.
        """
        count = _PROBE_PIXELS // (self.spec.height * self.spec.width)
        items = self.sample.calibration[: min(_PROBES, max(_MIN_PROBES, count))]
        probes = list(batches(items, self.spec, "read images"))
        exact = np.log(predict(self.quantizer.prepared, probes).loss)
        layers = self.quantizer.layers
        sensitivity = {}
        for layer in tqdm(layers, "measure layers", disable=None, leave=False):
            others = [name for name in layers if name != layer]
            self.quantizer.write(out, ranges, others, self.weight_bits)
            difference = np.abs(np.log(predict(out, probes).loss) - exact)
            # A layer that breaks the prediction is the first to keep.
            sensitivity[layer] = float(np.nan_to_num(difference, nan=np.inf).mean())
        return sorted(layers, key=lambda layer: -sensitivity[layer])


def _kept_counts(layers: int) -> list[int]:
    """0, 1, 2, 4, … up to half of the layers."""
    return [0, *(1 << power for power in range((layers // 2).bit_length()))]
