"""Pools under a root, and one of a hundred scored images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.label_classes import Classes
from lloss.serve.daemon.services.pool_registry import Pools
from lloss.serve.daemon.services.selections import Selections
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolScores
from numpy.typing import NDArray
from PIL import Image

from lloss.scores.scores_folder import ScoresFolder, scores_table

ODD = ["../../etc/passwd", "a b", "é😀", "x\0y", "'; DROP TABLE images; --", "%", 'q"uote', "\t"]


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
def pools(root: Path, catalog: Catalog) -> Pools:
    settings = ServeSettings(
        model=root / "m", data_dir=catalog.data_dir, pool_roots=(str(root), "memory://bucket/data")
    )
    return Pools(settings, catalog)


class Bench:
    """A pool of a hundred images and some odd ids, without any image."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = ServeSettings(
            model=folder / "m",
            data_dir=folder / "data",
            pool_roots=(str(folder),),
            pending_seconds=100,
            **settings,
        )
        self.odd = ODD
        self.ids = [f"{n:03}.png" for n in range(100)] + ODD
        losses = np.random.default_rng(0).normal(size=len(self.ids)).astype(np.float32)
        losses[7] = np.nan
        self.loss = dict(zip(self.ids, losses.tolist()))
        (folder / "list.csv").write_text("id,path\nnot scored,x.png\n")
        self.scores = folder / "scores"
        self.metrics = DaemonMetrics()
        self.write(self.scores, losses)
        self.open()
        self.catalog.pools.put("p", str(folder / "list.csv"), self.made)

    def write(self, out: Path, losses: NDArray[np.float32]) -> None:
        folder = ScoresFolder(out)
        folder.write_part(
            0,
            scores_table(self.ids, {"loss": losses, "other": -losses}),
            [("broken.png", "an empty file")],
        )
        folder.write_skipped()
        folder.write_run(
            {"state": "complete", "scored": len(self.ids), "skipped": 1, "part_size": 1000}
        )
        self.made = PoolScores(out, "ab" * 32, len(self.ids), 1)

    def open(self) -> None:
        self.catalog = Catalog(self.settings.data_dir)
        self.pools = Pools(self.settings, self.catalog)
        any_label: Any = SimpleNamespace(
            sha256="x", manifest=SimpleNamespace(task="detection", classes=())
        )
        classes = Classes(any_label, self.catalog.images)
        self.selections = Selections(self.settings, self.catalog, self.pools, self.metrics, classes)

    def restart(self) -> None:
        self.catalog.close()
        self.open()

    def ranked(self, without: Any = ()) -> list[str]:
        """By plain Python."""
        left = [id for id in self.ids if id not in set(without) and self.loss[id] == self.loss[id]]
        return sorted(left, key=lambda id: (-self.loss[id], id))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.catalog.close()
