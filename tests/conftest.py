"""What several test files share: pictures, made-up labeled data, settings that train in seconds."""

from __future__ import annotations

import gc
import io
import os
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lloss.tasks.train_settings import TrainSettings

pytest_plugins = ["tests.annotation_files", "tests.object_store", "tests.small_disk"]

# Tiny networks gain nothing from threads, and lose much where the cores are shared.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test needs a network: what would download trained weights is refused at once, here and in
# processes that tests start.
os.environ["https_proxy"] = os.environ["HTTPS_PROXY"] = "http://127.0.0.1:9"


def pytest_configure() -> None:
    """Heed Ctrl-C, which tests send: a shell lets what it runs in the background ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collections: each would take a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in what tests print or log: no other process can read them."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Encode an array or a Pillow image as a file of some format."""

    def encode(picture: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def make_data() -> Callable[..., Any]:
    """Made-up labeled images whose class decides their brightness: ``make_data(count, size)``."""

    def make(count: int = 24, size: int = 8, classes: int = 3, seed: int = 0) -> Any:
        from lloss.training.training_data import TrainingData  # torch: not for the tests of serving

        random = np.random.default_rng(seed)
        targets = np.arange(count) % classes
        noise = random.integers(0, 60, (count, size, size, 3))
        images = (noise + targets[:, None, None, None] * 60).astype(np.uint8)
        names = tuple(f"class {number}" for number in range(classes))
        return TrainingData(images, targets.astype(np.int64), names)

    return make


TINY: dict[str, Any] = {
    "model": "resnet10-cifar-narrow", "size": 8, "hidden": 8, "epochs": 2, "batch_size": 8,
    "weights": "none", "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4, "amp": "off",
    "clip": 0.0, "fresh_lr": 1.0, "share": 1.0, "resample": "bilinear", "folds": 0,
}  # fmt: skip
"""Settings that train in a moment."""


@pytest.fixture
def tiny() -> TrainSettings:
    return TrainSettings(**TINY)


@pytest.fixture
def tiny_options() -> list[str]:
    """The settings of ``tiny`` for the command line."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class-per-folder tree of 60 PNG files of 8×8 pixels: bright, dark and red ones."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(7)
    for number in range(60):
        name = ("bright", "dark", "red")[number % 3]
        base = {"bright": (190, 190, 190), "dark": (40, 40, 40), "red": (190, 40, 40)}[name]
        pixels = np.clip(random.normal(base, 50, (8, 8, 3)), 0, 255).astype(np.uint8)
        (root / name).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


@pytest.fixture
def pool(photos: Path, tmp_path: Path) -> Path:
    """A copy of ``photos``, two of them broken: one more, and one of before."""
    pool = shutil.copytree(photos, tmp_path / "pool")
    (pool / "dark/zzz.png").write_bytes(b"broken")
    (pool / "bright/000.png").write_bytes(b"")
    return pool


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The folder of a finished run on ``photos``; not to be written to."""
    from lloss.data.class_labels import open_labeled
    from lloss.training.run import train

    run = tmp_path_factory.mktemp("trained") / "run"
    train(open_labeled(str(photos)), TrainSettings(**TINY), run)
    return run


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """``model.onnx`` of that run; not to be written to."""
    from lloss.export.export_model import export_onnx

    from lloss.training.checkpoint import load_checkpoint

    path = tmp_path_factory.mktemp("onnx_file") / "model.onnx"
    export_onnx(load_checkpoint(trained), path)
    return path
