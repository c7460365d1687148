"""Networks whose training diverged are not exported, and told as that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lloss.export import export_model as export_module
from lloss.export import parity as verify
from lloss.export.export_model import export_artifact
from lloss.export.graph import ScoringGraph
from lloss.export.parity import check_parity

from lloss.errors import DivergedError, ParityError
from lloss.training.checkpoint import Checkpoint, load_checkpoint

Change = Callable[[dict[str, torch.Tensor]], None]


def changed(run: Path, change: Change) -> Checkpoint:
    checkpoint = load_checkpoint(run)
    weights = {name: value.clone() for name, value in checkpoint.state["model"].items()}
    change(weights)
    return dataclasses.replace(checkpoint, state={**checkpoint.state, "model": weights})


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
        (unsettled, r"exploded: '(loss|embedding)' reaches .* batch norm's running ones have not"),
        (loud, r"exploded: 'loss' reaches .* above 1e\+04: the network diverged"),
    ],
)
def test_a_network_that_diverged_is_refused_as_that(
    change: Change,
    wanted: str,
    trained: Path,
    ready: Callable[[object, object, Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export_module, "write_onnx", ready)
    with pytest.raises(DivergedError, match=wanted) as refused:
        export_artifact(changed(trained, change), tmp_path / "model.onnx")
    message = str(refused.value)
    assert "nothing was written. Train again: lower --lr (it is 0.05" in message
    assert "\n" not in message and list(tmp_path.iterdir()) == []


def graph_of(checkpoint: Checkpoint) -> ScoringGraph:
    settings = checkpoint.settings
    return ScoringGraph(checkpoint.network(), settings.mean, settings.std).eval()


def test_a_graph_that_ranks_otherwise_within_all_limits_is_refused(
    artifact: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predicted losses that lie within the allowed difference of each other."""
    checkpoint = load_checkpoint(trained)
    graph = graph_of(checkpoint)
    flat = graph.outputs
    graph.outputs = lambda images: {**flat(images), "loss": -flat(images)["loss"]}  # type: ignore[method-assign]
    monkeypatch.setattr(verify, "ABSOLUTE", 1e6)
    with pytest.raises(ParityError, match=r"does not rank images as torch does: Spearman -1\.0"):
        check_parity(artifact, graph, checkpoint.sample)


def test_the_measured_correlation_is_in_the_manifest(artifact: Path, trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    measured = check_parity(artifact, graph_of(checkpoint), checkpoint.sample)
    assert measured["torch_parity"]["spearman"] >= 0.999


def test_ties_and_rounding_are_no_other_ranks() -> None:
    correlation = verify._rank_correlation
    wanted = np.float32([1, 1, 2, 3, 3, 3])
    noise = np.float32([0, 1e-3, -1e-3, 0, 2e-3, -2e-3])
    assert correlation(wanted + noise, wanted) == pytest.approx(1)
    same = np.full(6, 2, np.float32)
    assert correlation(same + noise / 1000, same) is None, "both say the same of all"
    assert correlation(same + np.arange(6, dtype=np.float32), same) == 0
    assert correlation(same, wanted) == 0
    assert correlation(-wanted, wanted) == pytest.approx(-1)
    swapped = np.float32([1, 1, 3, 2, 3, 3])
    assert 0 < correlation(swapped, wanted) < verify.MIN_SPEARMAN  # type: ignore[operator]


def test_the_limit_does_not_grow_with_what_exploded() -> None:
    values = np.float32([1, -5])
    assert verify._limit(values, 1e-3, 1e-3) == pytest.approx(6e-3)
    assert verify._limit(values * 1e9, 1e-3, 1e-3) == pytest.approx(1.001)


def test_a_difference_of_outputs_that_exploded_says_so() -> None:
    assert "Report the model's name" in verify._reason(np.float32([-900, 1]))
    assert "exploded (up to 5e+04)" in verify._reason(np.float32([-5e4, 1]))
