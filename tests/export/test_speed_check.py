"""The speed of one graph beside another: real runs, of which one is known to do more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from lloss.export import speed_check as speed_module
from lloss.export.speed_check import cpu_name, measure_speed
from onnx import TensorProto, helper, numpy_helper

from lloss.images.decode import ImageSpec

SPEC = ImageSpec(8, 8)
IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


def products(path: Path, count: int) -> Path:
    """A graph of so many products of a 192×192 matrix."""
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["x"], ["v0"]),
    ]
    nodes += [helper.make_node("MatMul", [f"v{n}", "w"], [f"v{n + 1}"]) for n in range(count)]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info(f"v{count}", TensorProto.FLOAT, ["N", 192])],
        [numpy_helper.from_array(np.eye(192, dtype=np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), str(path))
    return path


def test_a_graph_of_a_tenth_of_the_work_is_faster(tmp_path: Path) -> None:
    heavy, light = products(tmp_path / "heavy.onnx", 400), products(tmp_path / "light.onnx", 40)
    faster = measure_speed(heavy, light, SPEC, IMAGES, seconds=0.6)
    assert faster.times_fp32 > 1.5
    slower = measure_speed(light, heavy, SPEC, IMAGES, seconds=0.6)
    assert slower.times_fp32 < 1 / 1.5
    assert slower.images_per_second < faster.images_per_second


class Clock:
    """Time that passes by the work alone: so many seconds an image."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now, self.runs = 0.0, []
        self._cost = cost
        monkeypatch.setattr(speed_module, "_cost", self.run)
        monkeypatch.setattr(speed_module.time, "perf_counter", lambda: self.now)

    def run(self, session: object, images: np.ndarray) -> float:
        self.runs.append(len(images))
        self.now += self._cost * len(images)
        return self._cost * len(images)


@pytest.mark.parametrize(("cost", "batch"), [(1e-4, 64), (0.01, 10), (1.0, 1)])
def test_batches_are_the_scorers_or_as_many_as_time_allows(
    cost: float, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = products(tmp_path / "m.onnx", 1)
    clock = Clock(monkeypatch, cost)
    assert measure_speed(path, path, SPEC, IMAGES, seconds=0.65).batch == batch
    assert set(clock.runs) == {1, batch}


def test_it_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = products(tmp_path / "m.onnx", 1)
    clock = Clock(monkeypatch, 1e-3)
    found = measure_speed(path, path, SPEC, IMAGES, seconds=2.0)
    assert clock.now == pytest.approx(2.0, abs=2 * 64e-3)
    assert found.times_fp32 == 1 and found.images_per_second == pytest.approx(1000)


def test_the_processor_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: Other\n")
    monkeypatch.setattr(speed_module, "_CPUINFO", told)
    assert cpu_name() == "Some CPU @ 2 GHz"
    monkeypatch.setattr(speed_module, "_CPUINFO", tmp_path / "nothing")
    assert cpu_name()
