"""The int8 graph: what is in integers, what is not, and where its ranges come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from lloss.export.quantize import Int8Quantizer, layer_names, quantizable
from onnx import TensorProto, helper, numpy_helper, parser

from lloss.errors import ModelFileError

from .changed_weights import changed_graph

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def quantizer(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Int8Quantizer:
    return Int8Quantizer(onnx_file, tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="module")
def ranges(quantizer: Int8Quantizer) -> Any:
    return quantizer.calibrate(np.split(IMAGES, 3))


@pytest.fixture
def written(quantizer: Int8Quantizer, ranges: Any, tmp_path: Path) -> Callable[..., Path]:
    """Write the int8 graph with some options."""

    def write(**options: Any) -> Path:
        quantizer.write(tmp_path / "int8.onnx", ranges, **options)
        return tmp_path / "int8.onnx"

    return write


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def optimised(path: Path, out: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(out)
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(str(out)).graph.node)


def test_layers_are_the_backbones_by_name(quantizer: Int8Quantizer) -> None:
    assert quantizer.layers[0] == "stem.0" and "stages.3.0.conv2" in quantizer.layers
    assert len(quantizer.layers) == 1 + 4 * 2 + 3  # stem, two a block, three shortcuts
    assert not [name for name in quantizer.layers if "head" in name or "classifier" in name]


def test_the_runtime_fuses_all_of_the_backbone(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    found = optimised(written(), tmp_path / "optimised.onnx")
    assert found["QLinearConv"] == 12 and found["QLinearAdd"] == 4
    assert found["Conv"] == 0 and found["FusedConv"] == 0
    assert found["QuantizeLinear"] == 1  # the input
    assert found["DequantizeLinear"] <= 5  # four taps, the classifier's pooling
    assert found["QLinearMatMul"] == found["QGemm"] == 0  # the head


def test_ranges_are_of_every_batch_and_waste_no_side(quantizer: Int8Quantizer, ranges: Any) -> None:
    model = onnx.load(str(quantizer.prepared))
    node = next(n for n in model.graph.node if n.op_type == "Relu")
    (tensor,) = node.output
    model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (values,) = session.run([tensor], {"images": IMAGES})
    low, high = (float(np.ravel(end)[0]) for end in ranges[tensor].range_value)
    assert 0.3 * values.max() < high <= values.max() * 1.01
    assert abs(low) < 0.01 * high, "a ReLU's range starts at 0"


def test_kept_layers_stay_as_they_are(
    quantizer: Int8Quantizer, written: Callable[..., Path]
) -> None:
    weights = weights_of(written(kept=["stem.0"]))
    assert weights["model.network.stem.0.weight"].dtype == np.float32
    quantized = [w for w in weights.values() if w.dtype == np.int8 and w.ndim == 4]
    assert len(quantized) == len(quantizer.layers) - 1


def test_weights_of_7_bits_cannot_saturate_16(written: Callable[..., Path]) -> None:
    weights = weights_of(written(weight_bits=7)).values()
    largest = [int(np.abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8]
    # Two products of uint8 and int8 are added in 16 bits.
    assert largest and max(largest) * 255 * 2 <= 2**15


def graph(nodes: str, weights: str = "") -> onnx.ModelProto:
    return parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 20]>
        g (float[1, 4] x) => (float[1, 4] y) <{weights}> {{ {nodes} }}"""
    )


def test_a_transformers_sums_and_attention_stay_in_floats() -> None:
    model = graph(
        """[project] q = MatMul (x, w1) [attend] a = MatMul (q, q) [out_proj] p = Gemm (a, w2)
        [residual] r = Add (p, x) [mlp] m = MatMul (r, w3) [classifier] y = Gemm (m, w4)""",
        ", ".join(f"float[1, 1] w{k} = {{1}}" for k in (1, 2, 3, 4)),
    )
    assert quantizable(model) == ["project", "out_proj", "mlp"]
    assert list(layer_names(model)) == ["project", "out_proj", "mlp"]


def test_a_sum_with_one_side_in_floats_stays_there() -> None:
    model = graph(
        """[conv] c = Conv (x, w) [relu] r = Relu (c) [swish] h = HardSwish (r)
        [both] s = Add (r, c) [one] y = Add (s, h)""",
        "float[1, 1, 1, 1] w = {1}",
    )
    assert quantizable(model) == ["conv", "relu", "both"]
    assert quantizable(model, excluded=["conv"]) == []


def test_a_network_with_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    onnx.save(graph("y = Relu (x)"), str(tmp_path / "m.onnx"))
    with pytest.raises(ModelFileError, match="no convolution .* --precision fp32 or fp16"):
        Int8Quantizer(tmp_path / "m.onnx", tmp_path)


def test_weights_with_nan_are_refused_in_one_line(onnx_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "nan.onnx"
    changed_graph(onnx_file, path, "stages.1.0.conv2.weight", (0, 0), np.nan)
    quantizer = Int8Quantizer(path, tmp_path)
    with pytest.raises(
        ModelFileError, match="ONNX Runtime cannot quantize .* may contain NaN"
    ) as e:
        quantizer.write(tmp_path / "q.onnx", quantizer.calibrate([IMAGES]))
    assert "\n" not in str(e.value)
