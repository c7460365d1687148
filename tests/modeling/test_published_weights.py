from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lloss.modeling import published_weights
from lloss.modeling.published_weights import TimmWeights, TorchvisionWeights
from lloss.modeling.weights_cache import WeightsUnavailableError

NAME = "test_resnet.r160_in1k"  # timm's smallest


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm, with a hub that does not answer."""
    package = pytest.importorskip("timm", reason="timm is not installed")

    def silent(url: str) -> None:
        raise TimeoutError("no answer")

    monkeypatch.setattr(published_weights, "answers", silent)
    return package


def test_weights_are_named_as_their_library_names_them() -> None:
    assert TorchvisionWeights("vgg16", "IMAGENET1K_FEATURES").title == (
        "torchvision's VGG16_Weights.IMAGENET1K_FEATURES"
    )
    assert TimmWeights("resnet18").title == "timm's resnet18"


def test_timms_weights_are_those_of_its_network(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = timm.create_model(NAME).state_dict()
    torch.save(theirs, tmp_path / "w.pt")
    create, file = timm.create_model, {"file": str(tmp_path / "w.pt")}
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: create(*a, **k, pretrained_cfg_overlay=file)
    )
    before = torch.get_rng_state()
    state = TimmWeights(NAME).state()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[name], value) for name, value in theirs.items())


def test_a_hub_that_does_not_answer_is_not_waited_for(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    began = time.monotonic()
    with pytest.raises(WeightsUnavailableError) as caught:
        TimmWeights(NAME).fetch()
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 5
    assert constants.HF_HUB_OFFLINE is False
