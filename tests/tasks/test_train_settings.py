from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from lloss.errors import SettingsError
from lloss.tasks import get_task
from lloss.tasks.presets import PRESETS, resolve_settings
from lloss.tasks.train_settings import AUTOMATIC, TrainSettings

PAPER = """
preset        model          batch epochs optimizer lr      lambda stop milestone decay  side
paper-cifar10 resnet18-cifar 128   200    sgd       0.1     1      120  160       5e-4   32
paper-voc     ssd300_vgg16   32    300    sgd       0.001   1      240  240       5e-4   300
paper-mpii    hourglass2     6     125    rmsprop   0.00025 0.0001 75   100       0      256
"""


@pytest.mark.parametrize("line", PAPER.strip().splitlines()[1:])
def test_a_preset_has_the_values_of_the_papers_table(line: str) -> None:
    preset, *values = line.split()
    s = resolve_settings(preset)
    found = (s.batch_size, s.epochs, s.optimizer, s.lr, s.head_weight, s.gradient_stop)
    found = (s.model, *found, *s.milestones, s.weight_decay, s.size)
    numbers = [value if value[0].isalpha() else float(value) for value in values]
    assert list(found) == numbers
    assert (s.head_loss, s.xi, s.hidden, s.head_summary) == ("margin", 1, 128, False)
    assert s.schedule == "step"


def test_the_default_preset_is_the_defaults() -> None:
    assert resolve_settings("default") == TrainSettings()
    assert resolve_settings("default").undecided == tuple(AUTOMATIC)
    assert resolve_settings("default", size=0, epochs=0) == TrainSettings()


def test_the_settings_of_another_run_fill_what_is_open() -> None:
    other = resolve_settings("paper-cifar10")
    filled = TrainSettings(epochs=3, lr=0.5).filled_from(other)
    assert (filled.epochs, filled.lr) == (3, 0.5)
    assert (filled.size, filled.batch_size, filled.weights) == (32, 128, "none")
    assert filled.undecided == other.undecided == ()
    assert filled.head_loss == TrainSettings.head_loss


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ("resnet18", ("sgd", 0.01)),
        ("resnet18-cifar", ("sgd", 0.1)),
        ("convnext_tiny", ("adamw", 1e-3)),
        ("swin_v2_t", ("adamw", 3e-4)),
    ],
)
def test_a_network_is_trained_as_it_bears(model: str, wanted: tuple[str, float]) -> None:
    recipe = get_task("classification").recipe(TrainSettings(model=model), False)
    assert (recipe["optimizer"], recipe["lr"]) == wanted


def test_given_options_win_over_a_preset_and_absent_ones_do_not() -> None:
    settings = resolve_settings("paper-cifar10", epochs=3, seed=7, lr=None)
    assert (settings.epochs, settings.seed, settings.lr) == (3, 7, 0.1)
    other = resolve_settings("paper-cifar10", model="convnext_tiny")
    assert (other.optimizer, other.lr) == ("sgd", 0.1)  # not what the model bears


@pytest.mark.parametrize(
    ("preset", "other", "given"),
    [
        ("paper-voc", "task 'detection', not of 'pose'", {"task": "pose"}),
        ("paper-cifar10", "task 'classification', not of 'pose'", {"task": "pose"}),
        ("paper-voc", "model 'ssd300_vgg16', not of 'x'; leave the model out", {"model": "x"}),
        ("paper-mpii", "model 'hourglass2', not of 'hourglass4'", {"model": "hourglass4"}),
    ],
)
def test_a_preset_is_of_one_task_and_its_taps_of_one_model(
    preset: str, other: str, given: dict[str, str]
) -> None:
    with pytest.raises(SettingsError, match=f"preset '{preset}': is of {other}"):
        resolve_settings(preset, **given)
    whole = resolve_settings(preset)
    assert resolve_settings(preset, model=whole.model, task=whole.task) == whole


def test_a_given_mean_of_images_in_0_to_255_is_refused_and_old_runs_read_it() -> None:
    mean = [123.7, 116.3, 103.5]
    for preset in ("default", "paper-voc"):
        with pytest.raises(SettingsError, match=r"a\.toml: mean .* 255 \(mean 0.485,0.456,0.406\)"):
            resolve_settings(preset, "a.toml", mean=mean)
    assert TrainSettings.from_dict({"mean": mean}).mean == tuple(mean)
    assert resolve_settings("default", mean=[0, 0, 0], std=[1 / 255] * 3).mean == (0, 0, 0)
    assert resolve_settings("default", mean=[-2.0, 0.5, 2.0]).mean == (-2, 0.5, 2)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"paper-imagenet.*paper-cifar10"):
        resolve_settings("paper-imagenet")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_settings_round_trip_through_json(preset: str) -> None:
    settings = resolve_settings(preset, taps=("a", "b.c"), gradient_stop=0)
    again = TrainSettings.from_dict(json.loads(json.dumps(settings.as_dict())))
    assert again == settings
    assert hash(again) == hash(settings)


def test_an_unknown_key_is_named_with_where_it_stood_and_the_known_ones() -> None:
    for name, value in (("epoch", 3), ("flip_test", True)):
        with pytest.raises(SettingsError, match=rf"lloss\.toml.*'{name}'.*epochs"):
            TrainSettings.from_dict({name: value}, "lloss.toml")
    assert TrainSettings.from_dict({"flip_test": False}) == TrainSettings()  # of earlier cycles


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("epochs", ["3", True, None, -1]),
        ("batch_size", [1, -1]),
        ("hidden", [0]),
        ("size", [-1]),
        ("seed", [-1]),
        ("lr", ["fast", -0.1, math.nan, math.inf]),
        ("head_weight", [-1.0]),
        ("xi", [-1.0]),
        ("gradient_stop", [-2, 1.0, True]),
        ("head", [1]),
        ("compile", ["yes"]),
        ("augment", ["rotate"]),
        ("schedule", ["cosine"]),
        ("amp", ["fp8"]),
        ("fit", ["squeeze"]),
        ("model", [18]),
        ("taps", [[1], "layer1"]),
        ("milestones", [["x"], [-1], 160]),
        ("momentum", [-0.9]),
        ("weight_decay", [-0.5, math.nan]),
        ("mean", [["a", "b", "c"], [0.5, 0.5]]),
        ("std", [[math.nan, 1.0, 1.0], [0.5, 0.5, 0.0]]),
    ],
)
def test_an_unusable_value_is_refused_with_its_name(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(SettingsError, match=name):
            TrainSettings.from_dict({name: value})


def test_the_crops_padding_is_an_eighth_of_the_size_unless_it_is_given() -> None:
    assert TrainSettings(size=32).padding == 4
    assert TrainSettings(size=224).padding == 28
    assert TrainSettings(size=32, crop_padding=2).padding == 2
    assert TrainSettings(size=32, crop_padding=0).padding == 0


@pytest.mark.parametrize(
    ("task", "model", "message"),
    [
        ("segmentation", "resnet18", "model 'resnet18': unknown; choose one of deeplab"),
        ("pose", "resnet18", "model 'resnet18': no network for pose; choose hourglass1"),
        ("detection", "resnet18", "model 'resnet18': detection has"),
    ],
)
def test_a_model_of_another_task_is_refused(task: str, model: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve_settings("default", task=task, model=model)


@pytest.mark.parametrize(
    ("task", "name", "value", "message"),
    [
        ("classification", "augment", "ssd", "classification has none, flip, crop, flip-crop"),
        ("detection", "head_loss", "hinge", "choose one of margin, soft-pairs, mse"),
        ("segmentation", "augment", "pose", "segmentation has none, flip, crop, flip-crop"),
        ("detection", "augment", "pose", "detection has none, flip, crop, flip-crop, ssd"),
        ("pose", "augment", "ssd", "augment = 'ssd': pose has none, pose"),
        ("classification", "weights", "coco", "classification starts from none or imagenet or the"),
        (
            "classification",
            "loss_norm",
            "none",
            "loss_norm = 'none': classification has no such choice",
        ),
        ("pose", "weights", "imagenet", "weights 'imagenet': pose starts from none or the path of"),
        ("detection", "keep_embedding", "pretrained", "detection has no such choice; leave it out"),
        ("pose", "size", 100, "size = 100: an hourglass takes multiples of 64 pixels; use 128"),
        ("detection", "size", 8, "size = 8: ssdlite320_mobilenet_v3_large needs"),
    ],
)
def test_settings_that_a_task_cannot_use_are_refused(
    task: str, name: str, value: Any, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve_settings("default", task=task, **{name: value})
    settings = resolve_settings("default", task=task)
    with pytest.raises(SettingsError, match=message):
        get_task(task).network(replace(settings, **{name: value}), ("a", "b"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": "none"}, "weights = 'none' are random, and so would"),
        ({"weights": "w.pt", "freeze": True}, "freeze leaves the network, and its embedding, as"),
    ],
)
def test_features_of_before_training_are_those_of_trained_weights(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=f"keep_embedding = 'pretrained': {message}"):
        resolve_settings("default", keep_embedding="pretrained", **given)
    undecided = replace(TrainSettings(size=8), keep_embedding="pretrained")
    with pytest.raises(SettingsError, match="weights = 'none' are random"):
        get_task("classification").network(undecided, ("a", "b"))
