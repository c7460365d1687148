"""Runs and graphs with other weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from lloss.training.checkpoint import Checkpoint, load_checkpoint

Change = Callable[[dict[str, torch.Tensor]], None]


def changed_run(run: Path, change: Change) -> Checkpoint:
    checkpoint = load_checkpoint(run)
    weights = {name: value.clone() for name, value in checkpoint.state["model"].items()}
    change(weights)
    return dataclasses.replace(checkpoint, state={**checkpoint.state, "model": weights})


def changed_graph(path: Path, out: Path, name: str, index: object, value: float) -> Path:
    """Set some elements of one weight to a value; write the graph to ``out``."""
    model = onnx.load(str(path))
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith(name))
    values: np.ndarray = numpy_helper.to_array(tensor).copy()
    values[index] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(out))
    return out
