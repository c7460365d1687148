"""A head on a frozen network: what it learns, what stays as it was, and errors."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import lloss
from lloss.errors import LabelError, SettingsError
from lloss.images.decode import decode_whole
from lloss.modeling.attached_model import AttachedModel
from lloss.simulation.image_variants import variant_of
from lloss.statistics.ranking_metrics import accuracy_interval, ranking_figures
from lloss.training import head_training
from lloss.training.cautions import cautions
from lloss.training.feature_cache import run_network
from lloss.training.fit_head import HeadFit
from lloss.training.head_stack import scale_of
from lloss.training.head_training import folds_of, held_out_predictions, train_head
from lloss.training.labeled_batches import LabeledImages

from ..data.test_near_copies import item_of, scene
from ..outside_networks import DepthLoss, DepthNet, TwoStages


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train heads in fewer steps."""
    monkeypatch.setattr(head_training, "STEPS", 150)


class _Bright(nn.Module):
    """Its loss on the target 0 is known: it grows with the image's brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.last = nn.Conv2d(4, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 2, device=images.device)
        logits[:, 1] = images.mean((1, 2, 3)) + 0 * self.last(self.stem(images)).mean((1, 2, 3))
        return logits


def _images(count: int = 80, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    levels = random.integers(0, 200, (count, 1, 1, 1))
    return (levels + random.integers(0, 56, (count, 8, 8, 3))).astype(np.uint8)


def _model(**options: Any) -> AttachedModel:
    torch.manual_seed(0)
    return lloss.attach(_Bright(), size=8, taps=["stem", "last"], **options)


def _normalized(model: AttachedModel, images: np.ndarray) -> Tensor:
    mean, std = model.preparation.mean, model.preparation.std
    scaled = (torch.from_numpy(images).double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    return scaled.permute(0, 3, 1, 2).float()


def test_the_head_learns_the_order_of_the_losses_and_the_network_stays() -> None:
    model = _model(classes=["dark", "light"], summary=False)
    model.train()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    fit = lloss.fit_head(model, _images(), ["dark"] * 80)
    assert isinstance(fit, HeadFit) and (fit.images, fit.held_out, fit.folds) == (80, 80, 5)
    assert fit.ranking.ranking_accuracy > 0.9 and fit.interval[0] > 0.5
    assert "pairs of 80 held-out images right (5-fold cross-validation)" in str(fit)
    after = model.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert model.training and all(p.requires_grad for p in model.parameters())
    model.eval()
    x = _normalized(model, _images(200, 1))
    with torch.no_grad():
        out, predicted = model(x)
    losses = F.cross_entropy(out, torch.zeros(200, dtype=torch.int64), reduction="none")
    right = model.network(_normalized(model, _images()))
    assert fit.metric == float((right.argmax(1) == 0).float().mean())
    brightness = x.mean((1, 2, 3))
    assert torch.equal(losses.argsort(), brightness.argsort())
    assert np.corrcoef(predicted.argsort().argsort(), losses.argsort().argsort())[0, 1] > 0.95
    expected = F.cross_entropy(out[:1].double(), torch.tensor([0]))
    assert torch.allclose(model.loss_per_image(out, torch.zeros(200).long())[0].double(), expected)


def test_every_form_of_the_same_images_gives_the_same_head() -> None:
    images, targets = _images(), np.arange(80) % 2
    rows = TensorDataset(_normalized(_model(), images), torch.from_numpy(targets))
    forms: list[tuple[Any, Any]] = [
        (images, targets),
        (list(images), [str(target) for target in targets]),
        (torch.from_numpy(images), torch.from_numpy(targets)),
        (_normalized(_model(), images), list(targets)),
        (DataLoader(rows, 40), None),
        (rows, None),
    ]
    unseen = _normalized(_model(), _images(20, 1))
    found = []
    for data, labels in forms:
        model = _model()
        lloss.fit_head(model, data, labels)
        with torch.no_grad():
            predicted = model.eval()(unseen)[1]
        found.append(predicted - predicted.mean())  # its level is arbitrary
    for other in found[1:]:
        assert torch.allclose(other, found[0], atol=1e-2)


def test_figures_are_those_of_heads_that_were_not_trained_on_the_image() -> None:
    torch.manual_seed(0)
    model = lloss.attach(TwoStages(), size=8)
    images, targets = _images(40), np.arange(40) % 3
    fit = lloss.fit_head(model, images, targets, seed=5)
    cache = run_network(model, LabeledImages.of(model, images, targets))
    assert model.tapped.head is not None
    right = pairs = 0.0
    for fold in range(5):
        folds = folds_of(40, 5, 5)
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        head = train_head(
            model.tapped.head, cache, torch.from_numpy(rest), lloss.losses.soft_pairs, 5
        )
        with torch.no_grad():
            predicted = head([values[held] for values in cache.inputs]).numpy()
        for one, other in itertools.permutations(range(len(held)), 2):
            if cache.losses[held[one]] > cache.losses[held[other]]:
                pairs += 1
                right += predicted[one] > predicted[other]
    assert fit.ranking.ranking_accuracy == pytest.approx(right / pairs)


def test_near_duplicates_are_held_out_together() -> None:
    scenes = [item_of(scene(number)) for number in range(12)]
    frames = [variant_of(item, variant, True) for item in scenes for variant in (0, 1, 2, 3)]
    images = np.stack([decode_whole(item.read()) for item in frames])
    groups = np.arange(48) // 4 * 4
    torch.manual_seed(0)
    model = lloss.attach(TwoStages(), size=64, summary=False)
    targets = np.arange(48) % 3
    fit = lloss.fit_head(model, images, targets, seed=5)
    assert fit.groups and fit.groups.first.tolist() == groups.tolist()
    note = "36 of 48 labeled images are near-duplicates of others: held out together with these"
    assert f"note: {note}" in str(fit) and note in fit.as_dict()["notes"]
    assert not any("trained on" in line for line in cautions(fit.as_dict(), "accuracy"))
    cache = run_network(model, LabeledImages.of(model, images, targets), grouped=True)
    folds = folds_of(48, 5, 5, groups)
    found = held_out_predictions(model.head, cache, lloss.losses.soft_pairs, 5, folds)
    assert fit.ranking == ranking_figures(found.predicted, cache.image_losses, folds=folds)
    counted = accuracy_interval(
        found.predicted, cache.image_losses, folds, clusters=np.arange(48) // 4
    )
    assert fit.interval == counted
    assert fit.as_dict()["intervals"]["head"]["ranking_accuracy"] == list(counted)
    assert str(fit.unit).startswith("in no unit (but for near-duplicates, 48 unseen images are of")
    once = lloss.fit_head(model, images, targets, holdout=0.25)
    assert once.held_out == 12


def test_enough_images_are_held_out_once() -> None:
    fit = lloss.fit_head(_model(), _images(250), np.arange(250) % 2)
    assert (fit.held_out, fit.folds) == (50, 1) and "cross" not in str(fit)


def test_a_labeled_set_of_a_pool_teaches_the_head(photos: Path) -> None:
    labeled = lloss.open_labeled(photos)
    torch.manual_seed(0)
    model = lloss.attach(TwoStages(), classes=["bright", "dark", "red"], size=8)
    fit = lloss.fit_head(model, labeled, views=2, holdout=0.5)
    pixels = [np.asarray(Image.open(io.BytesIO(item.read()))) for item in labeled.items]
    with torch.no_grad():
        out = model.eval().network(_normalized(model, np.stack(pixels)))
    places = torch.tensor([model.classes.index(label) for label in labeled.labels])
    assert (fit.held_out, fit.folds) == (30, 1)
    assert fit.mean_loss == pytest.approx(float(F.cross_entropy(out, places)), abs=1e-5)
    other = lloss.attach(TwoStages(), classes=["bright", "dark", "blue"], size=8)
    with pytest.raises(LabelError, match=r"20 of 60 labels show no class.*'red'"):
        lloss.fit_head(other, labeled)


def test_masks_are_the_targets_of_a_segmentation() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
    model = lloss.attach(network, task="segmentation", classes=["field", "road"], size=8)
    images, masks = _images(30), np.random.default_rng(0).integers(-1, 2, (30, 8, 8))
    fit = lloss.fit_head(model, images, masks)
    with torch.no_grad():
        logits = network(_normalized(model, images))
    pixels = F.cross_entropy(logits, torch.from_numpy(masks), reduction="none", ignore_index=-1)
    expected = pixels.sum((1, 2)) / torch.from_numpy((masks >= 0).sum((1, 2)))
    assert fit.mean_loss == pytest.approx(float(expected.mean()), abs=1e-5)


def test_a_task_of_ones_own_with_a_summary_and_a_metric() -> None:
    torch.manual_seed(0)
    model = lloss.attach(DepthNet(), task=DepthLoss(), size=8)
    images = torch.randn(60, 3, 8, 8)
    targets = torch.rand(60)
    fit = lloss.fit_head(model, images, targets, loss="margin")
    with torch.no_grad():
        out, _ = model.eval()(images)
    errors = (out["depth"].mean((1, 2)) - targets).abs()
    assert fit.metric == pytest.approx(float((errors < 0.1).float().mean()))
    assert fit.mean_loss == pytest.approx(float(errors.mean()), abs=1e-6)


def test_views_are_made_by_the_augment_of_a_task_of_ones_own() -> None:
    class Brighter(DepthLoss):
        seen = 0

        def augment(self, images: Tensor, targets: Any, generator: Any) -> Any:
            Brighter.seen += len(images)
            return images + 1, targets

    model = lloss.attach(DepthNet(), task=Brighter(), size=8)
    fit = lloss.fit_head(model, _images(30), torch.rand(30), views=2)
    assert (fit.images, Brighter.seen) == (30, 60)
    plain = lloss.attach(DepthNet(), task=DepthLoss(), size=8)
    with pytest.raises(SettingsError, match="views: are made for classification"):
        lloss.fit_head(plain, _images(30), torch.rand(30), views=2)


def test_images_with_hardly_a_loss_are_suspected_to_be_those_of_training() -> None:
    class Given:
        def loss_per_image(self, output: Tensor, targets: Tensor) -> Tensor:
            return targets

    own = lloss.attach(_Bright(), task=Given(), size=8)
    losses = torch.full((40,), 1e-4)
    losses[3] = 2.0
    fit = lloss.fit_head(own, _images(40), losses)
    assert "not trained on" in fit.notes[0] and "98%" in fit.notes[0]
    assert fit.notes[0] in str(fit)


@pytest.mark.parametrize(("share", "notes"), [(0.5, 1), (0.6, 1), (0.9, 0)])
def test_a_network_that_guesses_is_suspected(share: float, notes: int) -> None:
    model, images = _model(), _images(60)
    with torch.no_grad():
        found = model.eval().network(_normalized(model, images)).argmax(1).numpy()
    wrong = np.arange(60) >= round(60 * share)
    fit = lloss.fit_head(model, images, np.where(wrong, 1 - found, found))
    assert fit.metric == pytest.approx(share)
    assert [f"{share:.0%} of 60 images right" in note for note in fit.notes] == [True] * notes


@pytest.mark.parametrize(
    ("data", "targets", "options", "error", "message"),
    [
        (_images(10), [0] * 10, {}, LabelError, "10 labeled images are too few"),
        (_images(30), [0] * 29, {}, LabelError, "30 images and 29 targets"),
        (_images(30), ["0"] * 29 + ["cat"], {}, LabelError, "the label 'cat'.*classes 0, 1"),
        (np.zeros((30, 8, 8, 3), np.uint8), [0] * 30, {}, LabelError, "the same loss"),
        ("folder", None, {}, LabelError, "a str: give a labeled set"),
        ([np.zeros(3)], None, {}, LabelError, r"batches must be \(images float"),
        ([b"broken"] * 30, [0] * 30, {}, LabelError, "not an image.*leave it out"),
        (_images(30), [0] * 30, {"loss": "hinge"}, SettingsError, "choose one of margin"),
        (_images(30), [0] * 30, {"holdout": 0.8}, SettingsError, "of at most 0.5"),
        (_images(30), [0] * 30, {"views": -1}, SettingsError, "views = -1: give a whole number"),
        (_images(30), [0] * 30, {"seed": 0.5}, SettingsError, "seed = 0.5: give a whole number"),
        (torch.zeros(30, 3, 8, 8), [0] * 30, {"views": 1}, SettingsError, "uint8"),
        (DataLoader([]), None, {"views": 1}, SettingsError, "leave views out"),
        (DataLoader([]), None, {}, LabelError, "no labeled image"),
    ],
)
def test_mistakes_are_named(
    data: Any, targets: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lloss.fit_head(_model(), data, targets, **options)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (lambda targets: targets[:-1], "gave 29 losses for 30 images"),
        (lambda targets: targets / 0, "30 of 30 images have an infinite or NaN loss"),
        (lambda targets: -targets, 'soft-pairs takes losses from 0 on; pass loss="margin"'),
    ],
)
def test_losses_that_teach_nothing_are_refused(losses: Any, message: str) -> None:
    class Own:
        def loss_per_image(self, output: Tensor, targets: Tensor) -> Tensor:
            found: Tensor = losses(targets)
            return found

    model = lloss.attach(_Bright(), task=Own(), size=8)
    with pytest.raises((SettingsError, LabelError), match=message):
        lloss.fit_head(model, _images(30), torch.rand(30) + 0.1)


@pytest.mark.parametrize(("shift", "noted"), [(0.0, True), (-0.5, False)])
def test_images_that_look_as_before_normalization_are_noted(shift: float, noted: bool) -> None:
    images = torch.from_numpy(_images()).permute(0, 3, 1, 2) / 255 + shift
    for mean, expected in (((0.5, 0.5, 0.5), noted), ((0, 0, 0), False)):
        fit = lloss.fit_head(_model(mean=mean, std=(1, 1, 1)), images, torch.zeros(80).long())
        found = [note for note in fit.notes if "from 0 to 1, as before normalization" in note]
        assert bool(found) is expected


def test_noise_of_float32_in_a_map_is_not_scaled_up() -> None:
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(100, 8, generator=random)
    values = 0.14 + 2e-6 * noise  # of a network gone dead
    mean, std = scale_of(values)
    assert torch.equal((values - mean) / std, torch.zeros(100, 8))
    mean, std = scale_of(0.14 + 0.01 * noise)
    assert float(std.max()) < 0.02
    small = torch.cat([torch.ones(100, 1), 1e-5 * noise], 1)  # by their own size they vary
    mean, std = scale_of(small)
    assert std.isinf().tolist() == [True] + 8 * [False]
    assert float(((small - mean) / std).abs().max()) < 0.2


class _Unsettled(nn.Module):
    """Detects nothing in eval mode: its batch norm divides by variances of long before."""

    def __init__(self, variance: float, blocks: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(blocks)
        )
        for conv, norm, _ in self.blocks:
            nn.init.normal_(conv.weight, std=0.03)
            nn.init.normal_(norm.bias)
            norm.running_var.fill_(variance)
        self.last = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        for block in self.blocks:
            images = block(images)
        return self.last(images.mean((2, 3)))


def test_a_network_that_sees_no_difference_between_images_is_refused() -> None:
    torch.manual_seed(0)
    images, labels = _images(), torch.arange(80) % 2
    dead = lloss.attach(_Unsettled(1.0), size=8, classes=["a", "b"], taps=["blocks.3"])
    with pytest.raises(LabelError, match="the same feature maps for all 80 images.*momentum"):
        lloss.fit_head(dead, images, labels)
    live = lloss.attach(_Unsettled(1e-3), size=8, classes=["a", "b"], taps=["blocks.3"])
    lloss.fit_head(live, images, labels)


def test_a_map_that_is_the_same_for_all_images_adds_nothing_to_the_prediction() -> None:
    torch.manual_seed(0)
    network = _Unsettled(1.0)
    model = lloss.attach(network, size=8, classes=["a", "b"], taps=["blocks.0", "blocks.3"])
    lloss.fit_head(model, _images(), torch.arange(80) % 2)
    first, second, _ = (layer.weight for layer in model.head.inputs)
    assert first.abs().max() > 0 and not second.any()


@pytest.mark.parametrize("count", [80, 260])
def test_predicted_losses_are_in_the_unit_of_the_losses(count: int) -> None:
    """Also where heads of folds, or of a part of the images, gave the predictions to fit on."""
    model = _model(classes=["dark", "light"], summary=False)
    fit = lloss.fit_head(model, _images(count), ["dark"] * count)
    assert fit.unit == model.unit and fit.unit.name == "nats"
    assert fit.unit.images == fit.held_out == (80 if count == 80 else 52)
    assert ("5-fold" in fit.unit.source) == (count == 80)
    assert f"the predicted loss is {fit.unit}" in str(fit)
    model.eval()
    images = _images(500, 1)
    with torch.no_grad():
        out, predicted = model(_normalized(model, images))
        true = model.loss_per_image(out, torch.zeros(500, dtype=torch.int64))
    found = fit.unit.losses(predicted.numpy())
    assert found.mean() == pytest.approx(float(true.mean()), rel=0.1)
    assert lloss.evaluate(model, images, ["dark"] * 500).unit.a == pytest.approx(
        fit.unit.a, rel=0.25
    )


def test_a_unit_is_of_the_weights_that_it_was_fitted_for() -> None:
    model = _model(classes=["dark", "light"])
    assert model.unit.name == "" and "only fit_head fits one" in model.unit.note
    lloss.fit_head(model, _images(), ["dark"] * 80)
    assert model.unit.name == "nats"
    with torch.no_grad():
        next(model.head.parameters()).mul_(2)
    assert model.unit.name == "" and model.unit.note.startswith("the weights have changed")
