"""What networks of each task start from: published weights, and state dicts of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, mobilenet_v3_large, resnet18

from lloss.errors import SettingsError
from lloss.modeling import published_weights
from lloss.modeling.network import TappedNetwork
from lloss.modeling.weights_cache import WeightsUnavailableError
from lloss.tasks import get_task
from lloss.tasks.presets import resolve_settings

NARROW = "resnet10-cifar-narrow"
LITE = "ssdlite320_mobilenet_v3_large"
DEEPLAB = "deeplabv3_mobilenet_v3_large"


def _network(weights: str, classes: int = 3, **changes: Any) -> TappedNetwork:
    settings = resolve_settings("default", weights=weights, **{"size": 32, **changes})
    return get_task(settings.task).network(settings, [str(number) for number in range(classes)])


@pytest.fixture
def urls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is downloaded."""
    found: list[str] = []
    monkeypatch.setattr(published_weights, "cached", found.append)
    return found


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, urls: list[str]) -> Any:
    """Serve a state dict as every published one."""

    def serve(network: nn.Module) -> dict[str, Tensor]:
        state = network.state_dict()
        monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *a, **k: state)
        return state

    return serve


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> Path:
        raise WeightsUnavailableError(f"{url.rpartition('/')[2]} cannot be downloaded: no route")

    monkeypatch.setattr(published_weights, "cached", fail)


def _fresh(network: TappedNetwork) -> set[str]:
    assert network.start is not None
    return network.network.state_dict().keys() - network.start.taken


def test_a_last_layer_for_other_classes_starts_new_and_nothing_else(tmp_path: Path) -> None:
    saved = _network("none", model=NARROW).network.state_dict()
    torch.save(saved, tmp_path / "w.pt")
    five = _network(str(tmp_path / "w.pt"), 5, model=NARROW)
    loaded = five.network.state_dict()
    assert loaded["classifier.weight"].shape[0] == 5
    body = {key for key in saved if not key.startswith("classifier")}
    assert all(torch.equal(loaded[key], saved[key]) for key in body)
    assert _fresh(five) == saved.keys() - body
    assert five.start is not None and five.start.line.endswith("; fresh: classifier")
    same = _network(str(tmp_path / "w.pt"), model=NARROW)
    assert all(torch.equal(v, saved[key]) for key, v in same.network.state_dict().items())
    assert same.start is not None and same.start.line.endswith("must be, in order: 0, 1, 2")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    grey = _network("none", model=NARROW).network.state_dict()
    grey["stem.0.weight"] = grey["stem.0.weight"][:, :1]  # only the last layer may start fresh
    torch.save(grey, tmp_path / "grey.pt")
    for options, message in (
        ({"model": NARROW}, r"grey\.pt: do not fit resnet10.*stem\.0"),
        ({"task": "detection"}, "do not fit ssdlite320"),
        ({"task": "segmentation"}, "do not fit deeplabv3"),
    ):
        with pytest.raises(SettingsError, match=message):
            _network(str(tmp_path / "grey.pt"), **{"size": 64, **options})
    with pytest.raises(SettingsError, match=f"there are none of {NARROW}; use --weights none"):
        _network("imagenet", model=NARROW)


def test_imagenet_weights_are_torchvisions_with_a_fresh_last_layer(
    serve: Any, urls: list[str]
) -> None:
    theirs = serve(resnet18())
    for classes in (3, 1000):  # of which a thousand are not ImageNet's either
        network = _network("imagenet", classes, model="resnet18")
        ours = network.network.state_dict()
        differing = {key for key in ours if not torch.equal(ours[key], theirs.get(key))}
        assert differing == _fresh(network) == {"fc.weight", "fc.bias"}
    assert all(url.endswith("resnet18-f37072fd.pth") for url in urls)


def test_coco_weights_are_torchvisions_with_fresh_class_layers(serve: Any) -> None:
    theirs = serve(get_model(LITE, weights_backbone=None, num_classes=91))
    network = _network("coco", task="detection", size=64)
    ours = network.network.state_dict()
    class_layers = set(get_task("detection").class_layers(list(ours)))
    assert _fresh(network) == class_layers
    assert all(
        torch.equal(value, theirs[key.removeprefix("ssd.")])
        for key, value in ours.items()
        if key not in class_layers
    )
    theirs = serve(get_model(DEEPLAB, weights_backbone=None, num_classes=21, aux_loss=True))
    network = _network("coco", task="segmentation", size=64)
    assert _fresh(network) == {f"network.classifier.4.{name}" for name in ("weight", "bias")}
    assert network.start is not None and "are of no layer here" in network.start.line


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_imagenet_weights_go_into_the_backbone_and_change_no_shape(task: str, serve: Any) -> None:
    """A checkpoint is rebuilt without them, so the network must be the same."""
    theirs = serve(mobilenet_v3_large(weights=None))
    network, plain = (_network(w, task=task, size=64) for w in ("imagenet", "none"))
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (network, plain)]
    assert shapes[0] == shapes[1]
    backbone = network.network.get_submodule("ssd" if task == "detection" else "network").backbone
    own = backbone.state_dict()
    first, expansion = "features.0.0.0.weight", "features.0.13.0.weight"
    if task == "segmentation":
        first, expansion = "0.0.weight", "13.block.0.0.weight"
        assert {name.split(".")[1] for name in _fresh(network)} == {"classifier"}
    assert torch.equal(own[first], theirs["features.0.0.weight"])
    # In detection, of the block that the first source map comes from.
    assert torch.equal(own[expansion], theirs["features.13.block.0.0.weight"])
    drawn = [name for name in _fresh(network) if ".extra." in name]
    assert bool(drawn) == (task == "detection"), "what the donor drew is not called trained"


@pytest.mark.parametrize(
    ("options", "weights", "title"),
    [
        ({"model": "resnet18"}, "imagenet", "torchvision's ResNet18_Weights.IMAGENET1K_V1"),
        ({"task": "detection"}, "coco", "torchvision's SSDLite320_MobileNet_V3_Large_Weights."),
        ({"task": "segmentation"}, "coco", "torchvision's DeepLabV3_MobileNet_V3_Large_Weights."),
        ({"model": NARROW}, "none", f"there are no published weights of {NARROW}"),
        ({"task": "pose"}, "none", "there are no published weights of hourglass2"),
    ],
)
def test_automatic_weights_are_the_published_ones(
    options: dict[str, str], weights: str, title: str, urls: list[str]
) -> None:
    settings = resolve_settings("default", weights="auto", **options)
    value, why = get_task(settings.task).start_weights(settings)
    assert value == weights
    assert why.startswith(title)
    assert bool(urls) == (weights != "none")


def test_without_a_network_training_starts_from_nothing_and_says_why(offline: None) -> None:
    settings = resolve_settings("default", weights="auto", model="resnet18")
    assert get_task("classification").start_weights(settings) == (
        "none", "resnet18-f37072fd.pth cannot be downloaded: no route",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "weights"),
    [("classification", "imagenet"), ("detection", "coco"), ("segmentation", "imagenet")],
)
def test_weights_that_are_asked_for_must_be_had(task: str, weights: str, offline: None) -> None:
    with pytest.raises(
        SettingsError, match=f"weights {weights}: .*no route; --weights auto"
    ) as caught:
        _network(weights, task=task, size=64)
    assert "\n" not in str(caught.value)


def test_a_file_of_the_hub_that_cannot_be_read_is_unavailable(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> dict[str, Tensor]:
        raise RuntimeError("unexpected\nend of file")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(SettingsError, match="weights imagenet: unexpected end of file"):
        _network("imagenet", model="resnet18")
