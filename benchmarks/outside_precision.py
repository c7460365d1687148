"""What fp16 and int8 cost in ranks, and int8 gains in speed, for networks from outside.

    python benchmarks/outside_precision.py CIFAR [--networks resnet18,…] [--epochs 2]

CIFAR is a folder with train_images.npy, train_labels.npy and test_images.npy of CIFAR-10. Each
network starts from random weights and is trained by ``lloss.fit`` on a few of the images at 64
pixels, which gives its batch norms real statistics, then exported in every precision, compared on
test images. Prints a Markdown table, a row as soon as it is measured. Networks of timm need timm.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torchvision

import lloss
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LlossError
from lloss.manifest import Manifest
from lloss.pools import ArrayPool

SIZE = 64


def of_timm(name: str, **options: Any) -> Callable[[], torch.nn.Module]:
    def build() -> torch.nn.Module:
        import timm

        network: torch.nn.Module = timm.create_model(name, num_classes=10, **options)
        return network

    return build


NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=10),
    "timm tf_efficientnet_lite0": of_timm("tf_efficientnet_lite0"),
    "timm vit_tiny of patches of 8": of_timm("vit_tiny_patch16_224", img_size=SIZE, patch_size=8),
    "timm convnext_atto": of_timm("convnext_atto"),
}


@click.command()
@click.argument("cifar", type=click.Path(path_type=Path))
@click.option("--networks", default=",".join(NETWORKS), help="Separated by commas.")
@click.option("--precisions", default="fp16,int8", show_default=True)
@click.option("--labeled", default=1000, show_default=True)
@click.option("--epochs", default=2, show_default=True, help="0: random weights.")
@click.option("--held-out", default=1000, show_default=True)
@click.option("--calibration-images", default=256, show_default=True)
def main(
    cifar: Path, networks: str, precisions: str, labeled: int, epochs: int, **reduction: int
) -> None:
    """Train and export each network, and print what became of it."""
    images, labels = (np.load(cifar / f"train_{name}.npy") for name in ("images", "labels"))
    pool = ArrayPool(np.load(cifar / "test_images.npy"), "CIFAR-10 test")
    training = LabeledSet(
        list(ArrayPool(images[:labeled], "CIFAR-10")),
        [str(n) for n in labels[:labeled]],
        "CIFAR-10",
    )
    click.echo("| network | precision | kept in fp32 | Spearman | top 10% | speed | seconds |")
    click.echo("|---|---|--:|--:|--:|--:|--:|")
    for name in networks.split(","):
        torch.manual_seed(0)
        model = lloss.attach(NETWORKS[name.strip()](), size=SIZE)
        if epochs:
            lloss.fit(model, training, epochs=epochs)
        lloss.fit_head(model, images[-1000:], labels[-1000:])
        for precision in precisions.split(","):
            click.echo(row(name, precision, model, pool, reduction))


def row(name: str, precision: str, model: Any, pool: Any, reduction: Any) -> str:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            manifest: Manifest = lloss.to_onnx(
                model,
                Path(folder) / "model.onnx",
                precision=precision,
                pool=pool,
                say=lambda line: click.echo(line, err=True),
                **reduction,
            )
        except LlossError as error:
            return f"| {name} | {precision} | refused: {error} | | | | {_seconds(started)} |"
    measured, times = manifest.fidelity["fp32"], manifest.speed.get("times_fp32")
    return (
        f"| {name} | {precision} | {len(manifest.recipe.get('kept', []))} layers "
        f"| {measured['spearman']:.5f} | {measured['top_decile_overlap']:.3f} "
        f"| {f'{times:.2f}×' if times else ''} | {_seconds(started)} |"
    )


def _seconds(started: float) -> str:
    return f"{time.perf_counter() - started:.0f}"


if __name__ == "__main__":
    main()
