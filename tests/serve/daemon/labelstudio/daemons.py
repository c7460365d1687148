"""The parts of a daemon that Label Studio asks; only the model is a stub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from lloss.serve.daemon.http.authentication import Access
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.label_classes import Classes
from lloss.serve.daemon.services.pool_registry import Pools
from lloss.serve.daemon.services.selections import Selections
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.catalog import Catalog
from lloss.serve.daemon.store.records import PoolScores

from ..scores import write_scores

CLASSES = ("cat", "dog", "cow")


class Models:
    def __init__(self) -> None:
        self.sha256 = "ab" * 32
        outputs = {"loss": (), "prediction": ()}
        self.manifest: Any = SimpleNamespace(
            task="classification", classes=CLASSES, outputs=outputs
        )


class Daemon:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = ServeSettings(
            model=folder / "model.onnx", data_dir=folder / "data", pool_roots=(str(folder),)
        )
        self.access = Access(self.settings)
        self.catalog = Catalog(self.settings.data_dir)
        self.pools = Pools(self.settings, self.catalog)
        self.metrics, self.models = DaemonMetrics(), Models()
        self.classes = Classes(cast(Any, self.models), self.catalog.images)
        self.selections = Selections(
            self.settings, self.catalog, self.pools, self.metrics, self.classes
        )
        self.problem = ""

    def not_ready(self) -> str:
        return self.problem

    def put(self, name: str, losses: Sequence[float], sha256: str = "ab" * 32) -> Path:
        """A pool of the images 0.png, 1.png and so on with these losses; its scores."""
        listed = self.folder / f"{name}.csv"
        listed.write_text("id,path\n" + "".join(f"{row}.png,x\n" for row in range(len(losses))))
        scores = self.folder / f"scores {len(list(self.folder.iterdir()))}"
        ids = [f"{row}.png" for row in range(len(losses))]
        columns = {
            "loss": np.asarray(losses, np.float32),
            "prediction": np.arange(len(losses), dtype=np.float32) % 3,
        }
        write_scores(scores, ids, columns, model_sha256=sha256)
        self.catalog.pools.put(name, str(listed), PoolScores(scores, sha256, len(losses), 0))
        return scores

    @property
    def state(self) -> dict[str, str]:
        """What became of the images of the pool ``wild``."""
        states = self.catalog.images.states("wild", [f"{row}.png" for row in range(5)])
        return {
            id: f"label:{row.label}" if row.state == "labeled" else row.state
            for id, row in states.items()
            if row.state != "free"
        }
