from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from lloss.serve.daemon.errors import answer_failures
from lloss.serve.daemon.labelstudio.routes import router
from starlette.testclient import TestClient

from .daemons import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """With the scored pool ``wild`` of five images and the pool ``raw`` without scores."""
    daemon = Daemon(tmp_path)
    daemon.put("wild", [3, 1, 4, 1, 5])
    daemon.catalog.pools.put("raw", str(tmp_path / "wild.csv"))
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
