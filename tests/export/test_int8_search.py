"""The layers that stay in fp32, on a network that 8 bits really break."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from lloss.export.fidelity import Fidelity, FidelityLimits, compare, predict
from lloss.export.int8_search import Int8Search, _kept_counts
from lloss.export.pool_sample import PoolSample, batches, draw_sample
from lloss.export.quantize import Int8Quantizer

from lloss.errors import FidelityError, PoolError
from lloss.images.decode import ImageSpec
from lloss.pools import Item
from lloss.pools.array_pool import ArrayPool

from .changed_weights import changed_graph

SPEC = ImageSpec(8, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (448, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def outlier(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same function with a channel of 50,000 that the next layer ignores.

    One scale for the whole tensor then leaves nothing of the other channels.
    """
    path = tmp_path_factory.mktemp("outlier") / "fp32.onnx"
    changed_graph(onnx_file, path, "stages.1.0.conv1.weight_bias", 0, 50_000)
    return changed_graph(path, path, "stages.1.0.conv2.weight", np.s_[:, 0], 0)


class Searches:
    """Searches on one quantizer and sample, with the lines that they log."""

    def __init__(self, fp32: Path, scratch: Path) -> None:
        self.sample = draw_sample(ArrayPool(IMAGES, "images.npy"), 200, 48)
        self.reference = predict(fp32, batches(self.sample.tuning, SPEC, "read"))
        self.quantizer = Int8Quantizer(fp32, scratch)
        self.out = scratch / "out.onnx"

    def search(self, limits: FidelityLimits, sample: PoolSample | None = None) -> dict:
        self.lines: list[str] = []
        search = Int8Search(
            self.quantizer, sample or self.sample, SPEC, limits, log=self.lines.append
        )
        return search.run(self.reference, self.out)


@pytest.fixture(scope="module")
def searches(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Searches:
    return Searches(onnx_file, tmp_path_factory.mktemp("search"))


class Scripted(FidelityLimits):
    """Passes by a script: of each attempt, whether it passes, and whether with a margin."""

    script: ClassVar[list[tuple[bool, bool]]] = []

    def passes(self, fidelity: Fidelity, margin: float = 0.0) -> bool:
        return self.script.pop(0)[bool(margin)]

    @classmethod
    def of(cls, *script: tuple[bool, bool]) -> Scripted:
        cls.script[:] = script
        return cls()


def test_all_layers_are_in_int8_where_that_reaches_the_limits(searches: Searches) -> None:
    recipe = searches.search(Scripted.of((True, False)))
    wanted = {"calibration": "entropy", "images": 48, "weight_bits": 8, "kept": []}
    assert recipe == {**wanted, "tuning": recipe["tuning"]}
    (line,) = searches.lines
    assert f"Spearman {recipe['tuning']['spearman']:.5f}" in line
    left = predict(searches.out, batches(searches.sample.tuning, SPEC, "read"))
    assert compare(searches.reference, left).as_dict() == recipe["tuning"], "the file has its graph"


def test_layers_stay_in_fp32_only_with_a_margin(searches: Searches) -> None:
    no, barely, well = (False, False), (True, False), (True, True)
    assert len(searches.search(Scripted.of(no, barely, well))["kept"]) == 2
    kept = searches.search(Scripted.of(no, barely, barely, barely))["kept"]
    assert len(kept) == 4, "the last attempt needs none"


def test_sensitive_layers_are_found_and_kept(outlier: Path, tmp_path: Path) -> None:
    searches = Searches(outlier, tmp_path)
    recipe = searches.search(FidelityLimits(min_spearman=0.98, min_overlap=0.7))
    assert set(recipe["kept"][:2]) == {"stages.1.0.conv1", "stages.1.0.conv2"}
    assert "in fp32: " in searches.lines[-1] and "in fp32" not in searches.lines[0]


@pytest.mark.parametrize(("layers", "counts"), [(1, [0]), (3, [0, 1]), (12, [0, 1, 2, 4])])
def test_at_most_half_of_the_layers_are_kept(layers: int, counts: list[int]) -> None:
    assert _kept_counts(layers) == counts


def test_when_nothing_passes_the_error_says_what_was_reached(searches: Searches) -> None:
    with pytest.raises(FidelityError) as refused:
        searches.search(FidelityLimits(min_spearman=1, min_overlap=1))
    message = str(refused.value)
    assert "with 4 of 12 layers in fp32 it reached Spearman 0.9" in message
    assert "nothing was written" in message and "--precision fp16" in message
    assert "\n" not in message


def test_the_search_reads_no_held_out_image(searches: Searches) -> None:
    def read() -> bytes:
        raise AssertionError("a held-out image was read")

    hidden = [Item(item.id, read) for item in searches.sample.held_out]
    sample = dataclasses.replace(searches.sample, held_out=hidden)
    recipe = searches.search(Scripted.of((True, True)), sample)
    assert recipe["tuning"]["images"] == len(sample.tuning)


def test_undecodable_calibration_images_are_an_error(searches: Searches) -> None:
    broken = [Item(str(row), lambda: b"no image") for row in range(30)]
    with pytest.raises(PoolError, match="pool: its images cannot be decoded"):
        searches.search(FidelityLimits(), PoolSample("pool", [], searches.sample.tuning, broken))
