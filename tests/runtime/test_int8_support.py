"""Products of 8-bit integers: the same on every CPU."""

from __future__ import annotations

import numpy as np
from onnx import parser

from lloss.runtime.int8_support import open_cpu_session


def product(weights: np.ndarray) -> bytes:
    """uint8 [N, 8] by int8 weights [8, 16], as QDQ."""
    values = ",".join(map(str, weights.ravel()))
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["": 20]>
        product (float[N, 8] x) => (float[N, 16] y)
        <float s = {{1}}, uint8 z = {{0}}, int8 wz = {{0}}, int8[8, 16] w = {{{values}}}> {{
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            wd = DequantizeLinear (w, s, wz)
            y = MatMul (d, wd)
        }}""")
    return bytes(model.SerializeToString())


def test_products_are_exact_on_this_cpu() -> None:
    weights = np.where(np.arange(8 * 16).reshape(8, 16) % 5 == 0, -127, 127)
    session = open_cpu_session(product(weights))
    x = np.full((3, 8), 255, np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weights, rtol=1e-6)
