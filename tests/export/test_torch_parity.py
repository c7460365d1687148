"""The exported file against torch: every difference, at every batch size, and the ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from lloss.export import torch_parity as parity
from lloss.export.export_model import export_onnx
from lloss.export.graph import ScoringGraph
from lloss.export.torch_parity import check_batches, check_parity
from torch import Tensor

from lloss.errors import DivergedError, ParityError
from lloss.training.checkpoint import Checkpoint, load_checkpoint

from .changed_weights import Change, changed_run


@pytest.fixture
def checkpoint(trained: Path) -> Checkpoint:
    return load_checkpoint(trained)


@pytest.fixture
def graph(checkpoint: Checkpoint) -> ScoringGraph:
    settings = checkpoint.settings
    return ScoringGraph(checkpoint.network(), settings.mean, settings.std).eval()


def test_the_measurements(onnx_file: Path, checkpoint: Checkpoint, graph: ScoringGraph) -> None:
    measured = check_parity(onnx_file, graph, checkpoint.sample)["torch_parity"]
    assert measured["batches"] == [1, 2, 3, 64] and measured["spearman"] >= 0.999
    assert max(measured["max_abs_difference"].values()) < 1e-2


def test_a_difference_at_one_batch_size_is_found(
    onnx_file: Path, checkpoint: Checkpoint, graph: ScoringGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ort.InferenceSession

    class WrongForThree:
        def __init__(self, *arguments: object, **options: object) -> None:
            self.inner = real(*arguments, **options)
            self.get_outputs = self.inner.get_outputs

        def run(self, names: object, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            values = self.inner.run(names, feed)
            if len(feed["images"]) == 3:
                values[0] = values[0] * np.e  # scores that are larger by 1
            return values  # type: ignore[no-any-return]

    monkeypatch.setattr(ort, "InferenceSession", WrongForThree)
    with pytest.raises(ParityError, match="output 'loss' by 1 at batch 3"):
        check_parity(onnx_file, graph, checkpoint.sample)
    with pytest.raises(ParityError, match="another 'loss' at batch 3 than at 64"):
        check_batches(onnx_file, checkpoint.sample)


def test_outputs_that_depend_on_the_batch_are_refused(
    onnx_file: Path, checkpoint: Checkpoint, graph: ScoringGraph
) -> None:
    outputs = graph.outputs

    def centered(images: Tensor) -> dict[str, Tensor]:
        values = outputs(images)
        return {**values, "embedding": values["embedding"] - values["embedding"].mean(0)}

    graph.outputs = centered  # type: ignore[method-assign]
    with pytest.raises(ParityError, match="another 'embedding' for an image in a batch of 1 than"):
        check_parity(onnx_file, graph, checkpoint.sample)


def test_nan_is_no_parity(
    onnx_file: Path, checkpoint: Checkpoint, graph: ScoringGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_differences", lambda *_: [("loss", float("nan"), 1.0)])
    with pytest.raises(ParityError):
        check_parity(onnx_file, graph, checkpoint.sample)


def test_other_ranks_within_all_limits_are_refused(
    onnx_file: Path, checkpoint: Checkpoint, graph: ScoringGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predicted losses that are within the allowed difference of each other."""
    outputs = graph.outputs
    graph.outputs = lambda images: {**outputs(images), "loss": 1 / outputs(images)["loss"]}  # type: ignore[method-assign]
    monkeypatch.setattr(parity, "ABSOLUTE", 1e6)
    with pytest.raises(ParityError, match=r"does not rank images as torch does: Spearman -1\.0"):
        check_parity(onnx_file, graph, checkpoint.sample)


def test_ties_and_rounding_do_not_change_ranks() -> None:
    correlation = parity._rank_correlation
    wanted = np.float32([1, 1, 2, 3, 3, 3])
    noise = np.float32([0, 1e-3, -1e-3, 0, 2e-3, -2e-3])
    assert correlation(wanted + noise, wanted) == pytest.approx(1)
    same = np.full(6, 2, np.float32)
    assert correlation(same + noise / 1000, same) is None, "both sides are constant"
    assert correlation(same + np.arange(6, dtype=np.float32), same) == 0
    assert correlation(same, wanted) == 0
    assert correlation(-wanted, wanted) == pytest.approx(-1)
    swapped = np.float32([1, 1, 3, 2, 3, 3])
    assert 0 < correlation(swapped, wanted) < parity.MIN_SPEARMAN  # type: ignore[operator]


def test_exploded_outputs_are_allowed_no_more() -> None:
    values = np.float32([1, -5])
    assert parity._limit(values, 1e-3, 1e-3) == pytest.approx(6e-3)
    assert parity._limit(values * 1e9, 1e-3, 1e-3) == pytest.approx(1.001)


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
