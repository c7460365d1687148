"""What is decided of the settings that are left open."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.data.labeled_set import LabeledSet
from lloss.errors import CheckpointError, ImageError, LabelError
from lloss.images.decode import ImageSpec
from lloss.pools import Item
from lloss.tasks import TASKS, get_task
from lloss.tasks.presets import PRESETS, resolve_settings
from lloss.tasks.task import Task
from lloss.tasks.train_settings import AUTOMATIC, PLAIN, TrainSettings
from lloss.training import decisions
from lloss.training.checkpoint import load_checkpoint
from lloss.training.decisions import decide
from lloss.training.run import train


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are not what is decided here, and nothing is downloaded."""
    monkeypatch.setattr(Task, "start_weights", lambda self, settings: ("none", "for the test"))


def images(count: int, sides: Sequence[tuple[int, int]] = ((32, 32),)) -> LabeledSet:
    """Images of these heights and widths in turn, of two classes."""

    def read(row: int) -> Any:
        return np.zeros((*sides[row % len(sides)], 3), np.uint8)

    items = [Item(str(row), lambda row=row: read(row)) for row in range(count)]  # type: ignore[misc]
    return LabeledSet(items, ["ab"[row % 2] for row in range(count)], "made up")


def decided(labeled: LabeledSet, **given: Any) -> TrainSettings:
    settings = resolve_settings("default", **given)
    return decide(get_task(settings.task), settings, labeled).settings


@pytest.mark.parametrize("task", TASKS)
def test_everything_is_decided_and_said_once_with_its_name(task: str) -> None:
    settings = resolve_settings("default", task=task)
    found = decide(get_task(settings.task), settings, images(54))
    assert settings.undecided == tuple(AUTOMATIC) and not found.settings.undecided
    text = "\n".join(found.lines)
    for name in AUTOMATIC.keys() - PLAIN:
        assert text.count(f"{name} = {getattr(found.settings, name)}") == 1
    assert (found.settings.share, found.settings.resample) == (1, "bilinear")  # not worth a line
    others = replace(found.settings, **{name: getattr(settings, name) for name in AUTOMATIC})
    assert others == settings


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"default"}))
def test_a_preset_is_never_changed(preset: str) -> None:
    settings = resolve_settings(preset)
    found = decide(get_task(settings.task), settings, images(40))
    assert found.settings == settings and found.lines == []


def test_what_is_given_stays_and_is_not_said() -> None:
    given = {"size": 40, "epochs": 3, "batch_size": 7, "lr": 0.3, "weight_decay": 0.0}
    settings = resolve_settings("default", **given)
    found = decide(get_task("classification"), settings, images(54))
    assert {name: getattr(found.settings, name) for name in given} == given
    said = {name for line in found.lines for name in re.findall(r"(\w+) = ", line)}
    assert said == {"weights", "optimizer", "clip", "fresh_lr"}


def test_a_rate_of_another_optimizer_is_noted() -> None:
    for given, noted in (
        ({"model": "convnext_tiny", "lr": 0.1}, True),
        ({"model": "convnext_tiny", "lr": 2e-3}, False),
        ({"model": "convnext_tiny", "lr": 0.1, "optimizer": "adamw"}, False),
        ({"model": "resnet18-cifar", "lr": 0.1}, False),
    ):
        settings = resolve_settings("default", size=32, weights="none", **given)
        lines = decide(get_task("classification"), settings, images(54)).lines
        found = any("the rate 0.1 is 100 times what suits convnext" in line for line in lines)
        assert found is noted


def test_images_are_resized_as_the_record_of_trained_weights_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("timm")
    model = "timm:tf_efficientnet_lite0"  # of bicubic, and 0.875 of the middle
    settings = resolve_settings("default", model=model, weights="imagenet", size=96)
    found = decide(get_task("classification"), settings, images(54))
    assert found.settings.image_spec() == ImageSpec(96, 96, share=0.875, resample="bicubic")
    assert found.lines[0].startswith("automatic: share = 0.875, resample = bicubic (as the weights")
    for given, spec in (
        ({"weights": "none"}, ImageSpec(96, 96)),
        ({"fit": "pad"}, ImageSpec(96, 96, "pad", resample="bicubic")),
        ({"share": 0.5}, ImageSpec(96, 96, share=0.5, resample="bicubic")),
        ({"share": 1.0, "resample": "bilinear"}, ImageSpec(96, 96)),
        ({"model": "resnet18"}, ImageSpec(96, 96)),
    ):
        chosen = replace(settings, **given)
        assert decide(get_task("classification"), chosen, images(54)).settings.image_spec() == spec
    start = replace(settings, share=1.0, resample="bilinear")
    again = decide(get_task("classification"), settings, images(54), start)
    assert again.settings.image_spec() == ImageSpec(96, 96)  # as the run to start from
    padded = decide(get_task("classification"), replace(settings, fit="pad"), images(9), settings)
    assert padded.settings.image_spec().fit == "pad"


@pytest.mark.parametrize(("count", "batch"), [(2, 2), (3, 3), (54, 54), (64, 64), (65, 64)])
def test_a_batch_has_all_images_up_to_64(count: int, batch: int) -> None:
    assert decided(images(count)).batch_size == batch


@pytest.mark.parametrize(
    ("count", "epochs"),
    [
        (54, 100),  # one step each: the most epochs, and not 1,000
        (800, 77),  # 13 steps each: 76.9
        (1000, 62),  # 16 steps each: 62.5
        (64000, 30),  # 1,000 steps each
    ],
)
def test_epochs_are_a_budget_of_steps(
    count: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 0.0, "batch_size": 64}
    recipe |= {"steps": 1000, "least_epochs": 30}
    task = get_task("classification")
    monkeypatch.setattr(type(task), "recipe", lambda self, settings, pretrained: dict(recipe))
    found = decide(task, TrainSettings(size=32), images(count))
    assert found.settings.epochs == epochs
    assert any(f"epochs = {epochs}" in line and "1,000" in line for line in found.lines)


@pytest.mark.parametrize(
    ("sides", "fit", "size"),
    [
        ([(32, 32)], "crop", 64),  # no less than most networks need
        ([(100, 300)], "crop", 128),  # the shorter side, up to the next multiple of 32
        ([(100, 300)], "pad", 224),  # the longer one; ResNet-18 is made for 224
        ([(90, 90), (90, 90), (2000, 3000)], "crop", 96),  # the median
        ([(4000, 6000)], "crop", 224),
    ],
)
def test_the_input_is_as_large_as_the_images(
    sides: list[tuple[int, int]], fit: str, size: int
) -> None:
    found = decided(images(9, sides), fit=fit)
    assert found.size == size


def test_trained_weights_get_a_larger_input_and_cifar_networks_a_smaller() -> None:
    assert decided(images(9), weights="imagenet").size == 96
    assert decided(images(9, [(8, 8)]), model="resnet10-cifar-narrow").size == 8
    assert decided(images(9, [(28, 28)]), model="resnet18-cifar").size == 32


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({"model": "vit_b_16"}, 224),
        ({"model": "resnet18-cifar"}, 32),
        ({"model": "inception_v3"}, 96),
        ({"task": "detection"}, 320),
        ({"task": "detection", "model": "ssd300_vgg16"}, 300),
        ({"task": "pose"}, 256),
        ({"task": "pose", "model": "hourglass1-narrow"}, 128),
        ({"task": "segmentation"}, 96),
    ],
)
def test_a_network_gets_a_size_that_it_takes(given: dict[str, Any], size: int) -> None:
    assert decided(images(9, [(90, 90)]), **given).size == size


def test_only_headers_of_files_are_read_and_the_upright_side_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (500, 120, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100)
    path.write_bytes(buffer.getvalue())
    assert len(buffer.getvalue()) > decisions.HEADER

    def unread() -> bytes:
        raise AssertionError("the whole file was read")

    item = Item("photo.jpg", unread, file=str(path).encode())
    labeled = LabeledSet([item] * 4, list("abab"), "photos")
    assert decided(labeled).size == 128


def test_an_unreadable_image_decides_nothing() -> None:
    def broken() -> bytes:
        raise ImageError("not an image")

    labeled = images(6)
    items = [Item("broken", broken), *labeled.items[1:]]
    assert decided(LabeledSet(items, labeled.labels, "made up")).size == 64
    nothing = LabeledSet([Item("broken", broken)] * 6, labeled.labels, "made up")
    assert decided(nothing).size == 224


def test_a_single_image_is_refused() -> None:
    with pytest.raises(LabelError, match=r"made up: 1 labeled image.*label a second"):
        decided(images(1), task="detection")


OPEN: dict[str, Any] = {"model": "resnet10-cifar-narrow", "hidden": 8, "amp": "off", "epochs": 2}


def _photos(photos: Path) -> LabeledSet:
    from lloss.data.class_labels import open_labeled

    return open_labeled(str(photos))


def test_a_run_says_its_decisions_and_is_resumed_with_them(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = train(_photos(photos), TrainSettings(**OPEN), tmp_path / "run", say=said.append)
    assert first.settings.batch_size == 60 and first.settings.lr == 0.1
    assert any("batch_size = 60" in line for line in said)

    def never(*words: Any) -> Any:
        raise AssertionError("decided again")

    monkeypatch.setattr("lloss.training.run.decide", never)
    labeled, run = _photos(photos), tmp_path / "run"
    again = train(labeled, TrainSettings(**OPEN), run, resume=True)
    assert again.settings == first.settings
    with pytest.raises(CheckpointError, match="batch_size = 60, now it is 30"):
        train(labeled, TrainSettings(**OPEN, batch_size=30), run, resume=True)


def test_a_warm_start_goes_on_with_size_and_weights_of_its_start(
    photos: Path, trained: Path, tmp_path: Path
) -> None:
    start = load_checkpoint(trained)
    settings = replace(start.settings, size=0, weights="auto", taps=())
    found = train(_photos(photos), settings, tmp_path / "run", warm_start=trained)
    assert (found.settings.size, found.settings.weights) == (8, "none")


def test_an_old_checkpoint_is_resumed_with_its_own_values(
    photos: Path, trained: Path, tmp_path: Path
) -> None:
    before = load_checkpoint(trained)
    run = shutil.copytree(trained, tmp_path / "run")  # which is measured by folds now
    found = train(_photos(photos), TrainSettings(**OPEN), run, resume=True)
    assert found.settings == before.settings
