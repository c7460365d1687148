"""The daemon's process: signals, loading, its end. Real processes; the model is a fake."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ...waiting import PATIENCE, until

PROGRAM = """
import asyncio, sys, time
from types import SimpleNamespace
from fastapi import Response
from lloss.cli.main import main
from lloss.errors import ArtifactError
from lloss.serve.daemon import daemon, main as daemon_main
from lloss.serve.daemon.app import create_app

how = sys.argv[1]


class FakeModels(daemon.ModelManager):
    sha256 = provider = ""
    note = "cuda: the driver is too old"
    current = property(lambda self: self)
    reloads = 0

    def __init__(self, settings, metrics):
        super().__init__(settings, metrics)
        self.folder = settings.data_dir

    def wait(self):
        while (self.folder / "hold").exists():
            time.sleep(0.01)

    def load(self):
        if how == "loading":
            self.wait()
        if how == "broken":
            raise ArtifactError("model.onnx: is not an artifact")
        self.sha256, self.provider = "ab" * 32, "cpu"

    def reload(self):
        if how == "refused":
            raise ArtifactError("model.onnx: is not an artifact")
        self.reloads += 1
        self.wait()
        before, self.sha256 = self.sha256, "cd" * 32
        return SimpleNamespace(before=before, now=self.sha256)

    def not_ready(self):
        return "" if self.sha256 else "loading the model"

    def close(self):
        if how == "stuck":
            time.sleep(60)
        super().close()
        (self.folder / "closed").touch()


def create_app_with_slow_routes(daemon):
    app, models = create_app(daemon), daemon.models

    @app.post("/wait")
    async def wait():
        with (models.folder / "waiting").open("a") as waiting:
            waiting.write("x")
        while (models.folder / "hold").exists():
            await asyncio.sleep(0.01)
        return "done"

    @app.get("/reloads")
    async def reloads():
        return models.reloads

    @app.get("/large")
    async def large():
        return Response(bytes(50 << 20))

    @app.post("/hang")
    def hang():
        (models.folder / "waiting").touch()
        time.sleep(60)

    return app


daemon.ModelManager, daemon_main.create_app = FakeModels, create_app_with_slow_routes
daemon_main._CLOSE_SECONDS = 0.1 if how == "stuck" else 20
main(["serve", *sys.argv[2:]])
"""


class Process:
    """The daemon; requests to ``/wait`` last as long as its file ``hold`` exists."""

    def __init__(self, folder: Path, *options: str, how: str = "") -> None:
        folder.mkdir()
        self.hold, self.waiting, self.closed = (
            folder / name for name in ("hold", "waiting", "closed")
        )
        if how == "loading":
            self.hold.touch()
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, how,
                 "m.onnx", "--port=0", f"--data-dir={folder}", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )  # fmt: skip
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().strip().rpartition(":")[2] or 0)

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read() or b"null")

    def ready(self) -> Process:
        self.until(lambda: self.ask("GET", "/readyz")[0] == 200)
        return self

    def until(self, done: Callable[[], bool]) -> None:
        until(done, describe=self.log.read_text)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines()]

    def logged(self, event: str) -> Process:
        self.until(lambda: event in self.events())
        return self

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self) -> int:
        return self.process.wait(PATIENCE)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def start(*options: str, **given: Any) -> Process:
        made.append(Process(tmp_path / f"data{len(made)}", *options, **given))
        return made[-1]

    yield start
    for process in made:
        process.process.kill()
        process.process.wait()
        assert process.process.stdout is not None
        process.process.stdout.close()


Start = Callable[..., Process]


def test_it_answers_while_its_model_loads(started: Start) -> None:
    process = started(how="loading")
    assert process.ask("GET", "/healthz")[0] == 200
    process.signal(signal.SIGHUP)  # nothing to reload yet
    process.logged("model_refused")
    assert process.ask("GET", "/readyz") == (503, {"ready": False, "error": "loading the model"})
    process.hold.unlink()
    assert process.ready().ask("GET", "/readyz")[1] == {"ready": True}
    process.logged("ready")
    assert process.events()[0] == "listening"
    line = json.loads(process.log.read_text().splitlines()[process.events().index("ready")])
    assert (line["level"], line["note"]) == ("warning", "cuda: the driver is too old")


def test_it_can_be_stopped_while_its_model_loads(started: Start) -> None:
    process = started(how="loading")
    process.signal()
    assert process.ended() == 0


def test_a_model_that_cannot_be_loaded_is_one_line(started: Start) -> None:
    process = started(how="broken")
    assert process.ended() == 2
    assert process.log.read_text().splitlines()[-1] == "lloss: model.onnx: is not an artifact"
    assert "Traceback" not in process.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_what_it_accepted(started: Start, number: int) -> None:
    process = started().ready()
    process.hold.touch()
    replies: list[Any] = []
    clients = [
        threading.Thread(target=lambda: replies.append(process.ask("POST", "/wait")))
        for _ in range(4)
    ]
    with socket.create_connection(("127.0.0.1", process.port)) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        idle.recv(1 << 16)
        for thread in clients:
            thread.start()
        process.until(lambda: process.waiting.exists() and process.waiting.read_text() == "xxxx")
        process.signal(number)
        process.logged("shutting_down")
        assert process.ask("GET", "/readyz")[1] == {"ready": False, "error": "shutting down"}
        assert process.ask("POST", "/wait")[0] == 503
        process.hold.unlink()
        for thread in clients:
            thread.join()
        assert process.ended() == 0
    assert replies == [(200, "done")] * 4
    assert process.closed.exists() and process.events()[-1] == "stopped"
    assert "drain_expired" not in process.events()


def test_under_load_no_accepted_request_is_lost(started: Start) -> None:
    """Each request is answered or refused; only a connection that the socket had not accepted when
    it closed may be reset."""
    process = started().ready()
    outcomes: list[Any] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=PATIENCE)
        while True:
            accepted = connection.sock is not None
            try:
                connection.request("POST", "/wait")
                reply = connection.getresponse()
                outcomes.append((reply.status, len(reply.read())))
            except (OSError, http.client.HTTPException) as error:
                if accepted or not isinstance(error, ConnectionError):
                    outcomes.append((repr(error), 0))
                return

    clients = [threading.Thread(target=ask) for _ in range(16)]
    for client in clients:
        client.start()
    process.until(lambda: outcomes.count((200, 6)) > 100)
    process.signal()
    assert process.ended() == 0
    for client in clients:
        client.join()
    assert {kind for kind, _ in outcomes} == {200, 503}


@pytest.mark.parametrize("path", ["/wait", "/hang"])
def test_requests_are_cancelled_after_the_grace_period(started: Start, path: str) -> None:
    process = started("--drain=0.1s").ready()
    process.hold.touch()
    with socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        process.until(process.waiting.exists)
        process.signal()
        assert process.ended() == 0
        head, _, body = sock.recv(1 << 16).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503") and b"retry-after: 5" in head
    assert "--drain" in json.loads(body)["error"]
    assert "drain_expired" in process.events()
    assert "Traceback" not in process.log.read_text()


def test_a_slow_client_gets_its_whole_reply(started: Start) -> None:
    process = started().ready()
    with socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        size = len(sock.recv(1 << 16))
        process.signal()

        def closed() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("", process.port)):
                return False
            return True

        process.until(closed)
        assert process.process.poll() is None
        while part := sock.recv(1 << 20):
            size += len(part)
    assert size > 50 << 20
    assert process.ended() == 0 and process.events()[-1] == "stopped"


def test_a_daemon_that_does_not_close_still_ends(started: Start) -> None:
    process = started(how="stuck").ready()
    process.signal()
    assert process.ended() == 0
    last = json.loads(process.log.read_text().splitlines()[-1])
    assert last["event"] == "stopped" and "did not close" in last["reason"]


def test_a_second_signal_ends_it_at_once(started: Start) -> None:
    process = started().ready()
    process.hold.touch()
    with socket.create_connection(("127.0.0.1", process.port)) as sock:
        sock.sendall(b"POST /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        process.until(process.waiting.exists)
        process.signal()
        process.logged("shutting_down").signal()
        assert process.ended() == 128 + signal.SIGTERM


def test_sighup_reloads_and_never_ends_it(started: Start) -> None:
    refusing = started(how="refused").ready()
    refusing.signal(signal.SIGHUP)
    refusing.logged("model_refused")
    status, reply = refusing.ask("POST", "/v1/model/reload")
    assert status == 409 and "not an artifact" in reply["error"] and "abababababab" in str(reply)
    assert refusing.ask("GET", "/readyz")[0] == 200
    process = started().ready()
    process.hold.touch()
    process.signal(signal.SIGHUP)
    process.until(lambda: process.ask("GET", "/reloads")[1] == 1)
    for _ in range(100):
        process.signal(signal.SIGHUP)
    assert process.ask("GET", "/reloads")[1] == 1
    process.hold.unlink()
    process.logged("model_reloaded")
    process.until(lambda: process.ask("GET", "/reloads")[1] == 2)
    process.signal(signal.SIGHUP)
    process.until(lambda: process.ask("GET", "/reloads")[1] == 3)
