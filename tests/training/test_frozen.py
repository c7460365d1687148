"""A frozen network: what learns, what stays, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lloss
from lloss.data.labeled_set import LabeledSet
from lloss.errors import CheckpointError, LabelError, SettingsError
from lloss.images.decode import decode_whole
from lloss.modeling.objective import Objective
from lloss.statistics.confidence_intervals import wilson
from lloss.tasks.classification import ClassificationObjective
from lloss.tasks.train_settings import TrainSettings
from lloss.training import head_training
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.frozen import _last_layer
from lloss.training.head_stack import scale_of
from lloss.training.head_training import folds_of
from lloss.training.labeled_batches import LabeledImages
from lloss.training.last_layer import DECAYS, _fitted, fresh_layers, train_last_layer
from lloss.training.ranking_evidence import evidence_of, read_cross_validation
from lloss.training.run import train
from lloss.training.run_folder import METRICS

from ..command_line import call
from ..data.test_near_copies import item_of, scene
from ..outside_networks import TwoStages

LAST = "network.classifier."


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train heads in fewer steps."""
    monkeypatch.setattr(head_training, "STEPS", 100)


@pytest.fixture
def frozen(trained: Path, tmp_path: Path, tiny: TrainSettings) -> TrainSettings:
    """The network of ``trained``, from a state dict."""
    file = tmp_path / "network.pt"
    torch.save(load_checkpoint(trained).network().network.state_dict(), file)
    return dataclasses.replace(tiny, freeze=True, weights=str(file))


def _state(run: Path) -> dict[str, Tensor]:
    return load_checkpoint(run).state["model"]  # type: ignore[no-any-return]


def test_the_head_learns_and_the_network_stays_as_its_file_has_it(
    labeled: LabeledSet, frozen: TrainSettings, trained: Path, tmp_path: Path
) -> None:
    run, lines = tmp_path / "run", list[str]()
    checkpoint = train(labeled, frozen, run, say=lines.append)
    assert checkpoint.finished and checkpoint.classes == ("bright", "dark", "red")
    before, after = _state(trained), _state(run)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith("head.")}
    assert lines[-2] == f"the predicted loss is {checkpoint.unit}"
    assert lines[-1].startswith("measure on 60 labeled images by 5-fold cross-validation: accuracy")
    _is_evidence(run, 60)
    assert checkpoint.unit and checkpoint.unit.images == 60
    (figures,) = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    evaluation = evaluate_checkpoint(checkpoint, labeled)
    assert figures["loss"] == pytest.approx(evaluation.mean_loss, rel=1e-4)
    assert evaluation.head is not None and evaluation.head.ranking_accuracy > 0.6
    with pytest.raises(CheckpointError, match="holds a training run"):
        train(labeled, frozen, run)
    assert train(labeled, frozen, run, resume=True).sha256 == checkpoint.sha256
    warm = dataclasses.replace(frozen, freeze=False, weights="none", epochs=1)
    assert train(labeled, warm, tmp_path / "warm", warm_start=run).finished


def test_a_last_layer_of_other_classes_learns_too(
    labeled: LabeledSet, frozen: TrainSettings, trained: Path, tmp_path: Path
) -> None:
    labels = ["red" if label == "red" else "grey" for label in labeled.labels]
    two, lines = LabeledSet(labeled.items, labels, "two classes"), list[str]()
    checkpoint = train(two, frozen, tmp_path / "run", say=lines.append)
    before, after = _state(trained), checkpoint.state["model"]
    body = [name for name in before if name.startswith("network.") and LAST not in name]
    assert body and all(torch.equal(after[name], before[name]) for name in body)
    assert any("the last layer 'classifier', of other classes" in line for line in lines)
    evaluation = evaluate_checkpoint(checkpoint, two)
    assert evaluation.metric > 0.9
    _is_evidence(tmp_path / "run", 60)
    figures = read_cross_validation(tmp_path / "run")
    assert figures and 0.7 < figures["accuracy"] <= 1
    within = wilson(60 * figures["accuracy"], 60)
    assert figures["intervals"]["accuracy"] == pytest.approx(within)


def test_layers_are_trained_without_near_duplicates_of_the_image() -> None:
    scenes = [item_of(scene(number, 16)) for number in range(20)]
    images = np.stack([decode_whole(item.read()) for item in scenes for _ in range(4)])
    torch.manual_seed(0)
    network = TwoStages(classes=2)
    model = lloss.attach(network, size=16, classes=["a", "b"])
    labels = np.random.default_rng(0).integers(0, 2, 20).repeat(4)  # of no relation to the images
    cache = train_last_layer(model, network.last, LabeledImages.of(model, images, labels))
    assert cache.groups and cache.groups.first.tolist() == (np.arange(80) // 4 * 4).tolist()
    losses = cache.losses.reshape(20, 4)
    assert torch.allclose(losses, losses[:, :1].expand(20, 4), atol=1e-3)  # by the same layer
    assert cache.metric is not None and cache.metric < 0.7


def _is_evidence(run: Path, images: int) -> None:
    """A choice by loss or entropy can be made by what cross-validation measured."""
    evidence = evidence_of(read_cross_validation(run), images, has_entropy=True)
    assert evidence.images == images and evidence.head and evidence.entropy
    assert evidence.head.low > evidence.head.interval[0]
    assert evidence.advantage or evidence.head.accuracy == evidence.entropy.accuracy == 1


def test_losses_are_those_of_layers_that_were_not_trained_on_the_image() -> None:
    torch.manual_seed(0)
    network = TwoStages(classes=2)
    model = lloss.attach(network, size=8, classes=["a", "b"])
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (100, 8, 8, 3), np.uint8), random.integers(0, 2, 100)
    labeled = LabeledImages.of(model, pixels, labels)
    cache = train_last_layer(model, network.last, labeled, seed=0)
    ((images, targets),) = labeled.batches()
    with torch.no_grad():
        features = network.second(network.first(images)).mean((2, 3))
    mean, std = scale_of(features)
    inputs, folds = (features - mean) / std, torch.from_numpy(folds_of(100, 5, 0))
    matching = []
    for decay in DECAYS:
        losses = torch.empty(100)
        for fold in range(5):
            rest, held = folds != fold, folds == fold
            weight, bias = _fitted(model.objective, 2, inputs[rest], targets[rest], decay)
            losses[held] = F.cross_entropy(
                inputs[held] @ weight.T + bias, targets[held], reduction="none"
            )
        if torch.allclose(losses, cache.losses, atol=1e-3):
            weight, bias = _fitted(model.objective, 2, inputs, targets, decay)
            with torch.no_grad():
                matching.append(float((network(images) - (inputs @ weight.T + bias)).abs().max()))
    assert matching and min(matching) < 1e-3
    assert cache.metric is not None and cache.metric < 0.7  # the labels are of no relation
    assert network.last.weight.requires_grad


def test_the_layer_minimizes_the_mean_loss_and_the_decay() -> None:
    random = np.random.default_rng(0)
    inputs, targets = random.normal(size=(40, 3)), random.integers(0, 4, 40)

    def written_out(flat: np.ndarray) -> float:
        weight, bias = flat[:12].reshape(4, 3), flat[12:]
        logits = inputs @ weight.T + bias
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(40), targets]
        return float(losses.mean() + 0.05 * (weight**2).sum())

    expected = scipy.optimize.minimize(written_out, np.zeros(16)).x
    objective: Objective = ClassificationObjective(tuple("abcd"))
    found = _fitted(objective, 4, torch.tensor(inputs).float(), torch.tensor(targets), 0.1)
    assert np.allclose(found[0], expected[:12].reshape(4, 3), atol=2e-3)
    biases = expected[12:] - expected[12:].mean()  # a common shift changes nothing
    assert np.allclose(found[1] - found[1].mean(), biases, atol=2e-3)


def test_layers_that_differ_between_seeds_or_are_zero_are_fresh() -> None:
    torch.manual_seed(0)
    one, other = TwoStages(), TwoStages()
    other.load_state_dict(one.state_dict())
    assert fresh_layers(one, other) == []
    nn.init.normal_(other.last.weight)
    assert fresh_layers(one, other) == ["last"]
    other.load_state_dict(one.state_dict())
    for network in (one, other):
        nn.init.zeros_(network.last.weight)
    assert fresh_layers(one, other) == ["last"]


class _Sharpened(TwoStages):
    def forward(self, images: Tensor) -> Tensor:
        return 3 * super().forward(images) + 1  # type: ignore[no-any-return]


def test_a_layer_that_does_not_make_the_output_is_refused() -> None:
    network = _Sharpened(classes=2)
    model = lloss.attach(network, size=8)
    labeled = LabeledImages.of(model, np.zeros((4, 8, 8, 3), np.uint8), [0] * 4)
    with pytest.raises(SettingsError, match="changes the output of its fresh layer"):
        train_last_layer(model, network.last, labeled)


def test_mistakes_are_named(
    labeled: LabeledSet, frozen: TrainSettings, trained: Path, tmp_path: Path
) -> None:
    def refused(
        error: type[Exception], match: str, rows: range = range(60), **changes: object
    ) -> None:
        settings = dataclasses.replace(frozen, **changes)  # type: ignore[arg-type]
        with pytest.raises(error, match=match):
            train(labeled.take(rows), settings, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused(SettingsError, "has no trained weights; pass --weights", weights="none")
    refused(SettingsError, "trains the head alone", head=False)
    refused(LabelError, "19 labeled images are too few", range(0, 57, 3))
    with pytest.raises(SettingsError, match="leave the warm start out"):
        train(labeled, frozen, tmp_path / "run", warm_start=trained)
    network = TwoStages()
    with pytest.raises(SettingsError, match=r"2 layers of .*'first.0', Conv2d, is the first"):
        _last_layer(network, ["first.0", "last"], frozen)
    assert _last_layer(network, ["last"], frozen) is network.last
    assert _last_layer(network, [], frozen) is None


def test_folds_are_of_equal_sizes() -> None:
    folds = folds_of(23, 5, 0)
    assert sorted(np.bincount(folds)) == [4, 4, 5, 5, 5]


def test_the_command_says_how_well_the_head_ranks(
    photos: Path,
    frozen: TrainSettings,
    tiny_options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = [*tiny_options, "--weights", frozen.weights, "--freeze", "--lr", "0.2"]
    result = call(capsys, "train", photos, *options, "-o", tmp_path / "run", code=0)
    assert "no step of training, so without effect: " in result.err and "lr = 0.2" in result.err
    assert "60 labeled images by 5-fold cross-validation: accuracy" in result.err
    assert result.out.endswith("checkpoint.pt: the trained head of a frozen network\n")
