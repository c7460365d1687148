"""A daemon's parts behind the routes of Label Studio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from lloss.serve.daemon.errors import status_of
from lloss.serve.daemon.labelstudio import router
from starlette.testclient import TestClient

from lloss.errors import LlossError

from .daemons import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
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

    def explain(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, LlossError)
        return JSONResponse({"error": str(error)}, status_of(error))

    app.add_exception_handler(LlossError, explain)
    with TestClient(app) as client:
        yield client
