from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lloss.tasks.classification import ClassificationObjective
from lloss.training import last_layer
from lloss.training.head_stack import scale_of
from lloss.training.head_training import folds_of
from lloss.training.last_layer import DECAYS, fit_linear


def _data(images: int, channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(images) % 3
    centers = torch.randn(3, channels, generator=generator)
    noise = torch.randn(images, channels, generator=generator)
    return centers[targets] + 1.5 * noise + 4, targets


def _of_sklearn(inputs: Tensor, targets: Tensor, scaled_by: Tensor, decay: float) -> np.ndarray:
    """Logits of all images by scikit-learn's solver, of a layer trained on ``inputs``."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    mean, std = scale_of(scaled_by)
    model = linear_model.LogisticRegression(C=1 / (decay * len(inputs)), max_iter=5000, tol=1e-8)
    model.fit(((inputs - mean) / std).numpy(), targets.numpy())
    found: np.ndarray = model.decision_function(((scaled_by - mean) / std).numpy())
    return found


def _probabilities(logits: Tensor) -> np.ndarray:
    found: np.ndarray = logits.softmax(1).numpy()
    return found


@pytest.mark.parametrize(("images", "channels"), [(40, 90), (90, 6)])
def test_the_layer_is_that_of_another_solver(
    images: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, targets = _data(images, channels)
    folds = torch.from_numpy(folds_of(images, 5, 0))
    decays = {}
    for decay in DECAYS:
        monkeypatch.setattr(last_layer, "DECAYS", (decay,))
        fit = fit_linear(ClassificationObjective(["a", "b", "c"]), inputs, targets, 3, folds)
        expected = torch.from_numpy(_of_sklearn(inputs, targets, inputs, decay))
        ours = F.linear(inputs, fit.weight, fit.bias)
        assert np.abs(_probabilities(ours) - _probabilities(expected)).max() < 0.04
        for fold in range(5):
            held = folds == fold
            other = torch.from_numpy(_of_sklearn(inputs[~held], targets[~held], inputs, decay))
            difference = _probabilities(fit.outputs[held]) - _probabilities(other[held])
            assert np.abs(difference).max() < 0.04
        assert torch.allclose(fit.losses, F.cross_entropy(fit.outputs, targets, reduction="none"))
        decays[decay] = float(fit.losses.mean())
    monkeypatch.setattr(last_layer, "DECAYS", DECAYS)
    chosen = fit_linear(ClassificationObjective(["a", "b", "c"]), inputs, targets, 3, folds)
    assert float(chosen.losses.mean()) == pytest.approx(min(decays.values()), abs=0.003)
