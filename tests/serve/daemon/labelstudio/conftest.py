from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import FastAPI
from lloss.serve.daemon.errors import answer_failures
from lloss.serve.daemon.labelstudio.routes import router
from lloss.serve.daemon.store.records import PoolScores
from starlette.testclient import TestClient

from ..scores import write_scores
from ..stub_daemon import StubDaemon

SHA256 = "ab" * 32


class Daemon(StubDaemon):
    """A daemon with a classifier; only the model is a stub."""

    def __init__(self, folder: Path) -> None:
        manifest = SimpleNamespace(outputs={"prediction": ()}, classes=("cat", "dog", "cow"))
        current = SimpleNamespace(manifest=manifest)
        super().__init__(folder, SimpleNamespace(sha256=SHA256, current=current))

    def put(self, name: str, losses: Sequence[float]) -> Path:
        """A pool of the images 0.png, 1.png and so on with these losses; its scores."""
        ids = [f"{row}.png" for row in range(len(losses))]
        listed = self.folder / f"{name}.csv"
        listed.write_text("id,path\n" + "".join(f"{id},x\n" for id in ids))
        scores = self.folder / f"{name} scores"
        write_scores(scores, ids, {"loss": np.array(losses, np.float32)}, model_sha256=SHA256)
        self.catalog.pools.put(name, str(listed), PoolScores(scores, SHA256, len(losses), 0))
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


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """With the scored pool ``wild`` of five images."""
    daemon = Daemon(tmp_path)
    daemon.put("wild", [3, 1, 4, 1, 5])
    yield daemon
    daemon.catalog.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[TestClient]:
    app = FastAPI()
    app.state.daemon = daemon
    app.include_router(router)
    answer_failures(app)
    with TestClient(app) as client:
        yield client
