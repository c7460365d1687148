"""The speed of one graph beside another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from lloss.export.speed_check import measure_gpu_speed, measure_speed, speed_without
from onnx import parser

from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest
from lloss.runtime.batch_size import device_batch, host_batch

SPEC = ImageSpec(8, 8)
IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


def products(path: Path, count: int) -> Path:
    """A graph of so many products of a 192×192 matrix."""
    ones = ",".join(["1"] * 192 * 192)
    nodes = " ".join(f"v{n + 1} = MatMul (v{n}, w)" for n in range(count))
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
        products (uint8[N, 8, 8, 3] images) => (float[N, 192] v{count})
        <float[192, 192] w = {{{ones}}}>
        {{ x = Cast <to = 1> (images) v0 = Flatten (x) {nodes} }}""")
    onnx.save(model, str(path))
    return path


def test_a_graph_of_a_tenth_of_the_work_is_faster(tmp_path: Path) -> None:
    heavy, light = products(tmp_path / "heavy.onnx", 400), products(tmp_path / "light.onnx", 40)
    faster = measure_speed(heavy, light, SPEC, IMAGES, seconds=0.5)
    slower = measure_speed(light, heavy, SPEC, IMAGES, seconds=0.5)
    assert faster["times_fp32"] > 1.5 and slower["times_fp32"] < 1 / 1.5
    assert slower["images_per_second"] < faster["images_per_second"]
    assert faster["batch"] == host_batch(SPEC) and faster["cpu"]


def manifest(**outputs: tuple[int, ...]) -> Manifest:
    mean = (0.0, 0.0, 0.0)
    return Manifest(
        task="none", model="none", classes=(), image=SPEC, mean=mean, std=mean, outputs=outputs
    )


def test_on_a_gpu_the_clock_counts(tmp_path: Path) -> None:
    heavy, light = products(tmp_path / "heavy.onnx", 400), products(tmp_path / "light.onnx", 40)
    speed = measure_gpu_speed(heavy, light, manifest(), IMAGES, provider="cpu", seconds=0.5)
    assert speed["times_fp32"] > 1.5 and speed["batch"] == device_batch(SPEC) and speed["cpu"]


def test_an_output_is_measured_by_the_graph_without_it(tmp_path: Path) -> None:
    path = products(tmp_path / "model.onnx", 200)
    model = onnx.load(str(path))
    model.graph.output.append(onnx.helper.make_tensor_value_info("v20", 1, ["N", 192]))
    onnx.save(model, str(path))
    times = speed_without("v200", path, manifest(v20=(192,), v200=(192,)), IMAGES, seconds=0.5)
    assert times > 3
