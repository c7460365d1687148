"""A server on a real socket, before a few routes that do what tests need."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import json
import logging
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from lloss.serve.daemon.app import InferShortcut, create_app
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError, answer_failures
from lloss.serve.daemon.http.authentication import Authentication
from lloss.serve.daemon.http.middleware import RequestMiddleware
from lloss.serve.daemon.observability import logs
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.settings import Limits, ServeSettings
from starlette.testclient import TestClient

from lloss.errors import EngineError, SettingsError

from ..scoring.fakes import hold_all
from .processes import Process
from .running_server import RunningServer
from .waiting import PATIENCE, until

# A client's own five seconds are too few on a busy machine; requests share this one object.
for _part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _part, PATIENCE)

SHA256 = "ab" * 32


def received(sock: socket.socket) -> bytes:
    """All until the other side closes; also what came before a reset."""
    chunks = []
    try:
        while chunk := sock.recv(1 << 16):
            chunks.append(chunk)
    except ConnectionError:
        pass
    return b"".join(chunks)


class RecordedMetrics(DaemonMetrics):
    """Remembers the requests it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, int]] = []

    def request(self, route: str, code: int, seconds: float) -> None:
        super().request(route, code, seconds)
        self.requests.append((route, code))

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


class RouteServer:
    """The middleware in front of a few routes; listens once a test asks for its port."""

    def __init__(self, settings: ServeSettings, log: Written) -> None:
        self.settings, self.log = settings, log
        self.cancelled = threading.Event()
        self.entered, self.free = threading.Event(), threading.Event()
        self.threads = 0
        self.metrics = RecordedMetrics()
        self.daemon: Any = SimpleNamespace(
            settings=settings,
            metrics=self.metrics,
            models=SimpleNamespace(sha256=SHA256),
            authentication=Authentication(settings),
            draining=False,
            not_ready=lambda: "",
        )
        self.app = self._routes()
        self.middleware = RequestMiddleware(self.app, self.daemon)

    @functools.cached_property
    def running(self) -> RunningServer:
        return RunningServer(self.middleware, self.settings)

    @property
    def port(self) -> int:
        return self.running.port

    def client(self, **options: Any) -> TestClient:
        """A client without a socket."""
        options = {"base_url": "http://localhost", **options}
        return TestClient(self.middleware, follow_redirects=False, **options)

    def status(self, path: str = "/", method: str = "GET", **headers: str | bytes) -> int:
        """Status of the reply; ``_`` in a header's name is ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client().request(method, path, headers=named).status_code

    def close(self) -> None:
        self.free.set()
        if "running" in self.__dict__:
            until(lambda: self.metrics.value("lloss_requests_in_flight") == 0)
            self.running.close()

    def counted(self, count: int = 1) -> list[tuple[str, int]]:
        """Requests by route and status, once there are so many."""
        until(lambda: len(self.metrics.requests) >= count)
        return self.metrics.requests

    def _routes(self) -> FastAPI:
        app = FastAPI(openapi_url=None, redirect_slashes=False)
        answer_failures(app)
        self._add_prompt(app)
        self._add_slow(app)
        return app

    def _add_prompt(self, app: FastAPI) -> None:
        @app.post("/echo")
        async def echo(request: Request) -> Response:
            return Response(await request.body(), media_type="application/octet-stream")

        @app.post("/count/{name}")
        async def count(name: str, request: Request) -> dict[str, int]:
            request.scope["state"]["images"] = 3
            return {"bytes": len(await request.body())}

        @app.post("/form")
        async def form(request: Request) -> int:
            return len(await request.form())

        @app.get("/large")
        async def large() -> Response:
            return Response(bytes(50 << 20))

        @app.get("/number")
        async def number(k: int) -> int:
            return k

        @app.get("/fails/{kind}")
        def fails(kind: str) -> None:
            raise {
                "settings": SettingsError("k=0:\nmust be above 0"),
                "engine": EngineError("the card fell off"),
                "busy": RequestError(429, "the queue is full", 0.2),
                "unforeseen": KeyError("a secret"),
            }[kind]

        @app.get("/metrics")
        @app.get("/healthz")
        @app.get("/v1/pools/{name}/images")
        @app.get("/")
        async def plain(request: Request) -> dict[str, Any]:
            return {"id": request.query_params.get("id"), "cookies": request.cookies}

    def _add_slow(self, app: FastAPI) -> None:
        @app.post("/slow")
        async def slow() -> str:
            self.entered.set()
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return "done"

        @app.post("/thread")
        def thread() -> str:
            self.entered.set()
            self.threads += 1
            self.free.wait(PATIENCE)
            return "done"

    def send(self, raw: bytes, seconds: float = PATIENCE, half: bool = False) -> bytes:
        """Bytes on a fresh connection; all that comes back until it is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as sock:
            sock.sendall(raw)
            if half:
                sock.shutdown(socket.SHUT_WR)
            return received(sock)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send a request on a socket; httpx itself would change odd paths."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return httpx.Response(reply.status, headers=reply.getheaders(), content=reply.read())

    def lines(self, count: int = 1, event: str = "request") -> list[dict[str, Any]]:
        """Log lines of an event, once there are so many."""

        def chosen() -> list[dict[str, Any]] | None:
            found = [json.loads(line) for line in self.log.getvalue().splitlines()]
            chosen = [line for line in found if line["event"] == event]
            return chosen if len(chosen) >= count else None

        lines: list[dict[str, Any]] = until(chosen, describe=self.log.getvalue)
        return lines


class Written:
    """All that was logged so far, whether it was due to be written or not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def getvalue(self) -> str:
        logs.flush()
        return self._path.read_text(encoding="ascii")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Written]:
    """What is logged, as JSON lines."""
    root, ours = logging.getLogger(), logging.getLogger("lloss")
    before = (root.handlers[:], root.level, ours.level)
    with (tmp_path / "log.jsonl").open("w") as file:
        logs.configure(file.fileno())
        yield Written(tmp_path / "log.jsonl")
        logs.flush()
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(False)


@pytest.fixture
def make_server(tmp_path: Path, log: Written) -> Iterator[Callable[..., RouteServer]]:
    """Make gates: ``make_server(token=..., limits={...})``."""
    made: list[RouteServer] = []

    def make(limits: dict[str, Any] | None = None, **given: Any) -> RouteServer:
        settings = ServeSettings(
            model=tmp_path / "model.onnx",
            data_dir=tmp_path / "data",
            limits=Limits(**(limits or {})),
            **given,
        )
        made.append(RouteServer(settings, log))
        return made[-1]

    yield make
    for server in made:
        server.close()


class Served:
    """A daemon with a real model, on a real socket."""

    def __init__(self, settings: ServeSettings) -> None:
        self.daemon = Daemon(settings)
        self.daemon.start()
        self.models, self.app = self.daemon.models, create_app(self.daemon)
        app = RequestMiddleware(InferShortcut(self.app), self.daemon)
        self.running = RunningServer(app, settings)
        self.port = self.running.port
        self.url = f"127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """All lanes are busy while the block runs."""
        serving = self.models._serving
        assert serving is not None
        with hold_all(serving.scorer._started().slots.cores):
            yield

    def close(self) -> None:
        self.running.close()
        self.daemon.close()


@pytest.fixture(scope="module")
def served(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon that scores with ``onnx_file``: batches of 8, 64 images in its queue."""
    settings = ServeSettings(
        model=onnx_file,
        data_dir=tmp_path_factory.mktemp("served"),
        provider="cpu",
        batch_size=8,
        threads=2,
        limits=Limits(queue_images=64, image_pixels=10_000, request_seconds=10),
    )
    made = Served(settings)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path, onnx_file: Path, photos: Path) -> Path:
    """What a daemon needs: a model, and pools under one root."""
    shutil.copy(onnx_file, tmp_path / "model.onnx")
    shutil.copytree(photos, tmp_path / "photos")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Process]]:
    """Start the daemon itself; again on the same data dir."""
    made: list[Process] = []

    def begin(*options: str, **given: Any) -> Process:
        made.append(Process(folder, *options, **given))
        return made[-1]

    yield begin
    for one in made:
        one.close()
