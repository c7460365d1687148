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

import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable
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
from torch.nn import functional as F
from tqdm import tqdm

import lloss
from lloss.data.labeled_set import LabeledSet
from lloss.modeling.network import Normalize
from lloss.modeling.prediction import prediction_of
from lloss.statistics.ranking_metrics import ranking_figures
from lloss.training.labeled_batches import LabeledImages

CLASSES = ("airplane", "automobile", "bird", "cat", "deer")
CLASSES += ("dog", "frog", "horse", "ship", "truck")
SIZE = 64
TRAIN, FIT, TEST = 2000, 1000, 2000
EPOCHS, BATCH = 5, 64
CELLS = ("Platelets", "RBC", "WBC")
DETECTOR_EPOCHS = 15


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


def train(network: nn.Module, data: Data, mean: Any, std: Any, name: str) -> None:
    """An ordinary training without lloss, in place."""
    normalize = Normalize(mean, std)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.01)
    batches = len(data.images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, EPOCHS * batches)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1  # torchvision's .01 for MobileNetV3 is for longer trainings
    for _ in tqdm(range(EPOCHS), f"train {name}", disable=None, leave=False):
        for rows in torch.randperm(len(data.images), generator=generator).split(BATCH)[:batches]:
            images = torch.from_numpy(data.images[rows.numpy()])
            if torch.rand((), generator=generator) < 0.5:
                images = images.flip(2)
            logits = prediction_of(network(normalize(images)))
            loss = F.cross_entropy(logits, torch.from_numpy(data.labels[rows.numpy()]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    network.eval()


def true_losses(model: lloss.AttachedModel, data: Data) -> tuple[NDArray[np.float32], float]:
    """The network's loss on each image, and its accuracy."""
    normalize = Normalize(model.preparation.mean, model.preparation.std)
    losses, right = [], 0
    with torch.no_grad():
        for start in range(0, len(data.images), BATCH):
            rows = slice(start, start + BATCH)
            logits = prediction_of(model.network(normalize(torch.from_numpy(data.images[rows]))))
            targets = torch.from_numpy(data.labels[rows])
            losses.append(F.cross_entropy(logits, targets, reduction="none"))
            right += int((logits.argmax(1) == targets).sum())
    return torch.cat(losses).numpy(), right / len(data.images)


def classifier_row(name: str, build: Callable[[], nn.Module], folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    network = build()
    first, fit = slice(0, TRAIN), slice(TRAIN, TRAIN + FIT)
    attached = lloss.attach(network, task="classification", classes=CLASSES, size=SIZE)
    preparation = attached.preparation
    train(network, load(folder, "train", first), preparation.mean, preparation.std, name)
    began = time.perf_counter()
    model = lloss.attach(network, task="classification", classes=CLASSES, size=SIZE)
    attach_seconds = time.perf_counter() - began
    known, test = load(folder, "train", fit), load(folder, "test", slice(0, TEST))
    began = time.perf_counter()
    lloss.fit_head(model, known.images, known.labels)
    fit_seconds = time.perf_counter() - began
    true, accuracy = true_losses(model, test)
    columns, parity = scored(model, test.images, known.images)
    return {
        "network": name,
        "taps": [tap.module for tap in model.taps],
        "attach": attach_seconds,
        "fit_head": fit_seconds,
        "parity": parity,
        "accuracy": accuracy,
        "head": ranking_figures(columns["loss"], true).ranking_accuracy,
        "entropy": ranking_figures(columns["entropy"], true).ranking_accuracy,
    }


def ultralytics_network(name: str) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    network = DetectionModel(f"{name}.yaml", nc=len(CELLS), verbose=False)
    network.names = dict(enumerate(CELLS))
    return network


def torchvision_detector(name: str) -> nn.Module:
    return getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None, num_classes=len(CELLS) + 1
    )


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "ultralytics yolo11n": lambda: ultralytics_network("yolo11n"),
    "torchvision ssdlite320_mobilenet_v3_large": lambda: torchvision_detector(
        "ssdlite320_mobilenet_v3_large"
    ),
}


def train_detector(model: lloss.AttachedModel, labeled: LabeledSet, name: str) -> None:
    """A training without lloss's trainer, in place: the losses of the images, averaged."""
    batches = list(LabeledImages.of(model, labeled).batches())
    parameters = list(model.network.parameters())
    optimizer = torch.optim.AdamW(parameters, 2e-3, weight_decay=1e-4)
    steps = DETECTOR_EPOCHS * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    model.train()
    for _ in tqdm(range(DETECTOR_EPOCHS), f"train {name}", disable=None, leave=False):
        for row in torch.randperm(len(batches)).tolist():
            images, targets = batches[row]
            loss = model.loss_per_image(model(images)[0], targets).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()
            schedule.step()
    model.eval()


def detector_row(name: str, build: Callable[[], nn.Module], devkit: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    network = build()
    size = 192 if name.startswith("ultralytics") else 320
    first, fit, test = (
        lloss.open_labeled(f"{devkit}:{split}", task="detection")
        for split in ("train", "val", "test")
    )
    model = lloss.attach(network, task="detection", classes=CELLS, size=size)
    train_detector(model, first, name)
    began = time.perf_counter()
    model = lloss.attach(network, task="detection", classes=CELLS, size=size)
    attach_seconds = time.perf_counter() - began
    began = time.perf_counter()
    lloss.fit_head(model, fit)
    fit_seconds = time.perf_counter() - began
    with torch.no_grad():
        batches = LabeledImages.of(model, test).batches()
        true = torch.cat([model.loss_per_image(model(x)[0], y) for x, y in batches]).numpy()
    images = [[item.read() for item in labeled.items] for labeled in (test, fit)]
    columns, parity = scored(model, *images)
    return {
        "network": name,
        "taps": [tap.module for tap in model.taps],
        "attach": attach_seconds,
        "fit_head": fit_seconds,
        "parity": parity,
        "accuracy": float("nan"),
        "head": ranking_figures(columns["loss"], true).ranking_accuracy,
        "entropy": ranking_figures(columns["entropy"], true).ranking_accuracy,
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
    measured = [(*pair, classifier_row, arrays) for pair in NETWORKS.items()]
    if devkit:
        measured += [(*pair, detector_row, devkit) for pair in DETECTORS.items()]
    for name, build, row, data in measured:
        if only and name not in only:
            continue
        if name not in done:
            try:
                done[name] = row(name, build, data)
            except ImportError as error:
                print(f"{name}: left out, {error}", flush=True)
                continue
            if out:
                with out.open("a") as file:
                    file.write(json.dumps(done[name]) + "\n")
        print(markdown(done[name]), flush=True)


if __name__ == "__main__":
    main()
