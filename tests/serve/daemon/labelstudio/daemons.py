"""The parts of a daemon that Label Studio asks; only the model is a stub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from lloss.serve.daemon.store.records import PoolScores

from ..scores import write_scores
from ..stub_daemon import StubDaemon

CLASSES = ("cat", "dog", "cow")


class Daemon(StubDaemon):
    def __init__(self, folder: Path) -> None:
        outputs = {"loss": (), "prediction": ()}
        manifest = SimpleNamespace(task="classification", classes=CLASSES, outputs=outputs)
        super().__init__(
            folder, SimpleNamespace(sha256="ab" * 32, current=SimpleNamespace(manifest=manifest))
        )

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
