"""Images and untrained networks that benchmarks measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lloss.export.export_model import export_onnx
from lloss.export.fidelity import FidelityLimits
from lloss.export.precision import ReducedPrecision
from PIL import Image
from tqdm import tqdm

from lloss.data.class_labels import open_labeled
from lloss.pools import open_pool
from lloss.tasks.train_settings import TrainSettings
from lloss.training.checkpoint import load_checkpoint
from lloss.training.run import train


def make_png(folder: Path, npy: Path, count: int) -> None:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 8, 8, 3), np.uint8)
    images = np.empty((count, 32, 32, 3), np.uint8)
    for number, small in enumerate(tqdm(coarse, "make images", disable=None, leave=False)):
        image = Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC)
        noise = random.integers(-8, 9, (32, 32, 3))
        images[number] = (np.asarray(image).astype(int) + noise).clip(0, 255)
        path = folder / f"{number % 10}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(path)
    np.save(npy, images)


def make_jpeg(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(
            folder / f"{number:05d}.jpg", quality=90
        )


def make_run(folder: Path, model: str, size: int, images: np.ndarray) -> Path:
    """An untrained network: one step of training, for the sake of its checkpoint."""
    np.savez(folder / "labeled.npz", images=images[:64], labels=np.arange(64) % 10)
    settings = TrainSettings(
        model=model, weights="none", size=size, epochs=1, batch_size=32, augment="none"
    )
    train(open_labeled(str(folder / "labeled.npz")), settings, folder / "run")
    return folder / "run"


def exported(run: Path, out: Path, precision: str, pool: Path) -> Path:
    checkpoint = load_checkpoint(run)
    reduction = None
    if precision != "fp32":
        # Untrained, so that no fidelity is to be expected of it, and none is claimed.
        limits = FidelityLimits(min_spearman=0, min_overlap=0)
        reduction = ReducedPrecision(
            precision=precision, pool=open_pool(pool), held_out=200, limits=limits
        )
    export_onnx(checkpoint, out, reduction)
    return out


def untrained(folder: Path, precision: str, network: str = "resnet18-cifar") -> Path:
    """An untrained network with its head: speed does not depend on weights."""
    make_png(folder / "png", folder / "images.npy", 1024)
    run = make_run(folder, network, 32, np.load(folder / "images.npy")[:64])
    return exported(run, folder / "model.onnx", precision, folder / "images.npy")
