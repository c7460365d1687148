"""The trainer on a network from outside."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import lloss
from lloss.annotations import Problems
from lloss.errors import CheckpointError, InterruptedRunError, LabelError, SettingsError
from lloss.modeling.attached_model import AttachedModel
from lloss.tasks import get_task
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import load_checkpoint
from lloss.training.run import train
from lloss.training.run_folder import METRICS
from lloss.training.trainer import Trainer
from lloss.training.training_data import seed_of

from ..outside_networks import DepthLoss, DepthNet, TwoStages

CLASSES = ["bright", "dark", "red"]


def _model(**options: Any) -> AttachedModel:
    torch.manual_seed(0)
    return lloss.attach(TwoStages(), **{"classes": CLASSES, "size": 8, **options})


def test_network_and_head_are_trained_in_place(photos: Path) -> None:
    model = _model().eval()
    network = model.network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    epochs = lloss.fit(model, lloss.open_labeled(photos), epochs=12, lr=0.01, augment="none")
    assert [figures["epoch"] for figures in epochs] == list(range(1, 13))
    assert epochs[-1]["loss"] < 0.6 * epochs[0]["loss"]
    assert model.network is network and not any(m.training for m in model.modules())
    after = model.state_dict()
    assert not any(torch.equal(value, after[name]) for name, value in before.items())


def test_a_bare_network_is_to_be_attached_and_only_once() -> None:
    network: Any = TwoStages()
    for use in (lloss.fit, lloss.fit_head, lloss.evaluate):
        with pytest.raises(SettingsError, match="a TwoStages: give a model from lloss.attach"):
            use(network, PIXELS, [0, 1] * 4)
    with pytest.raises(SettingsError, match="an AttachedModel: attach to its .network"):
        lloss.attach(_model(), classes=CLASSES, size=8)


def test_few_steps_are_noted() -> None:
    problems = Problems()
    lloss.fit(_model(), PIXELS, [0, 1] * 4, epochs=2, problems=problems)
    assert problems.notes == []  # without batch norm
    model = lloss.attach(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)),
        size=8, taps=["1"],
    )  # fmt: skip
    lloss.fit(model, PIXELS, [0, 1] * 4, epochs=2, problems=problems)
    assert [note.partition(" for")[0] for note in problems.notes] == ["few steps (2)"]


def test_the_same_seed_trains_the_same_network(photos: Path) -> None:
    states = []
    for seed in (1, 1, 2):
        model = _model()
        lloss.fit(model, lloss.open_labeled(photos), epochs=1, seed=seed)
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def _state(model: AttachedModel) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_same_network_data_and_seed_give_the_weights_of_lloss_train(
    photos: Path, tmp_path: Path
) -> None:
    labeled = lloss.open_labeled(photos)
    settings = TrainSettings(
        model="resnet10-cifar-narrow", size=8, hidden=8, epochs=2, batch_size=8, amp="off", lr=0.05,
        weights="none", seed=3,
    )  # fmt: skip
    done = train(labeled, settings, tmp_path / "run")
    torch.manual_seed(seed_of(3))  # as the trainer seeds a fresh network
    fresh = get_task("classification").network(settings, CLASSES)
    model = lloss.attach(fresh.network, classes=CLASSES, size=8, hidden=8)
    assert fresh.head is not None
    model.head.load_state_dict(fresh.head.state_dict())
    names = ("epochs", "batch_size", "amp", "lr", "seed", "optimizer", "weight_decay", "clip",
             "fresh_lr", "augment")  # fmt: skip
    lloss.fit(model, labeled, **{name: getattr(done.settings, name) for name in names})
    found, expected = model.tapped.state_dict(), done.state["model"]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


class _Own(DepthLoss):
    """A task that darkens images at random, and has targets that torch cannot stack."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def augment(
        self, images: Tensor, targets: list[Any], generator: torch.Generator
    ) -> tuple[Tensor, list[Any]]:
        self.seen.append(images)
        darker = torch.rand(len(images), generator=generator) < 0.5
        return torch.where(darker[:, None, None, None], images // 2, images), targets

    def collate(self, targets: list[Any]) -> Tensor:
        return torch.tensor([float(target["depth"]) for target in targets])


def _depth(task: Any, size: Any = 8) -> AttachedModel:
    torch.manual_seed(0)
    return lloss.attach(DepthNet(), task=task, size=size)


def test_a_task_of_ones_own_collates_and_augments_its_oblong_images() -> None:
    task = _Own()
    model = _depth(task, (8, 12))
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 12, 3), np.uint8)
    targets = [{"depth": image.mean() / 255} for image in images]
    epochs = lloss.fit(model, images, targets, epochs=30, lr=0.01, validation=(images, targets))
    assert epochs[-1]["loss"] < 0.5 * epochs[0]["loss"]
    assert len(task.seen) == 30 and {seen.shape for seen in task.seen} == {(20, 8, 12, 3)}
    assert task.seen[0].dtype == torch.uint8
    evaluation = lloss.evaluate(model, images, targets)
    assert epochs[-1]["validation_loss"] == evaluation.mean_loss
    assert epochs[-1]["validation_metric"] == evaluation.metric
    assert epochs[-1]["validation_ranking_accuracy"] == evaluation.ranking.ranking_accuracy


class _Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Float images with noise of torch's global generator, as most augmentation has it."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.images = torch.rand(18, 3, 8, 12, generator=random)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.images[row] + 0.1 * torch.randn(3, 8, 12), self.images[row].mean()


def _forms() -> dict[str, tuple[Any, Any]]:
    noisy = _Noisy()
    targets = noisy.images.mean((1, 2, 3))
    return {
        "tensor": (noisy.images, targets),
        "dataset": (noisy, None),
        "loader": (DataLoader(noisy, 6, shuffle=True), None),
    }


@pytest.mark.parametrize("form", _forms())
def test_an_interrupted_run_resumes_to_the_same_weights_and_figures(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, targets = _forms()[form]
    options = {"epochs": 3, "batch_size": 6, "validation": (_Noisy().images, torch.rand(18))}
    if form == "loader":
        del options["batch_size"]
    whole = _depth(DepthLoss(), (8, 12))
    torch.manual_seed(1)
    expected = lloss.fit(whole, data, targets, **options)
    assert len(expected) == 3 and "validation_loss" in expected[0]
    advance, steps = Trainer.advance, 0

    def interrupted(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        if steps == 5:  # of 9: in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    run, model = tmp_path / "run", _depth(DepthLoss(), (8, 12)).eval()
    torch.manual_seed(2)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(InterruptedRunError, match="after 1 of 3 epochs.*resume=True"):
            lloss.fit(model, data, targets, run=run, **options)
    assert not model.training
    for _ in range(2):  # the second time the run is finished
        again = _depth(DepthLoss(), (8, 12))
        figures = lloss.fit(again, data, targets, run=run, resume=True, **options)
        assert torch.equal(_state(again), _state(whole))
        untimed = [{k: v for k, v in row.items() if "second" not in k} for row in figures]
        assert untimed == [{k: v for k, v in row.items() if "second" not in k} for row in expected]
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint.pt", METRICS]


def test_a_run_of_other_settings_data_or_network_is_not_resumed(
    photos: Path, tmp_path: Path
) -> None:
    labeled, run = lloss.open_labeled(photos), tmp_path / "run"
    lloss.fit(_model(), labeled, epochs=1, run=str(run))
    assert load_checkpoint(run).traces.shape == (60,)
    with pytest.raises(CheckpointError, match="given to lloss.fit, 'TwoStages'.*resume=True"):
        load_checkpoint(run).network()
    with pytest.raises(CheckpointError, match="holds a training run already.*resume=True"):
        lloss.fit(_model(), labeled, epochs=1, run=run)
    with pytest.raises(CheckpointError, match="epochs = 1, now it is 2"):
        lloss.fit(_model(), labeled, epochs=2, run=run, resume=True)
    with pytest.raises(CheckpointError, match="other labels"):
        lloss.fit(_model(), labeled.take(range(30)), epochs=1, run=run, resume=True)
    lloss.fit(_depth(DepthLoss()), IMAGES, TARGETS, epochs=1, run=tmp_path / "floats")
    with pytest.raises(CheckpointError, match="pixels changed"):
        lloss.fit(
            _depth(DepthLoss()), 1 - IMAGES, TARGETS, epochs=1, run=tmp_path / "floats", resume=True
        )
    other = lloss.attach(TwoStages(), classes=CLASSES, size=8, hidden=4)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        lloss.fit(other, labeled, epochs=1, run=run, resume=True)


def test_the_heads_gradient_reaches_the_network_in_the_epochs_that_it_may() -> None:
    images, targets = torch.randn(12, 3, 8, 8), torch.rand(12)
    states = []
    for stop in (0, -1):
        model = _depth(DepthLoss())
        # Not AdamW, whose first step is as long whatever the gradient.
        options = {"optimizer": "sgd", "lr": 0.1, "epochs": 1, "head_weight": 5.0}
        lloss.fit(model, images, targets, gradient_stop=stop, **options)
        states.append(model.network.state_dict()["up.weight"])
    assert not torch.equal(*states)


class _Scalar(DepthLoss):
    def loss_per_image(self, output: Any, targets: Tensor) -> Tensor:
        return super().loss_per_image(output, targets).mean()


class _Negative(DepthLoss):
    def loss_per_image(self, output: Any, targets: Tensor) -> Tensor:
        return -super().loss_per_image(output, targets)


class _Loses(_Own):
    def augment(self, images: Tensor, targets: list[Any], generator: Any) -> Any:
        return images[1:], targets


class _Changes(_Own):
    def augment(self, images: Tensor, targets: list[Any], generator: Any) -> Any:
        return images.float(), targets


class _Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return iter([IMAGES])


IMAGES, TARGETS = torch.rand(8, 3, 8, 8), torch.rand(8)
PIXELS = np.zeros((8, 8, 8, 3), np.uint8)
LOADER = DataLoader(TensorDataset(IMAGES, TARGETS), 7)


@pytest.mark.parametrize(
    ("task", "data", "targets", "options", "message"),
    [
        (_Scalar(), IMAGES, TARGETS, {}, r"gave \[\]: return one loss per image"),
        (_Negative(), IMAGES, TARGETS, {}, 'takes losses from 0 on; pass head_loss="margin"'),
        (_Loses(), PIXELS, [{"depth": 1}] * 8, {}, "7 images and 8 targets for 8 images"),
        (
            _Changes(),
            PIXELS,
            [{"depth": 1}] * 8,
            {},
            r"augment of _Changes: returned \(float32 .*images uint8",
        ),
        (DepthLoss(), IMAGES, TARGETS, {"augment": "flip"}, "augment = 'flip': lloss augments"),
        (DepthLoss(), IMAGES, TARGETS, {"head_loss": "hinge"}, "choose one of margin"),
        (DepthLoss(), IMAGES, TARGETS, {"resume": True}, "give the run's folder"),
        (DepthLoss(), IMAGES, TARGETS[:7], {}, "8 images and 7 targets"),
        (DepthLoss(), LOADER, None, {}, "a batch of one image.*drop_last"),
        (DepthLoss(), LOADER, None, {"batch_size": 4}, "the loader decides it"),
        (DepthLoss(), iter([1]), None, {}, "a list_iterator without a length"),
        (DepthLoss(), DataLoader(_Endless()), None, {}, "a DataLoader without a length"),
        (DepthLoss(), [], None, {}, "the loader has no batch"),
        (DepthLoss(), [(PIXELS, 0)], None, {}, r"its batches must be \(images float"),
        (DepthLoss(), [(torch.from_numpy(PIXELS), 0)], None, {}, "images uint8.*normalized"),
        (DepthLoss(), TensorDataset(IMAGES), None, {}, r"example \d is \(float32 \[3, 8, 8\]\)"),
        ("photos", None, None, {}, "only a task of lloss reads the labels"),
    ],
)
def test_mistakes_with_a_task_of_ones_own_are_named(
    task: Any, data: Any, targets: Any, options: dict[str, Any], message: str, photos: Path
) -> None:
    if task == "photos":
        task, data = DepthLoss(), lloss.open_labeled(photos)
    with pytest.raises((SettingsError, LabelError), match=message):
        lloss.fit(_depth(task), data, targets, epochs=1, **options)


def test_a_loader_that_ends_early_is_refused() -> None:
    class Short(list[Any]):
        def __len__(self) -> int:
            return 3

    batches = Short([(IMAGES, TARGETS)])
    with pytest.raises(LabelError, match="ended after 1 batches, its length is 3"):
        lloss.fit(_depth(DepthLoss()), batches, epochs=1)


def test_a_classifier_takes_images_with_class_names_and_an_oblong_input(photos: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 30, 3), np.uint8)
    model = _model(size=(8, 12))
    (figures,) = lloss.fit(model, images, CLASSES * 4, epochs=1)
    assert figures["loss"] > 0
    (figures,) = lloss.fit(model, lloss.open_labeled(photos), epochs=1)
    assert figures["epoch"] == 1


def test_mistakes_are_named(photos: Path) -> None:
    labeled = lloss.open_labeled(photos)
    for options, message in (
        ({"size": 9}, "size: attach decides it"),
        ({"freeze": True}, "freeze: use lloss.fit_head"),
        ({"loss_norm": "none"}, "loss_norm: attach decides it"),
        ({"fresh_lr": 3.0}, "fresh_lr: fit does not know which layers"),
        ({"epoch": 9}, "fit: unknown setting 'epoch'"),
        ({"augment": "ssd"}, "classification has none, flip"),
    ):
        with pytest.raises(SettingsError, match=message):
            lloss.fit(_model(), labeled, **options)
    with pytest.raises(LabelError, match="'red'"):
        lloss.fit(_model(classes=["bright", "dark", "blue"]), labeled)


@pytest.mark.parametrize("form", ["targets", "dataset", "loader"])
@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (IMAGES, [0, 1, 2, 3] * 2, "the label 3: the network has the classes bright, dark, r"),
        (IMAGES, [0, 1, -1, 2] * 2, "the label -1: .* or by number from 0 to 2"),
        (IMAGES, [0.5] * 8, r"targets float32 \[\d\]: give the number"),
        (255 * IMAGES, [0, 1] * 4, "images float up to 25.: normalize them by mean and std"),
        (torch.rand(8, 3, 9, 9), [0, 1] * 4, "9×9 pixels: the model is for 8×8"),
    ],
)
def test_targets_and_images_that_are_not_of_the_model(
    images: Tensor, targets: list[Any], message: str, form: str
) -> None:
    data: tuple[Any, ...] = images, targets
    if form != "targets":
        pairs = TensorDataset(images, torch.tensor(targets))
        data = (pairs if form == "dataset" else DataLoader(pairs, 4),)
    with pytest.raises(LabelError, match=message):
        lloss.evaluate(_model(), *data)
    if "pixels" not in message:  # training may change the size of images
        with pytest.raises(LabelError, match=message):
            lloss.fit(_model(), *data, epochs=1)


def test_detection_is_trained_on_square_inputs_only() -> None:
    model = _model(size=(8, 12))
    model.task = "detection"
    with pytest.raises(SettingsError, match="8×12: fit trains detection on square inputs"):
        lloss.fit(model, IMAGES, TARGETS)
