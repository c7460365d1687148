"""Pools under a root, and a pool of a hundred scored images."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.errors import status_of
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.hand_out import HandedOut, Selections
from lloss.serve.daemon.services.image_labels import ImageLabels
from lloss.serve.daemon.services.label_classes import LabelClasses
from lloss.serve.daemon.services.pool_registry import PoolRegistry
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolScores
from numpy.typing import NDArray
from PIL import Image

from lloss.errors import LlossError
from lloss.selection import SelectionSettings

from ..scores import write_scores

ODD = ["../../etc/passwd", "a b", "é😀", "x\0y", "'; DROP TABLE images; --", "%", 'q"uote', "\t"]


def refused(act: Callable[[], Any], status: int) -> str:
    """The one line of the error that a call raises."""
    with pytest.raises(LlossError) as error:
        act()
    assert "\n" not in str(error.value) and status_of(error.value) == status, error.value
    return str(error.value)


def in_threads(act: Callable[[int], object], count: int) -> None:
    threads = [threading.Thread(target=act, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("root/cats/a.png", "root/cats/b.png", "root/cats/sub/c.png", "out/secret.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return (tmp_path / "root").resolve()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path / "data")
    yield catalog
    catalog.close()


@pytest.fixture
def pools(root: Path, catalog: Catalog) -> PoolRegistry:
    settings = ServeSettings(
        model=root / "m", data_dir=catalog.data_dir, pool_roots=(str(root), "memory://bucket/data")
    )
    return PoolRegistry(settings, catalog)


class Bench:
    """A pool "p" of scored images without files, and one image that was not scored."""

    def __init__(self, folder: Path) -> None:
        self.settings = ServeSettings(
            model=folder / "m",
            data_dir=folder / "data",
            pool_roots=(str(folder),),
            pending_seconds=100,
        )
        self.odd = ODD
        self.ids = [f"{n:03}.png" for n in range(100)] + ODD
        losses = np.random.default_rng(0).normal(size=len(self.ids)).astype(np.float32)
        losses[7] = np.nan
        self.loss = dict(zip(self.ids, losses.tolist()))
        (folder / "list.csv").write_text("id,path\nnot scored,x.png\n")
        self.scores = folder / "scores"
        self.metrics = DaemonMetrics()
        self.open()
        self.catalog.pools.put("p", str(folder / "list.csv"), self.write(self.scores, losses))

    def write(self, out: Path, losses: NDArray[np.float32]) -> PoolScores:
        columns = {"loss": losses, "other": -losses}
        write_scores(out, self.ids, columns, [("broken.png", "an empty file")])
        return PoolScores(out, "ab" * 32, len(self.ids), 1)

    def open(self) -> None:
        self.catalog = Catalog(self.settings.data_dir)
        self.images = self.catalog.images
        self.pools = PoolRegistry(self.settings, self.catalog)
        manifest = SimpleNamespace(outputs={}, classes=())  # accepts all labels
        model: Any = SimpleNamespace(sha256="x", current=SimpleNamespace(manifest=manifest))
        classes = LabelClasses(model, self.images)
        self.labels = ImageLabels(self.catalog, self.pools, self.metrics, classes)
        self.selections = Selections(self.settings, self.catalog, self.pools, self.metrics)

    def restart(self) -> None:
        self.catalog.close()
        self.open()

    def select(self, k: int, key: str = "", exclude: Any = (), **settings: Any) -> HandedOut:
        given = SelectionSettings(k=k, **settings)
        return self.selections.hand_out("p", given, exclude, key)

    def take(self, k: int, **settings: Any) -> list[str]:
        """The ids of a selection."""
        return [image.id for image in self.select(k, **settings).images]

    @property
    def stored(self) -> dict[str, str]:
        return self.images.labels("p")

    @property
    def counts(self) -> tuple[int, ...]:
        """Images labeled, pending and skipped."""
        return tuple(vars(self.images.counts("p")).values())

    def ranked(self, without: Any = ()) -> list[str]:
        """By plain Python."""
        left = [id for id in self.ids if id not in set(without) and self.loss[id] == self.loss[id]]
        return sorted(left, key=lambda id: (-self.loss[id], id))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.catalog.close()


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let seconds pass."""
    passed = 0.0
    wall, monotonic = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: wall() + passed)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed)

    def wait(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    return wait
