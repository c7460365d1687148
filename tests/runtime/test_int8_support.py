"""Products of 8-bit integers: the same on every CPU, by the kernels that are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from lloss.serve.scoring.engine import session as engine_module
from lloss.serve.scoring.engine.cpu_executor import host_options
from lloss.serve.scoring.engine.session import Engine, _host_note
from onnx import TensorProto, helper, numpy_helper

from lloss.images.decode import ImageSpec
from lloss.manifest import Manifest
from lloss.runtime import int8_support as integers
from lloss.runtime.int8_support import instructions, keep_exact, saturates


def product(k: int = 8) -> bytes:
    """uint8 [N, k] by int8 weights of both signs, as QDQ."""
    scalars = {"s": np.float32(1), "z": np.uint8(0), "ws": np.float32(1), "wz": np.int8(0)}
    weights = np.where(np.arange(k * 16).reshape(k, 16) % 5 == 0, -127, 127).astype(np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        helper.make_node("MatMul", ["d", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in {**scalars, "w": weights}.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def test_products_are_exact_on_this_cpu_whichever_it_is() -> None:
    options = ort.SessionOptions()
    keep_exact(options, 8)
    session = ort.InferenceSession(product(), options, providers=["CPUExecutionProvider"])
    x = np.full((3, 8), 255, np.float32)
    weights = np.where(np.arange(8 * 16).reshape(8, 16) % 5 == 0, -127, 127)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weights, rtol=1e-6)


@pytest.mark.parametrize(("bits", "lacking", "slower"), [(8, True, True), (8, False, False),
                                                         (7, True, False)])  # fmt: skip
def test_the_slower_kernels_are_taken_where_products_saturate(
    bits: int, lacking: bool, slower: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integers, "saturates", lambda: lacking)
    options = ort.SessionOptions()
    keep_exact(options, bits)
    if slower:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError, match="does not have configuration"):
            options.get_session_config_entry("session.x64quantprecision")


def test_a_cpu_that_says_it_sums_exactly_does(tmp_path: Path) -> None:
    assert saturates() in (True, False)
    if saturates():
        assert instructions() not in ("AMX", "AVX-512 VNNI", "AVX-VNNI")


@pytest.mark.parametrize(
    ("text", "lacking", "wanted"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx avx2 avx512f avx512_vnni\n", False, "AVX-512 VNNI"),
        ("flags\t\t: fpu avx avx2 avx_vnni\n", False, "AVX-VNNI"),
        ("flags\t\t: fpu avx avx2\n", True, "AVX2"),
        ("flags\t\t: fpu avx avx2 avx512f\n", True, "AVX-512"),
        ("flags\t\t: fpu avx avx2 avx512f avx512_vnni\n", True, "AVX-512"),  # an emulator's
        ("Features\t: fp asimd asimddp\n", False, "ARM dot product"),
        ("Features\t: fp asimd asimddp i8mm\n", False, "ARM I8MM"),
        ("cpu : POWER9\n", False, "some machine"),
        (None, False, "some machine"),  # not Linux
    ],
)
def test_the_instructions_have_a_name(
    text: str | None,
    lacking: bool,
    wanted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(integers, "_PROCESSOR", path)
    monkeypatch.setattr(integers, "saturates", lambda: lacking)
    monkeypatch.setattr(integers.platform, "machine", lambda: "some machine")
    assert instructions() == wanted


def manifest(precision: str, recipe: dict[str, object]) -> Manifest:
    return Manifest(
        task="classification", model="m", classes=("a", "b"), image=ImageSpec(8, 8),
        mean=(0, 0, 0), std=(1, 1, 1), outputs={"loss": ()}, precision=precision, recipe=recipe,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "recipe", "lacking", "warned"),
    [
        ("int8", {"weight_bits": 8}, True, True),
        ("int8", {}, True, True),  # nothing is known of it
        ("int8", {"weight_bits": 7}, True, False),
        ("int8", {"weight_bits": 8}, False, False),
        ("fp32", {}, True, False),
    ],
)
def test_an_artifact_that_meets_a_lesser_cpu_says_so(
    precision: str,
    recipe: dict[str, object],
    lacking: bool,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "saturates", lambda: lacking)
    monkeypatch.setattr(integers, "saturates", lambda: lacking)
    found = _host_note(manifest(precision, recipe))
    assert ("made for CPUs with VNNI" in found and "--reduce-range" in found) is warned
    assert (found == "") is not warned
    slower = "session.x64quantprecision"
    options = host_options(manifest(precision, recipe))
    if warned:
        assert options.get_session_config_entry(slower) == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(slower)


def test_an_engine_on_the_cpu_has_that_note(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_host_note", lambda _: "a note on the CPU")
    assert Engine(artifact, "cpu").note == "a note on the CPU"
