"""What a head that is trained beside its network should read: paired trials on CIFAR-10.

    python benchmarks/joint_heads.py --arrays FOLDER --out RESULTS.jsonl

FOLDER holds CIFAR-10 as ``train_images.npy``, ``train_labels.npy`` and the same of ``test``. A
trial draws labeled images and trains a network on them as ``lloss train`` does, with automatic
settings, from random weights. By default the head's gradient does not reach the network, so all
variants of the head learn beside one training: each gets what the network's own head gets at each
step, and takes a step of its own at the same rate. Measured is how a variant ranks the losses of
test images (Spearman). What RESULTS.jsonl has is not computed again. Figures and conclusions:
``benchmarks/LOG.md``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lloss.data.labeled_set import LabeledSet
from lloss.modeling.head import LossPredictionHead
from lloss.modeling.head_losses import HEAD_LOSSES
from lloss.pools import Item
from lloss.statistics.paired_trials import mean_interval
from lloss.statistics.ranking_metrics import spearman
from lloss.tasks import get_task
from lloss.tasks.presets import resolve_settings
from lloss.tasks.train_settings import TrainSettings
from lloss.training.decisions import decide
from lloss.training.trainer import Trainer, predict
from lloss.training.training_data import TrainingData

PATH = click.Path(path_type=Path)
MODEL = "resnet10-cifar-narrow"
CLASSES = tuple(str(number) for number in range(10))
SUMMARY = 10
"""Numbers in the summary: a map of C channels has C / SUMMARY times as many."""


@dataclass(frozen=True)
class Recipe:
    """How a variant of the head differs from the network's own."""

    maps: int = 4  # the deepest that it reads, of four
    summary: bool = True
    decay: float | None = None  # of the weights that the maps go through; None: the optimizer's
    rate: bool = False  # maps of C channels learn at SUMMARY / C of the rate
    dropout: float = 0.0  # of the maps' hidden units
    hidden_maps: float = 0.0  # share of a batch's images whose maps are dropped as a whole
    zero: bool = False  # whether the maps' share of the prediction is 0 at first


REFERENCE = "maps and summary"
VARIANTS = {
    "summary alone": Recipe(maps=0),
    "maps alone": Recipe(summary=False),
    "last map and summary": Recipe(maps=1),
    "weight decay .05 of the maps": Recipe(decay=0.05),
    "weight decay .5 of the maps": Recipe(decay=0.5),
    "maps at 10 / C of the rate": Recipe(rate=True),
    "dropout .5 of the maps": Recipe(dropout=0.5),
    "dropout .9 of the maps": Recipe(dropout=0.9),
    "maps hidden of half the images": Recipe(hidden_maps=0.5),
    "maps 0 at first": Recipe(zero=True),
    "maps 0 at first, weight decay .05": Recipe(zero=True, decay=0.05),
    "maps 0 at first, 10 / C of the rate": Recipe(zero=True, rate=True),
}


class Head(nn.Module):
    """A :class:`lloss.LossPredictionHead` whose maps are held back by a recipe."""

    def __init__(self, channels: Sequence[int], recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        chosen = list(channels)[len(channels) - recipe.maps :]
        drawn = LossPredictionHead(chosen, SUMMARY if recipe.summary else 0)
        layers, weight = list(drawn.inputs), drawn.output.weight.detach()[0]
        width = len(chosen) * layers[0].out_features
        self.maps = nn.ModuleList(layers[: len(chosen)])
        self.summary = layers[-1] if recipe.summary else None
        self.of_maps = nn.Parameter(weight[:width] * (not recipe.zero))
        self.of_summary = nn.Parameter(weight[width:].clone())
        self.bias = drawn.output.bias

    def forward(self, pooled: Sequence[Tensor], summary: Tensor) -> Tensor:
        """Predict the loss, float [N]."""
        recipe, predicted = self.recipe, self.bias.expand(len(summary))
        if self.summary is not None:
            predicted = predicted + torch.relu(self.summary(summary)) @ self.of_summary
        if len(self.maps):
            seen = zip(self.maps, list(pooled)[len(pooled) - recipe.maps :])
            hidden = torch.cat([torch.relu(layer(x)) for layer, x in seen], 1)
            hidden = nn.functional.dropout(hidden, recipe.dropout, self.training)
            if self.training and recipe.hidden_maps:
                hidden = hidden * (torch.rand(len(hidden), 1) >= recipe.hidden_maps)
            predicted = predicted + hidden @ self.of_maps
        return predicted

    def groups(self, decay: float) -> list[dict[str, Any]]:
        """Divide the parameters, each group with its decay and its multiple of the rate."""
        recipe = self.recipe
        held = decay if recipe.decay is None else recipe.decay
        own: list[nn.Parameter] = [self.bias, self.of_summary]
        own += [] if self.summary is None else list(self.summary.parameters())
        found = [{"params": own, "weight_decay": decay, "times": 1.0}]
        for layer in self.maps:
            times = SUMMARY / layer.in_features if recipe.rate else 1.0
            found.append({"params": list(layer.parameters()), "weight_decay": held, "times": times})
        found.append({"params": [self.of_maps], "weight_decay": held, "times": 1.0})
        return found


class Beside(Trainer):
    """A trainer that keeps the losses of its last step, and what its head has read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.losses = torch.empty(0)
        self.read: tuple[list[Tensor], Tensor] = [], torch.empty(0)
        assert self.model.head is not None
        self.model.head.register_forward_pre_hook(self._keep)

    def _keep(self, head: nn.Module, inputs: tuple[list[Tensor], Tensor]) -> None:
        pooled, summary = inputs
        self.read = [values.detach() for values in pooled], summary

    def _count(self, predicted: Tensor | None, losses: Tensor, head_loss: float) -> None:
        super()._count(predicted, losses, head_loss)
        self.losses = losses

    @property
    def rate(self) -> float:
        """That of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])


class Heads:
    """The variants of one trial, which learn beside a trainer's own head."""

    def __init__(self, trainer: Beside, seed: int) -> None:
        self.trainer, settings = trainer, trainer.settings
        if settings.optimizer != "sgd" or settings.clip:
            raise SystemExit(f"{settings.model}: heads beside it are trained by SGD without clip")
        channels = [tap.channels for tap in trainer.model.taps]
        torch.manual_seed(seed)
        self.heads = {name: Head(channels, recipe) for name, recipe in VARIANTS.items()}
        groups = [
            group for head in self.heads.values() for group in head.groups(settings.weight_decay)
        ]
        self.optimizer = torch.optim.SGD(groups, settings.lr, momentum=settings.momentum)
        self.compare = partial(HEAD_LOSSES[settings.head_loss], xi=settings.xi)

    def advance(self) -> None:
        """Take one step of all, after the trainer's."""
        rate = self.trainer.rate
        self.trainer.advance()
        losses = self.trainer.losses
        total = sum(self.compare(head(*self.trainer.read), losses) for head in self.heads.values())
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[union-attr]
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["times"]
        self.optimizer.step()

    def measure(self, test: TrainingData) -> dict[str, float]:
        """Measure Spearman's correlation of each score, and the network's accuracy."""
        trainer, objective = self.trainer, self.trainer.model.objective
        columns: dict[str, list[Tensor]] = {}
        targets = torch.from_numpy(np.asarray(test.targets))
        for head in self.heads.values():
            head.eval()
        for rows, forward in predict(trainer.model, trainer.settings, test.images):
            with torch.no_grad():
                found = {
                    "true": objective.loss_per_image(forward.output, targets[rows]),
                    "accuracy": objective.metric(forward.output, targets[rows]),
                    "entropy": objective.outputs(forward.output)["entropy"],
                    REFERENCE: forward.loss,
                    **{name: head(*trainer.read) for name, head in self.heads.items()},
                }
            for name, values in found.items():
                columns.setdefault(name, []).append(values)
        scores = {name: torch.cat(values).double().numpy() for name, values in columns.items()}
        true, right = scores.pop("true"), scores.pop("accuracy")
        figures = {name: spearman(score, true) for name, score in scores.items()}
        return {"accuracy": float(right.mean()), **figures}


def run_trial(train: TrainingData, test: TrainingData, labels: int, seed: int) -> dict[str, float]:
    """Draw labeled images, train on them, and measure."""
    data = train.take(np.random.default_rng(seed).permutation(len(train))[:labels])
    heads = Heads(Beside(automatic_settings(data, seed), data, "cpu"), seed)
    while not heads.trainer.finished:
        heads.advance()
    return heads.measure(test)


def automatic_settings(data: TrainingData, seed: int) -> TrainSettings:
    """Decide the settings as ``lloss train`` and ``lloss simulate --full`` do."""
    items = [Item(str(row), partial(data.images.__getitem__, row)) for row in range(len(data))]
    given = resolve_settings("default", model=MODEL, weights="none", seed=seed)
    labeled = LabeledSet(items, list(data.targets), "labeled images")
    return decide(get_task(given.task), given, labeled).settings


def read_split(arrays: Path, split: str, rows: tuple[int, int]) -> TrainingData:
    """Read some of the images of CIFAR-10, as they are."""
    images, labels = (np.load(arrays / f"{split}_{of}.npy") for of in ("images", "labels"))
    some = slice(*rows)
    return TrainingData(images[some], labels[some].astype(np.int64), CLASSES)


def table(rows: Sequence[dict[str, Any]], labels: int) -> str:
    """The paired differences of all variants to the network's own head, at one size."""
    some = [row for row in rows if row["labels"] == labels]
    names = [name for name in some[0] if name not in ("labels", "seed", "accuracy")]
    found = {name: np.array([row[name] for row in some]) for name in names}
    accuracy = np.mean([row["accuracy"] for row in some])
    lines = [
        f"\n{labels} labels, {len(some)} trials, accuracy {accuracy:.3f}\n",
        "| variant | Spearman | less the first, 95 % interval |\n|---|--:|--:|",
    ]
    for name in sorted(names, key=lambda name: name != REFERENCE):
        difference = _difference(found[name] - found[REFERENCE])
        lines.append(f"| {name} | {found[name].mean():.3f} | {difference} |")
    return "\n".join(lines)


def _difference(values: NDArray[np.float64]) -> str:
    if not values.any() or len(values) < 2:
        return ""
    low, high = mean_interval(values)
    return f"{values.mean():+.4f} ({low:+.4f} to {high:+.4f})"


@click.command()
@click.option("--arrays", type=PATH, required=True, help="Folder of CIFAR-10 as NumPy arrays.")
@click.option("--out", type=PATH, required=True, help="Results, one line a trial.")
@click.option("--train", nargs=2, default=(0, 10_000), show_default=True, help="Rows to draw of.")
@click.option("--test", nargs=2, default=(0, 2000), show_default=True, help="Rows to measure on.")
@click.option("--labels", multiple=True, default=(500, 1000, 2500), show_default=True)
@click.option("--trials", default=6, show_default=True)
def main(
    arrays: Path,
    out: Path,
    train: tuple[int, int],
    test: tuple[int, int],
    labels: tuple[int, ...],
    trials: int,
) -> None:
    """Run the trials that are missing, and print a table of each size."""
    torch.set_num_threads(1)
    images = read_split(arrays, "train", train), read_split(arrays, "test", test)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    done = {(row["labels"], row["seed"]) for row in rows}
    for seed in range(trials):
        for count in labels:
            if (count, seed) in done:
                continue
            rows.append({"labels": count, "seed": seed, **run_trial(*images, count, seed)})
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    for count in labels:
        print(table(rows, count))


if __name__ == "__main__":
    main()
