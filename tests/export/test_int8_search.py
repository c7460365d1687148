"""The search for a recipe, on a network that 8 bits break by real means."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from lloss.export.fidelity import Fidelity, Gate, Spread, fidelity, predict
from lloss.export.int8_search import Search, probes_of
from lloss.export.pool_sample import PoolSample, batches, draw_sample
from lloss.export.quantize import Int8Quantizer
from onnx import numpy_helper

from lloss.errors import FidelityError, PoolError
from lloss.images.decode import ImageSpec
from lloss.manifest import read_manifest
from lloss.pools import Item
from lloss.pools.arrays import ArrayPool

SPEC = ImageSpec(8, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (496, 8, 8, 3), np.uint8)
LOOSE = Gate(min_spearman=0.99, min_overlap=0.85)


def outlier_channel(artifact: Path, path: Path) -> None:
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
    onnx.save(model, str(path))


def search(
    fp32: Path, tmp_path: Path, gate: Gate, told: list[str], calibration: int = 48
) -> Search:
    sample = draw_sample(ArrayPool(IMAGES, "images.npy"), 200, calibration)
    reference = predict(fp32, batches(sample.tuning, SPEC, "read"))
    quantizer = Int8Quantizer(fp32, tmp_path)
    return Search(quantizer, sample, SPEC, reference, gate, tmp_path / "out.onnx", tell=told.append)


def test_the_search_sees_no_held_out_image(artifact: Path, tmp_path: Path) -> None:
    sought = search(artifact, tmp_path, LOOSE, [])

    def looked() -> bytes:
        raise AssertionError("a held-out image was read")

    hidden = [Item(item.id, looked) for item in sought.sample.held_out]
    sought.sample = dataclasses.replace(sought.sample, held_out=hidden)
    assert sought.run().reached.images == len(sought.sample.tuning)


class _Roomy(Gate):
    """All that passes has so little room; in order, one number an attempt."""

    rooms: ClassVar[list[float]] = []

    def room(self, fidelity: Fidelity, spread: Spread) -> float:
        return self.rooms.pop(0)


def test_without_room_it_goes_on_and_the_roomiest_is_taken(artifact: Path, tmp_path: Path) -> None:
    told: list[str] = []
    gate = _Roomy(min_spearman=0, min_overlap=0)
    gate.rooms[:] = [0.2, 0.6, 0.6, 0.1]
    sought = search(artifact, tmp_path, gate, told)
    passed = sought.run()
    assert len(told) == 4, "all calibrations, and no layer kept for room alone"
    assert passed.recipe.calibration == "percentile" and passed.recipe.kept == ()
    left = predict(sought.out, batches(sought.sample.tuning, SPEC, "read"))
    assert fidelity(sought.reference, left) == passed.reached, "its graph is the one in place"


def test_room_ends_the_search(artifact: Path, tmp_path: Path) -> None:
    told: list[str] = []
    gate = _Roomy(min_spearman=0, min_overlap=0)
    gate.rooms[:] = [0.9, 1.0]
    assert search(artifact, tmp_path, gate, told).run().recipe.calibration == "percentile"
    assert len(told) == 2


def test_the_first_recipe_that_passes_is_taken(artifact: Path, tmp_path: Path) -> None:
    told: list[str] = []
    gate = _Roomy(min_spearman=0, min_overlap=0)
    gate.rooms[:] = [1.0]
    passed = search(artifact, tmp_path, gate, told).run()
    assert passed.recipe.calibration == "min-max" and passed.recipe.images == 48
    assert passed.recipe.kept == () and len(told) == 1
    assert str(passed.reached) in told[0]


def test_layers_that_do_not_bear_8_bits_are_found_and_kept(artifact: Path, tmp_path: Path) -> None:
    outlier_channel(artifact, tmp_path / "fp32.onnx")
    told: list[str] = []
    passed = search(tmp_path / "fp32.onnx", tmp_path, LOOSE, told).run()
    assert set(passed.recipe.kept[:2]) == {"stages.1.0.conv1", "stages.1.0.conv2"}
    assert len(passed.recipe.kept) <= 6
    tried = [line.partition(":")[0] for line in told]
    assert tried[:4] == [
        "int8 by min-max on 48 images",
        "int8 by percentile on 48 images",
        "int8 by entropy on 48 images",
        tried[3],
    ]
    assert tried[3].endswith("on 96 images")
    assert "in fp32" in tried[4]


def test_when_nothing_helps_it_says_what_was_reached(artifact: Path, tmp_path: Path) -> None:
    told: list[str] = []
    impossible = Gate(min_spearman=1, min_overlap=1)
    with pytest.raises(FidelityError) as refused:
        search(artifact, tmp_path, impossible, told).run()
    message = str(refused.value)
    assert f"the best of {len(told)} recipes" in message and "Spearman 0.9" in message
    assert "nothing was written" in message and "--precision fp16" in message
    assert "\n" not in message


def test_undecodable_calibration_images_are_an_error(artifact: Path, tmp_path: Path) -> None:
    sought = search(artifact, tmp_path, LOOSE, [])
    broken = [Item(str(row), lambda: b"no image") for row in range(30)]
    sought.sample = PoolSample("pool", [], sought.sample.tuning, broken)
    with pytest.raises(PoolError, match="pool: its images cannot be decoded"):
        sought.run()


def test_layers_are_measured_on_fewer_of_large_images() -> None:
    found = [probes_of(ImageSpec(side, side)) for side in (8, 64, 96, 128, 224)]
    assert found == [32, 32, 14, 8, 8]


def test_the_reference_is_the_artifacts_own(artifact: Path) -> None:
    assert read_manifest(artifact).image == SPEC
