"""Networks from outside, as a user brings them: how long the head takes, and what it is worth.

    python benchmarks/bring_your_own.py --arrays FOLDER [--devkit DEVKIT] [--only NAME]

Each network is first trained without lloss: 2,000 CIFAR-10 images, from random weights (a detector:
BCCD's images). Then ``attach`` → ``fit_head`` on 1,000 other images → ``to_onnx`` → ``Scorer``, and
the predicted losses of 2,000 further images are compared with the true ones. FOLDER holds
``train_images.npy``, ``train_labels.npy``, ``test_images.npy`` and ``test_labels.npy``; DEVKIT the
``VOCdevkit`` of a detection set. Networks of packages that are not installed are left out, and
named. Prints a table row as each network ends; ``--out`` keeps them, and a row that is there
already is not computed again.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

import lloss
from lloss.modeling.network import Normalize
from lloss.statistics.ranking_metrics import ranking_figures
from lloss.training.feature_cache import run_network
from lloss.training.labeled_batches import LabeledImages

CLASSES = ("airplane", "automobile", "bird", "cat", "deer")
CLASSES += ("dog", "frog", "horse", "ship", "truck")
SIZE = 64
TRAIN, FIT, TEST = 2000, slice(2000, 3000), 2000
BATCH = 64
CELLS = ("Platelets", "RBC", "WBC")


@dataclass(frozen=True)
class Recipe:
    """How networks are trained: AdamW under one cycle."""

    epochs: int
    rate: float
    decay: float
    clip: float


CLASSIFIER = Recipe(5, 1e-3, 0.01, 1.0)
DETECTOR = Recipe(15, 2e-3, 1e-4, 10.0)


@dataclass(frozen=True)
class Steps:
    """Batches of normalized images and targets, drawn again in each epoch."""

    count: int  # of an epoch
    epoch: Callable[[], Iterator[tuple[Tensor, Any]]]


@dataclass(frozen=True)
class Subject:
    """What networks learn, and the images that they are measured on."""

    given: Callable[[str], dict[str, Any]]  # options of attach, by the network's name
    steps: Callable[[lloss.AttachedModel], Steps]
    recipe: Recipe
    known: tuple[Any, ...]  # labeled images of fit_head
    test: tuple[Any, ...]  # others
    images: tuple[Any, ...]  # those of the test to score, and a sample for the export


@dataclass(frozen=True)
class Data:
    """Images uint8 [N, 64, 64, 3] and class indices int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


class Own(nn.Module):
    """What somebody writes at home: four convolutions, and a dict as output."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128, 128)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())
                for a, b in itertools.pairwise(widths)
            )
        )
        self.classify = nn.Linear(128, len(CLASSES))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.classify(self.blocks(images).mean((2, 3)))}


def timm_network(name: str, **given: Any) -> nn.Module:
    import timm

    return timm.create_model(name, num_classes=len(CLASSES), **given)


def hugging_face_vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=192,
            num_hidden_layers=6,
            num_attention_heads=3,
            intermediate_size=384,
            image_size=SIZE,
            patch_size=8,
            num_labels=len(CLASSES),
        )
    )


def hugging_face_resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            num_labels=len(CLASSES),
        )
    )


def of_torchvision(name: str) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, num_classes=len(CLASSES))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "torchvision resnet18": lambda: of_torchvision("resnet18"),
    "torchvision mobilenet_v3_small": lambda: of_torchvision("mobilenet_v3_small"),
    "timm resnet18": lambda: timm_network("resnet18"),
    "timm tf_efficientnet_lite0": lambda: timm_network("tf_efficientnet_lite0"),
    "timm convnext_atto": lambda: timm_network("convnext_atto"),
    "timm vit_tiny_patch16_224": lambda: timm_network("vit_tiny_patch16_224", img_size=SIZE),
    "transformers ViT": hugging_face_vit,
    "transformers ResNet": hugging_face_resnet,
    "own module": Own,
}


def load(folder: Path, split: str, rows: slice) -> Data:
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r")[rows]
    larger = [np.asarray(Image.fromarray(image).resize((SIZE, SIZE))) for image in images]
    return Data(np.stack(larger), np.load(folder / f"{split}_labels.npy")[rows].astype(np.int64))


def ultralytics_network(name: str) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    network = DetectionModel(f"{name}.yaml", nc=len(CELLS), verbose=False)
    network.names = dict(enumerate(CELLS))
    return network


def torchvision_detector(name: str) -> nn.Module:
    build = getattr(torchvision.models.detection, name)
    return settle(build(weights=None, weights_backbone=None, num_classes=len(CELLS) + 1))


def settle(network: nn.Module) -> nn.Module:
    """Raise batch norm's momentum, in place: of MobileNetV3, .01 or .03, it is for long runs."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return network


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "ultralytics yolo11n": lambda: ultralytics_network("yolo11n"),
    "torchvision ssdlite320_mobilenet_v3_large": lambda: torchvision_detector(
        "ssdlite320_mobilenet_v3_large"
    ),
}


def train(model: lloss.AttachedModel, steps: Steps, recipe: Recipe, name: str) -> None:
    """An ordinary training without lloss's trainer, in place; the head learns nothing."""
    parameters = list(model.network.parameters())
    optimizer = torch.optim.AdamW(parameters, recipe.rate, weight_decay=recipe.decay)
    count = recipe.epochs * steps.count
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, count)
    model.train()
    for _ in tqdm(range(recipe.epochs), f"train {name}", disable=None, leave=False):
        for images, targets in steps.epoch():
            loss = model.loss_per_image(model(images)[0], targets).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimizer.step()
            schedule.step()
    model.eval()


def classifiers(folder: Path) -> Subject:
    """CIFAR-10's images, those to train on flipped at random."""
    first, known = (load(folder, "train", rows) for rows in (slice(TRAIN), FIT))
    test, generator = load(folder, "test", slice(TEST)), torch.Generator().manual_seed(0)

    def steps(model: lloss.AttachedModel) -> Steps:
        generator.manual_seed(0)
        normalize = Normalize(model.preparation.mean, model.preparation.std)
        settle(model)

        def epoch() -> Iterator[tuple[Tensor, Any]]:
            for rows in torch.randperm(TRAIN, generator=generator).split(BATCH)[: TRAIN // BATCH]:
                images = torch.from_numpy(first.images[rows.numpy()])
                if torch.rand((), generator=generator) < 0.5:
                    images = images.flip(2)
                yield normalize(images), torch.from_numpy(first.labels[rows.numpy()])

        return Steps(TRAIN // BATCH, epoch)

    given = {"task": "classification", "classes": CLASSES, "size": SIZE}
    pairs = [(data.images, data.labels) for data in (known, test)]
    return Subject(lambda name: given, steps, CLASSIFIER, *pairs, (test.images, known.images))


def detectors(devkit: Path) -> Subject:
    """BCCD's images, in the same batches in each epoch."""
    first, known, test = (
        lloss.open_labeled(f"{devkit}:{split}", task="detection")
        for split in ("train", "val", "test")
    )

    def given(name: str) -> dict[str, Any]:
        size = 192 if name.startswith("ultralytics") else 320
        return {"task": "detection", "classes": CELLS, "size": size}

    def steps(model: lloss.AttachedModel) -> Steps:
        batches = list(LabeledImages.of(model, first).batches())
        return Steps(
            len(batches), lambda: (batches[row] for row in torch.randperm(len(batches)).tolist())
        )

    images = tuple([item.read() for item in labeled.items] for labeled in (test, known))
    return Subject(given, steps, DETECTOR, (known,), (test,), images)


def measured(name: str, build: Callable[[], nn.Module], subject: Subject) -> dict[str, Any]:
    """Train a network, give it a head, and compare the predicted losses with the true ones."""
    torch.manual_seed(0)
    network, given = build(), subject.given(name)
    model = lloss.attach(network, **given)
    train(model, subject.steps(model), subject.recipe, name)
    began = time.perf_counter()
    model = lloss.attach(network, **given)
    attach_seconds = time.perf_counter() - began
    began = time.perf_counter()
    lloss.fit_head(model, *subject.known)
    fit_seconds = time.perf_counter() - began
    found = run_network(model, LabeledImages.of(model, *subject.test))
    columns, parity = scored(model, *subject.images)
    return {
        "network": name,
        "taps": [tap.module for tap in model.taps],
        "attach": attach_seconds,
        "fit_head": fit_seconds,
        "parity": parity,
        "accuracy": math.nan if found.metric is None else found.metric,
        "head": ranking_figures(columns["loss"], found.image_losses).ranking_accuracy,
        "entropy": ranking_figures(columns["entropy"], found.image_losses).ranking_accuracy,
    }


def scored(
    model: lloss.AttachedModel, images: Any, sample: Any
) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Export, score by onnxruntime, and return the columns and the largest difference of loss."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        manifest = lloss.to_onnx(model, path, sample=sample)
        with lloss.Scorer(path, provider="cpu") as scorer:
            columns = dict(scorer.score(images).columns)
    return columns, manifest.fidelity["torch_parity"]["max_abs_difference"]["loss"]


def markdown(row: dict[str, Any]) -> str:
    figures = [f"{row['attach']:.1f}", f"{row['fit_head']:.1f}", f"{row['parity']:.1e}"]
    ranked = [f"{row[name]:.3f}" for name in ("head", "entropy")]
    accuracy = "–" if math.isnan(row["accuracy"]) else f"{row['accuracy']:.3f}"
    taps = ", ".join(f"`{tap}`" for tap in row["taps"])
    return f"| {row['network']} | {taps} | {' | '.join([*figures, accuracy, *ranked])} |"


HEADER = """\
| network | taps | attach, s | fit_head, s | parity | accuracy | ranking: head | ranking: entropy |
|---|---|--:|--:|--:|--:|--:|--:|"""


@click.command()
@click.option("--arrays", type=click.Path(path_type=Path), required=True, help="CIFAR-10.")
@click.option("--devkit", type=click.Path(path_type=Path), help="BCCD's VOCdevkit.")
@click.option("--only", multiple=True, help="Names of networks to run.")
@click.option("--threads", default=2)
@click.option("--out", type=click.Path(path_type=Path), help="JSON lines, to go on from.")
def main(
    arrays: Path, devkit: Path | None, only: tuple[str, ...], threads: int, out: Path | None
) -> None:
    """Measure each network."""
    torch.set_num_threads(threads)
    lines = out.read_text().splitlines() if out and out.exists() else []
    done = {row["network"]: row for row in map(json.loads, lines)}
    print(HEADER)

    @functools.cache
    def subject(detects: bool) -> Subject:
        return detectors(devkit) if detects and devkit else classifiers(arrays)

    for name, build in (NETWORKS | DETECTORS if devkit else NETWORKS).items():
        if only and name not in only:
            continue
        if name not in done:
            try:
                done[name] = measured(name, build, subject(name in DETECTORS))
            except ImportError as error:
                print(f"{name}: left out, {error}", flush=True)
                continue
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(done[name]) + "\n")
        print(markdown(done[name]), flush=True)


if __name__ == "__main__":
    main()
