"""The speed of one graph beside another: real runs, of which one is known to do more."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from lloss.export import speed as speed_module
from lloss.export.speed import cpu_name, measure_speed
from onnx import TensorProto, helper, numpy_helper

from lloss.images import ImageSpec

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


def test_a_graph_of_a_tenth_of_the_work_is_so_much_faster(tmp_path: Path) -> None:
    heavy, light = products(tmp_path / "heavy.onnx", 400), products(tmp_path / "light.onnx", 40)
    faster = measure_speed(heavy, light, SPEC, IMAGES, seconds=0.6)
    assert 4 < faster.times_fp32 < 14
    slower = measure_speed(light, heavy, SPEC, IMAGES, seconds=0.6)
    assert slower.times_fp32 == pytest.approx(1 / faster.times_fp32, rel=0.5)
    assert slower.images_per_second < faster.images_per_second


def test_batches_are_the_scorers(tmp_path: Path) -> None:
    path = products(tmp_path / "m.onnx", 1)
    assert measure_speed(path, path, SPEC, IMAGES, seconds=0.1).batch == 64
    assert measure_speed(path, path, SPEC, IMAGES, seconds=1e-9).batch == 1, "as time allows"


def test_it_ends_in_time(tmp_path: Path) -> None:
    path = products(tmp_path / "m.onnx", 100)
    started = time.perf_counter()
    measure_speed(path, path, SPEC, IMAGES, seconds=0.3)
    assert time.perf_counter() - started < 2


def test_the_processor_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: Other\n")
    monkeypatch.setattr(speed_module, "_CPUINFO", told)
    assert cpu_name() == "Some CPU @ 2 GHz"
    monkeypatch.setattr(speed_module, "_CPUINFO", tmp_path / "nothing")
    assert cpu_name()
