from __future__ import annotations

import re
from typing import Any

import pytest
from torchvision import models as torchvision_models

from lloss.tasks.recipes import ADAMW, CIFAR, FAMILIES, SGD, TRANSFORMER, recipe_of

NAMES = {
    "resnet18-cifar": CIFAR, "resnet10-cifar-narrow": CIFAR,
    "resnet18": SGD, "wide_resnet50_2": SGD, "resnext50_32x4d": SGD, "vgg16_bn": SGD,
    "regnet_y_400mf": SGD, "mobilenet_v3_small": SGD, "timm:resnet18.a1_in1k": SGD,
    "timm:seresnext50_32x4d": SGD, "timm:resnest50d": SGD,
    "efficientnet_b0": ADAMW, "mnasnet0_5": ADAMW, "convnext_tiny": ADAMW, "maxvit_t": ADAMW,
    "timm:tf_efficientnet_lite0.in1k": ADAMW, "timm:convnextv2_atto": ADAMW,
    "timm:maxxvit_rmlp_nano_rw_256": ADAMW, "timm:mobilevit_xxs": ADAMW,
    "vit_b_16": TRANSFORMER, "swin_v2_t": TRANSFORMER, "timm:deit_tiny_patch16_224": TRANSFORMER,
    "timm:beit_base_patch16_224": TRANSFORMER, "timm:eva02_tiny_patch14_224": TRANSFORMER,
    "company.networks:resnet": TRANSFORMER,
}  # fmt: skip


@pytest.mark.parametrize(("name", "family"), NAMES.items())
def test_each_family_has_its_recipe_by_the_names_of_torchvision_and_timm(
    name: str, family: dict[str, Any]
) -> None:
    recipe = recipe_of(name, "auto", pretrained=False)
    assert {key: recipe[key] for key in family} == family
    assert recipe["fresh_lr"] == 1


def test_every_network_of_torchvision_but_those_named_here_is_of_a_known_family() -> None:
    known = "|".join(pattern for pattern, _ in FAMILIES)
    names = torchvision_models.list_models(module=torchvision_models)
    others = {re.split(r"[_\d]", name)[0] for name in names if not re.search(known, name)}
    assert others == {"efficientnet", "mnasnet", "convnext"}


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "vit_b_16"])
def test_trained_weights_take_smaller_and_fewer_steps_than_fresh_layers(name: str) -> None:
    scratch, tuned = (recipe_of(name, "auto", pretrained=p) for p in (False, True))
    assert tuned["optimizer"] == "adamw" and tuned["clip"] == 1
    assert tuned["lr"] < scratch["lr"] and tuned["steps"] < scratch["steps"]
    assert tuned["fresh_lr"] > 1


def test_another_optimizer_has_a_rate_of_its_own() -> None:
    for pretrained in (False, True):
        for name in ("sgd", "rmsprop", "adam", "adamw"):
            recipe = recipe_of("efficientnet_b0", name, pretrained)
            assert recipe["optimizer"] == name
            assert (recipe["lr"] > 2e-3) == (name == "sgd")
    assert recipe_of("resnet18-cifar", "sgd", False)["lr"] == 0.1
