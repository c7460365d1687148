"""A graph with its backbone in 8-bit integers.

Activations become uint8 with one scale a tensor, weights int8 with one scale a channel, written as
QuantizeLinear/DequantizeLinear pairs (QDQ) that ONNX Runtime fuses into its integer kernels. The
head and all outputs stay fp32.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from lloss.export.graph import quiet
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.calibrate import TensorsData, create_calibrator

from lloss.errors import ModelFileError
from lloss.manifest import INPUT

WEIGHTED = ("Conv", "MatMul", "Gemm")
"""Operators that take most of the time."""

FOLLOWING = ("Relu", "Clip", "MaxPool", "Add", "Flatten", "Reshape")
"""Operators that stay in integers between two of those: no float map goes through memory."""


class Int8Quantizer:
    """Makes int8 graphs of one fp32 graph.

    Args:
        fp32: the ONNX file.
        scratch: a folder for temporary files.

    Attributes:
        layers: convolutions and products with constant weights, by name, in the graph's order.

    Raises:
        ModelFileError: there are none; also from the methods, where onnxruntime cannot quantize.
    """

    def __init__(self, fp32: Path, scratch: Path) -> None:
        self.scratch = scratch
        self.prepared = scratch / "prepared.onnx"
        with _quantizing():
            # Folds constants, and batch norms into convolutions. Symbolic shapes are for graphs
            # whose shapes ONNX itself cannot infer; ours have one free size, N.
            quantization.quant_pre_process(str(fp32), str(self.prepared), skip_symbolic_shape=True)
        self._model = onnx.load(str(self.prepared))
        self._names = layer_names(self._model)
        self.layers = tuple(self._names.values())
        if not self.layers:
            raise ModelFileError(
                "the network has no convolution and no product with constant weights to quantize: "
                "export it with --precision fp32 or fp16"
            )

    def calibrate(self, batches: Iterable[NDArray[np.uint8]]) -> TensorsData:
        """Find the range of every tensor that loses the least entropy, which cuts outliers.

        ``batches`` are images, uint8 [B, H, W, 3].
        """
        with _quantizing():
            calibrator = create_calibrator(
                self.prepared,
                [*WEIGHTED, *FOLLOWING],
                augmented_model_path=str(self.scratch / "augmented.onnx"),
                calibrate_method=quantization.CalibrationMethod.Entropy,
            )
        for images in batches:
            # One reader for all batches would hold the activations of all images.
            with _quantizing():
                calibrator.collect_data(_OneBatch(images))
        with _quantizing():
            return calibrator.compute_data()

    def write(
        self,
        path: Path,
        ranges: TensorsData,
        kept: Collection[str] = (),
        weight_bits: int = 8,
    ) -> None:
        """Write a graph with all ``layers`` but the ``kept`` ones quantized."""
        model = onnx.load(str(self.prepared))
        excluded = {node for node, layer in self._names.items() if layer in kept}
        with _quantizing():
            quantizer = quantization.QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=weight_bits == 7,
                weight_qType=quantization.QuantType.QInt8,
                activation_qType=quantization.QuantType.QUInt8,
                tensors_range=ranges,
                nodes_to_quantize=quantizable(model, excluded),
                nodes_to_exclude=[],
                op_types_to_quantize=[*WEIGHTED, *FOLLOWING],
                extra_options={
                    # Products are followed by floats (bias, norm, GELU): rounding gains nothing.
                    "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"],
                    "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
                },
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()  # new nodes come last; ONNX wants them before use
        onnx.save(quantizer.model.model, str(path))


def layer_names(model: onnx.ModelProto) -> dict[str, str]:
    """Layer names by node name, of all nodes with constant weights that are worth quantizing.

    Products without a convolution or a product on maps behind them are the head and the
    classifier: a thousandth of the work, and the ranks depend on them. A layer has the name of its
    weights where the exporter kept it, else that of its node.
    """
    constant = {tensor.name for tensor in model.graph.initializer}
    upstream: set[str] = set()  # tensors that reach a convolution or a product on maps
    names = {}
    for node in reversed(model.graph.node):
        weighted = node.op_type in WEIGHTED and node.input[1] in constant
        reaches_maps = not upstream.isdisjoint(node.output)
        on_maps = node.op_type in ("Conv", "MatMul")
        if on_maps or reaches_maps:
            upstream.update(node.input)
        in_head = weighted and node.input[1].startswith("model.head.")
        if weighted and not in_head and (on_maps or reaches_maps):
            names[node.name] = _layer(node)
    return dict(reversed(names.items()))


def _layer(node: onnx.NodeProto) -> str:
    weight = str(node.input[1])
    if not weight.startswith("model.network."):
        return str(node.name)
    return weight.removeprefix("model.network.").removesuffix(".weight")


def quantizable(model: onnx.ModelProto, excluded: Collection[str] = ()) -> list[str]:
    """Names of the nodes to quantize: weighted ones, and those that pass on integers.

    Nodes on floats stay, such as the residual sums of a transformer.
    """
    weighted = layer_names(model).keys() - set(excluded)
    integers: set[str] = set()
    chosen = []
    for node in model.graph.node:
        # Both sides of a sum must be integers; a shape or a limit need not be.
        inputs = node.input if node.op_type == "Add" else node.input[:1]
        passes_on = node.op_type in FOLLOWING and integers.issuperset(inputs)
        if node.name in weighted or passes_on:
            chosen.append(node.name)
        if (node.name in weighted and node.op_type == "Conv") or passes_on:
            integers.update(node.output)
    return chosen


class _OneBatch(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped base
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.feeds = iter([{INPUT: images}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


@contextlib.contextmanager
def _quantizing() -> Iterator[None]:
    """Run onnxruntime's tools silently."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), quiet("root"):
            yield
    except OSError:  # such as a full disk
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise ModelFileError(
            f"ONNX Runtime cannot quantize the network ({type(error).__name__}: {reason}): "
            "weights or activations may contain NaN or infinity; use --precision fp32 or fp16"
        ) from error
