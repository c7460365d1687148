"""The speed of one graph beside another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from lloss.export.speed_check import measure_speed
from onnx import parser

from lloss.images.decode import ImageSpec
from lloss.runtime.batch_size import host_batch

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
