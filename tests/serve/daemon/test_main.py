"""The daemon's process: signals, loading, its end. Real processes; the model is a fake."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ...waiting import PATIENCE, until
from .processes import Process

PROGRAM = """
import asyncio, signal, sys, time
from lloss.cli.main import main
from lloss.errors import ModelFileError
from lloss.serve.daemon import daemon, main as daemon_main
from lloss.serve.daemon.app import create_app

how = sys.argv[1]
if how == "background":
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
            raise ModelFileError("model.onnx: is not a model of lloss")
        self.sha256, self.provider = "ab" * 32, "cpu"

    def reload(self):
        self.reloads += 1
        self.wait()
        before, self.sha256 = self.sha256, "cd" * 32
        return before, self.sha256

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

    @app.post("/hang")
    def hang():
        (models.folder / "waiting").touch()
        time.sleep(60)

    return app


daemon.ModelManager, daemon_main.create_app = FakeModels, create_app_with_slow_routes
daemon_main._CLOSE_SECONDS = 0.1 if how == "stuck" else 20
main(sys.argv[2:])
"""


class FakeDaemon(Process):
    """The daemon; requests to ``/wait`` last as long as its file ``hold`` exists."""

    def __init__(self, folder: Path, *options: str, how: str = "") -> None:
        (folder / "data").mkdir(parents=True)
        self.hold, self.waiting, self.closed = (
            folder / "data" / name for name in ("hold", "waiting", "closed")
        )
        if how == "loading":
            self.hold.touch()
        super().__init__(folder, *options, program=["-c", PROGRAM, how])

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_text().splitlines()]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]

    def logged(self, event: str) -> FakeDaemon:
        until(lambda: event in self.events(), describe=self.log_text)
        return self

    def connected(self, head: str) -> socket.socket:
        """A connection that has sent a request without a body."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        sock.sendall(f"{head} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return sock


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., FakeDaemon]]:
    made: list[FakeDaemon] = []

    def start(*options: str, **given: Any) -> FakeDaemon:
        made.append(FakeDaemon(tmp_path / str(len(made)), *options, **given))
        return made[-1]

    yield start
    for process in made:
        process.close()


Start = Callable[..., FakeDaemon]


def test_it_answers_while_its_model_loads(started: Start) -> None:
    daemon = started(how="loading")
    assert daemon.ask("GET", "/healthz")[0] == 200
    daemon.process.send_signal(signal.SIGHUP)  # reloads afterwards
    assert daemon.ask("GET", "/readyz") == (503, {"ready": False, "error": "loading the model"})
    daemon.hold.unlink()
    daemon.ready()
    assert daemon.logged("model_reloaded").events()[0] == "listening"
    (line,) = [line for line in daemon.lines() if line["event"] == "ready"]
    assert (line["level"], line["note"]) == ("warning", "cuda: the driver is too old")


def test_it_can_be_stopped_while_its_model_loads(started: Start) -> None:
    assert started(how="loading").end() == 0


def test_a_model_that_cannot_be_loaded_is_one_line(started: Start) -> None:
    daemon = started(how="broken")
    assert daemon.process.wait(PATIENCE) == 2
    assert daemon.log_text().splitlines()[-1] == "lloss: model.onnx: is not a model of lloss"
    assert "Traceback" not in daemon.log_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_what_it_accepted(started: Start, number: int) -> None:
    daemon = started()
    daemon.ready()
    daemon.hold.touch()
    with daemon.connected("GET /healthz"), ThreadPoolExecutor(4) as clients:  # one is idle
        replies = [clients.submit(daemon.ask, "POST", "/wait") for _ in range(4)]
        daemon.until(lambda: daemon.waiting.exists() and daemon.waiting.read_text() == "xxxx")
        daemon.process.send_signal(number)
        daemon.logged("shutting_down")
        assert daemon.ask("GET", "/readyz")[1] == {"ready": False, "error": "shutting down"}
        assert daemon.ask("POST", "/wait")[0] == 503
        daemon.hold.unlink()
        assert [reply.result() for reply in replies] == [(200, "done")] * 4
        assert daemon.process.wait(PATIENCE) == 0
    assert daemon.closed.exists() and daemon.events()[-1] == "stopped"
    assert "drain_expired" not in daemon.events()


@pytest.mark.parametrize("path", ["/wait", "/hang"])
def test_requests_are_cancelled_after_the_grace_period(started: Start, path: str) -> None:
    daemon = started("--drain=0.1s")
    daemon.ready()
    daemon.hold.touch()
    with daemon.connected(f"POST {path}") as sock:
        daemon.until(daemon.waiting.exists)
        assert daemon.end() == 0
        head, _, body = sock.recv(1 << 16).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503") and b"retry-after: 5" in head
    assert "--drain" in json.loads(body)["error"]
    assert "drain_expired" in daemon.events()
    assert "Traceback" not in daemon.log_text()


def test_a_daemon_that_does_not_close_still_ends(started: Start) -> None:
    daemon = started(how="stuck")
    daemon.ready()
    assert daemon.end() == 0
    last = daemon.lines()[-1]
    assert last["event"] == "stopped" and "did not close" in last["reason"]


def test_a_second_signal_ends_it_at_once(started: Start) -> None:
    daemon = started()
    daemon.ready()
    daemon.hold.touch()
    with daemon.connected("POST /wait"):
        daemon.until(daemon.waiting.exists)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.logged("shutting_down").end() == 128 + signal.SIGTERM


def test_a_signal_that_a_shell_makes_it_ignore_stays_so(started: Start) -> None:
    daemon = started(how="background")
    daemon.ready()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.end() == 0
    (line,) = [line for line in daemon.lines() if line["event"] == "shutting_down"]
    assert line["signal"] == "SIGTERM"


def test_sighup_reloads_once_for_many_signals(started: Start) -> None:
    daemon = started()
    daemon.ready()
    daemon.hold.touch()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: daemon.ask("GET", "/reloads")[1] == 1)
    for _ in range(100):
        daemon.process.send_signal(signal.SIGHUP)
    assert daemon.ask("GET", "/reloads")[1] == 1
    daemon.hold.unlink()
    daemon.logged("model_reloaded")
    daemon.until(lambda: daemon.ask("GET", "/reloads")[1] == 2)
