"""The search for a recipe, on a network that 8 bits really break."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from lloss.export.fidelity import Fidelity, FidelityLimits, compare, predict
from lloss.export.int8_search import Int8Search
from lloss.export.pool_sample import PoolSample, batches, draw_sample
from lloss.export.quantize import Int8Quantizer
from onnx import numpy_helper

from lloss.errors import FidelityError, PoolError
from lloss.images.decode import ImageSpec
from lloss.pools import Item
from lloss.pools.array_pool import ArrayPool

SPEC = ImageSpec(8, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (448, 8, 8, 3), np.uint8)
LOOSE = FidelityLimits(min_spearman=0.98, min_overlap=0.7)


@pytest.fixture(scope="module")
def outlier(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function with a channel of 50,000 that the next layer ignores.

    One scale for the whole tensor then leaves nothing of the other channels.
    """
    model = onnx.load(str(artifact))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name == "model.network.stages.1.0.conv1.weight_bias":
            values[0] = 50_000
        elif tensor.name == "model.network.stages.1.0.conv2.weight":
            values[:, 0] = 0
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path_factory.mktemp("outlier") / "fp32.onnx"
    onnx.save(model, str(path))
    return path


class Searches:
    """Searches on one quantizer and sample, with the lines that they log."""

    def __init__(self, fp32: Path, scratch: Path) -> None:
        self.sample = draw_sample(ArrayPool(IMAGES, "images.npy"), 200, 48)
        self.reference = predict(fp32, batches(self.sample.tuning, SPEC, "read"))
        self.quantizer = Int8Quantizer(fp32, scratch)
        self.out = scratch / "out.onnx"

    def __call__(self, limits: FidelityLimits) -> Int8Search:
        self.lines: list[str] = []
        return Int8Search(
            self.quantizer, self.sample, SPEC, self.reference, limits, self.out,
            log=self.lines.append,
        )  # fmt: skip


@pytest.fixture(scope="module")
def searches(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Searches:
    return Searches(artifact, tmp_path_factory.mktemp("search"))


class Scripted(FidelityLimits):
    """Passes by a script: of each attempt, whether it passes and whether with a margin."""

    script: ClassVar[list[tuple[bool, bool]]] = []
    seen: ClassVar[list[Fidelity]] = []

    def passes(self, fidelity: Fidelity, margin: float = 0.0) -> bool:
        if margin:
            self.seen.append(fidelity)
        return self.script[self.seen.index(fidelity)][bool(margin)]

    @classmethod
    def of(cls, *script: tuple[bool, bool]) -> Scripted:
        cls.script[:], cls.seen[:] = script, []
        return cls()


def test_the_first_recipe_with_a_margin_is_taken(searches: Searches) -> None:
    chosen = searches(Scripted.of((True, True))).run()
    assert chosen.recipe.calibration == "min-max" and chosen.recipe.images == 48
    assert chosen.recipe.kept == () and len(searches.lines) == 1
    assert str(chosen.reached) in searches.lines[0]
    chosen = searches(Scripted.of((True, False), (True, True))).run()
    assert chosen.recipe.calibration == "percentile" and len(searches.lines) == 2


def test_without_a_margin_the_best_that_passes_is_taken(searches: Searches) -> None:
    limits = Scripted.of((True, False), (False, False), (True, False))
    chosen = searches(limits).run()
    assert len(searches.lines) == 3, "all calibrations, and no layer kept for a margin alone"
    assert chosen.reached == max((limits.seen[0], limits.seen[2]), key=lambda seen: seen.rank)
    left = predict(searches.out, batches(searches.sample.tuning, SPEC, "read"))
    assert compare(searches.reference, left) == chosen.reached, "the file has its graph"


def test_sensitive_layers_are_found_and_kept(outlier: Path, tmp_path: Path) -> None:
    searches = Searches(outlier, tmp_path)
    chosen = searches(LOOSE).run()
    assert set(chosen.recipe.kept[:2]) == {"stages.1.0.conv1", "stages.1.0.conv2"}
    assert len(chosen.recipe.kept) <= 6
    tried = [line.partition(":")[0] for line in searches.lines]
    methods = ("min-max", "percentile", "entropy")
    assert tried[:3] == [f"int8 by {method} on 48 images" for method in methods]
    assert "in fp32" in tried[3]


def test_when_nothing_passes_the_error_says_what_was_reached(searches: Searches) -> None:
    with pytest.raises(FidelityError) as refused:
        searches(FidelityLimits(min_spearman=1, min_overlap=1)).run()
    message = str(refused.value)
    assert f"the best of {len(searches.lines)} recipes" in message and "Spearman 0.9" in message
    assert "nothing was written" in message and "--precision fp16" in message
    assert "\n" not in message


def test_the_search_reads_no_held_out_image(searches: Searches) -> None:
    def read() -> bytes:
        raise AssertionError("a held-out image was read")

    search = searches(Scripted.of((True, True)))
    hidden = [Item(item.id, read) for item in search.sample.held_out]
    search.sample = dataclasses.replace(search.sample, held_out=hidden)
    assert search.run().reached.images == len(search.sample.tuning)


def test_undecodable_calibration_images_are_an_error(searches: Searches) -> None:
    search = searches(LOOSE)
    broken = [Item(str(row), lambda: b"no image") for row in range(30)]
    search.sample = PoolSample("pool", [], search.sample.tuning, broken)
    with pytest.raises(PoolError, match="pool: its images cannot be decoded"):
        search.run()
