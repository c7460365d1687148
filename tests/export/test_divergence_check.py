"""Networks whose training diverged are refused with that reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lloss.export.export_model import export_onnx

from lloss.errors import DivergedError

from .changed_weights import Change, changed_run


def nan(weights: dict[str, torch.Tensor]) -> None:
    weights["network.stages.1.0.conv1.weight"][0, 0] = float("nan")


def overflow(weights: dict[str, torch.Tensor]) -> None:
    weights["network.classifier.weight"].fill_(3e38)


def unsettled(weights: dict[str, torch.Tensor]) -> None:
    for name, value in weights.items():
        if name.endswith("running_var"):
            value.fill_(1e-9)


def loud(weights: dict[str, torch.Tensor]) -> None:
    weights["head.output.weight"] *= 1e7


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (nan, r"diverged: the weights 'network.stages.1.0.conv1.weight' are infinite or NaN"),
        (overflow, r"diverged: the output '\w+' is infinite or NaN for \d+ of 60 training images"),
        (unsettled, r"exploded: '(loss|embedding)' reaches .* above 1e.0\d: .* batch norm needs"),
        (loud, r"exploded: 'loss' reaches .* above 1e\+04: the network diverged"),
    ],
)
@pytest.mark.usefixtures("quick_export")
def test_a_network_that_diverged_is_refused(
    change: Change, wanted: str, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match=wanted) as refused:
        export_onnx(changed_run(trained, change), tmp_path / "model.onnx")
    message = str(refused.value)
    assert "nothing was written. Train again: lower --lr (it is 0.05" in message
    assert "\n" not in message and list(tmp_path.iterdir()) == []
