"""Products of 8-bit integers: the same on every CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from lloss.runtime import int8_support
from lloss.runtime.int8_support import cpuinfo, instructions, keep_exact, saturates


def product(weights: np.ndarray) -> bytes:
    """uint8 [N, k] by int8 weights, as QDQ."""
    scalars = {"s": np.float32(1), "z": np.uint8(0), "ws": np.float32(1), "wz": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    constants = {**scalars, "w": weights.astype(np.int8)}
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def test_products_are_exact_on_this_cpu() -> None:
    weights = np.where(np.arange(8 * 16).reshape(8, 16) % 5 == 0, -127, 127)
    options = ort.SessionOptions()
    keep_exact(options, 8)
    session = ort.InferenceSession(product(weights), options, providers=["CPUExecutionProvider"])
    x = np.full((3, 8), 255, np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weights, rtol=1e-6)
    if saturates():
        assert instructions() not in ("AMX", "AVX-512 VNNI", "AVX-VNNI")


@pytest.mark.parametrize(("bits", "saturating", "slower"), [(8, True, True), (8, False, False),
                                                            (7, True, False)])  # fmt: skip
def test_slower_kernels_run_where_products_saturate(
    bits: int, saturating: bool, slower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8_support, "saturates", lambda: saturating)
    options = ort.SessionOptions()
    keep_exact(options, bits)
    if slower:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="does not have configuration"):
            options.get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize(
    ("text", "saturating", "wanted"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx avx2 avx512f avx512_vnni\n", False, "AVX-512 VNNI"),
        ("flags\t\t: fpu avx avx2 avx_vnni\n", False, "AVX-VNNI"),
        ("flags\t\t: fpu avx avx2 avx512f avx512_vnni\n", True, "AVX-512"),  # an emulator's
        ("Features\t: fp asimd asimddp i8mm\n", False, "ARM I8MM"),
        ("cpu : POWER9\n", False, "some machine"),
        (None, False, "some machine"),  # not Linux
    ],
)
def test_the_instructions_have_a_name(
    text: str | None,
    saturating: bool,
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text + "model name\t: Some CPU @ 2 GHz\n")
    monkeypatch.setattr(int8_support, "CPUINFO", path)
    monkeypatch.setattr(int8_support, "saturates", lambda: saturating)
    monkeypatch.setattr(int8_support.platform, "machine", lambda: "some machine")
    assert instructions() == wanted
    assert cpuinfo("model name") == ("" if text is None else "Some CPU @ 2 GHz")
