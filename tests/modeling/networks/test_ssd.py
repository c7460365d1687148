from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from lloss.modeling.networks.ssd import (
    MODELS,
    SsdNetwork,
    anchors_of,
    build_detector,
    is_class_layer,
    own_size,
)

LITE, VGG = MODELS
SIDE = 64


@pytest.fixture(scope="module")
def lite() -> SsdNetwork:
    torch.manual_seed(0)
    return build_detector(LITE, 3, size=SIDE).eval()


@pytest.fixture(scope="module")
def vgg() -> SsdNetwork:
    torch.manual_seed(0)
    return build_detector(VGG, 2).eval()


@pytest.mark.parametrize(("name", "size", "count"), [(LITE, 320, 3234), (VGG, 300, 8732)])
def test_a_detector_has_the_anchors_and_the_size_of_its_paper(
    name: str, size: int, count: int
) -> None:
    assert own_size(name) == size
    anchors = anchors_of(name, size)
    assert anchors.shape == (count, 4)
    assert anchors.dtype == torch.float32
    assert (anchors[:, 2:] > anchors[:, :2]).all()


@torch.no_grad()
def test_the_output_is_that_of_torchvisions_detector(lite: SsdNetwork) -> None:
    images = torch.randn(2, 3, SIDE, SIDE)
    output = lite(images)
    maps = list(lite.ssd.backbone(images).values())
    heads = lite.ssd.head(maps)
    assert torch.equal(output.logits, heads["cls_logits"])
    assert torch.equal(output.offsets, heads["bbox_regression"])
    listed = ImageList(images, [(SIDE, SIDE)] * 2)
    assert torch.equal(output.anchors, lite.ssd.anchor_generator(listed, maps)[0])
    assert output.logits.shape == (2, len(output.anchors), 4)


@torch.no_grad()
def test_ssd300_computes_what_torchvision_computes(vgg: SsdNetwork) -> None:
    images = torch.randn(1, 3, 300, 300) * 50
    output = vgg(images)
    heads = vgg.ssd.head(list(vgg.ssd.backbone(images).values()))
    torch.testing.assert_close(output.logits, heads["cls_logits"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.offsets, heads["bbox_regression"], rtol=1e-5, atol=1e-5)
    assert output.logits.shape == (1, 8732, 3)


@torch.no_grad()
def test_the_norm_survives_half_precision(vgg: SsdNetwork) -> None:
    """In float16 the squares of 512 large activations are infinite, and zeros divide by 0."""
    features = torch.full((1, 512, 4, 4), 300.0)
    features[:, :, 0] = 0
    expected = _first_map(vgg, features)
    found = _first_map(vgg, features.half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=1e-3, atol=1e-3)
    theirs = 20 * torch.nn.functional.normalize(features.half())
    assert not torch.allclose(theirs.float(), expected, rtol=1e-3, atol=1e-3)


def _first_map(network: SsdNetwork, features: Tensor) -> Tensor:
    """The source map that the normalised features become."""
    backbone = network.ssd.backbone
    blocks, network.ssd.backbone.features = backbone.features, torch.nn.Identity()
    extra, network.ssd.backbone.extra = backbone.extra, torch.nn.ModuleList()
    try:
        return network._maps(features)[0]
    finally:
        network.ssd.backbone.features, network.ssd.backbone.extra = blocks, extra


def _bf16_gradients(size: int) -> dict[str, Tensor]:
    """Of one step from fixed weights and images, with old numbers in the memory it will get."""
    torch.manual_seed(0)
    network = build_detector(LITE, 2, size=size).train().to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, size, size).contiguous(memory_format=torch.channels_last)
    kinds = [(n, dtype) for n in (576, 1152, 2304) for dtype in (torch.float32, torch.bfloat16)]
    old = [torch.full((n,), math.nan, dtype=dtype) for n, dtype in kinds * 50]
    del old
    with torch.autocast("cpu", torch.bfloat16):
        output = network(images)
    total = output.logits.float().square().mean() + output.offsets.float().square().mean()
    total.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [32, 96, 128])
def test_bf16_gradients_of_maps_of_one_pixel_are_finite_and_repeat_themselves(size: int) -> None:
    first, *others = (_bf16_gradients(size) for _ in range(4))
    for name, gradient in first.items():
        assert torch.isfinite(gradient).all(), name
        assert all(torch.equal(gradient, other[name]) for other in others), name


def test_anchors_keep_their_precision_in_a_half_network() -> None:
    network = build_detector(LITE, 2, size=SIDE)
    anchors = network.anchors.clone()
    network.half()
    assert next(network.parameters()).dtype == torch.float16
    assert torch.equal(network.anchors, anchors)
    assert "anchors" not in network.state_dict()


@pytest.mark.parametrize("name", [LITE, VGG])
def test_the_class_layers_are_those_whose_shape_the_classes_decide(name: str) -> None:
    with torch.device("meta"):
        two, three = (build_detector(name, count).state_dict() for count in (2, 3))
    changed = {key for key in two if two[key].shape != three[key].shape}
    assert {key for key in two if is_class_layer(key)} == changed
    assert len(changed) == 12
