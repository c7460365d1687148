"""The process: signals, loading, ports, the end. Real processes; the model is a made-up one."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi import FastAPI
from lloss.serve.daemon import main as server
from lloss.serve.daemon.http.authentication import Access
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.settings import ServeSettings

from ...waiting import PATIENCE, until

PROGRAM = """
import asyncio, sys, threading, time
from types import SimpleNamespace
from fastapi import FastAPI, Response
from lloss.errors import ArtifactError
from lloss.serve.daemon import cli, health
from lloss.serve.daemon import main as server
from lloss.serve.daemon.http.authentication import Access
from lloss.serve.daemon.errors import answer_failures
from lloss.serve.daemon.observability.metrics import DaemonMetrics

reloads = 0
LOADS, FAILS = float(sys.argv[1]), sys.argv[2] == "fails"


class Models:
    sha256 = provider = ""
    note = "cuda: the driver is too old"

    def reload(self):
        if FAILS:
            raise ArtifactError("model.onnx: is no artifact")
        global reloads
        reloads += 1
        while self.hold.exists():
            time.sleep(0.01)
        before, self.sha256 = self.sha256, "cd" * 32
        return SimpleNamespace(before=before, now=self.sha256)


class Daemon:
    def __init__(self, settings):
        self.settings, self.access, self.draining = settings, Access(settings), False
        self.models = Models()
        self.models.hold = settings.data_dir / "hold"
        self.jobs = SimpleNamespace(prune=lambda: None)
        self.metrics = DaemonMetrics(settings.limits)

    def start(self):
        time.sleep(LOADS)
        if sys.argv[2] == "broken":
            raise ArtifactError("model.onnx: is no artifact")
        self.models.sha256, self.models.provider = "ab" * 32, "cpu"

    def not_ready(self):
        if self.draining:
            return "draining"
        return "" if self.models.sha256 else "loading the model"

    def close(self):
        if sys.argv[2] == "stuck":
            time.sleep(60)
        (self.settings.data_dir / "closed").touch()


def create_app(daemon):
    app = FastAPI()
    app.state.daemon = daemon
    answer_failures(app)
    app.include_router(health.router)

    @app.post("/work")
    async def work(seconds: float):
        await asyncio.sleep(seconds)
        return "done"

    @app.get("/reloads")
    async def counted():
        return [reloads, threading.active_count()]

    @app.get("/large")
    async def large():
        return Response(bytes(50 << 20))

    @app.post("/hang")
    def hang():
        time.sleep(60)

    return app


server.Daemon, server.create_app = Daemon, create_app
SHORT = {"slow client": "_FLUSH_SECONDS", "stuck": "_CLOSE_SECONDS"}
if sys.argv[2] in SHORT:
    setattr(server, SHORT[sys.argv[2]], 0.1)
from lloss.cli.main import main
main(["serve", *sys.argv[3:]])
"""


class Process:
    def __init__(self, folder: Path, *options: str, loads: float = 0, how: str = "") -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(loads), how,
             "m.onnx", "--port=0", f"--data-dir={folder}", *options],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )  # fmt: skip

    @property
    def url(self) -> str:
        if not hasattr(self, "_url"):
            assert self.process.stdout is not None
            self._url = self.process.stdout.readline().strip()
        return self._url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

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
        until(done, told=self.told)

    def told(self) -> str:
        return (self.folder / "log").read_text()

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.told().splitlines()]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE) -> int:
        return self.process.wait(seconds)


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
        process.log.close()


Start = Callable[..., Process]


def test_it_lives_before_its_model_is_loaded(started: Start) -> None:
    process = started(loads=1.5)
    assert process.ask("GET", "/healthz")[0] == 200
    status, told = process.ask("GET", "/readyz")
    assert status == 503 and told == {"ready": False, "error": "loading the model"}
    process.ready()
    assert process.ask("GET", "/readyz")[1] == {"ready": True}
    assert process.events()[0] == "listening"
    process.until(lambda: "ready" in process.events())  # told a moment after it is so
    told = json.loads(process.told().splitlines()[process.events().index("ready")])
    assert (told["level"], told["note"]) == ("warning", "cuda: the driver is too old")


def test_a_model_that_cannot_be_loaded_ends_it_with_one_line(started: Start) -> None:
    process = started(how="broken")
    assert process.ended() == 2
    last = process.told().splitlines()[-1]
    assert last == "lloss: model.onnx: is no artifact"
    assert "Traceback" not in process.told()


def test_a_port_that_is_taken_is_one_line(started: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = started(f"--port={port}")
        assert process.ended() == 2
    (line,) = process.told().splitlines()
    assert str(port) in line and "choose another port" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_it_accepted(started: Start, number: int) -> None:
    process = started().ready()
    answers: list[Any] = []
    asking = [
        threading.Thread(target=lambda: answers.append(process.ask("POST", "/work?seconds=1.5")))
        for _ in range(8)
    ]
    for thread in asking:
        thread.start()
    time.sleep(0.5)
    process.signal(number)
    time.sleep(0.2)
    status, told = process.ask("GET", "/readyz")
    assert (status, told["error"]) == (503, "draining")
    assert process.ask("POST", "/work?seconds=0")[0] == 503
    for thread in asking:
        thread.join()
    assert answers == [(200, "done")] * 8
    assert process.ended() == 0
    assert (process.folder / "closed").exists() and process.events()[-1] == "ended"


def test_under_load_no_accepted_request_is_lost(started: Start) -> None:
    """Clients that never pause. Each request is answered in full or refused in full; only a
    connection that was still in the kernel's queue when the socket was closed may be reset."""
    process = started().ready()
    port, outcomes = process.port, []
    stop = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while not stop.is_set():
            taken = connection.sock is not None
            try:
                connection.request("POST", "/work?seconds=0.02")
                reply = connection.getresponse()
                outcomes.append((reply.status, len(reply.read())))
            except (OSError, http.client.HTTPException) as error:
                if taken or not isinstance(error, ConnectionError):
                    outcomes.append((repr(error), 0))
                return

    clients = [threading.Thread(target=ask) for _ in range(16)]
    for client in clients:
        client.start()
    process.until(lambda: outcomes.count((200, 6)) > 100)
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    stop.set()
    for client in clients:
        client.join()
    kinds = {kind for kind, _ in outcomes}
    assert kinds == {200, 503}


def test_the_patience_has_an_end(started: Start) -> None:
    processes = [started("--drain=0.5s") for _ in range(2)]
    socks: list[socket.socket] = []
    with contextlib.ExitStack() as held:
        for path, process in zip(("/work?seconds=60", "/hang"), processes):
            process.ready()
            sock = held.enter_context(socket.create_connection(("127.0.0.1", process.port)))
            sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            socks.append(sock)
        time.sleep(0.3)
        for process in processes:
            process.signal(signal.SIGTERM)
        begun = time.monotonic()
        for process in processes:
            assert process.ended() == 0
        assert time.monotonic() - begun < 45, "before the requests, which take a minute"
        for sock in socks:
            head, _, body = sock.recv(1 << 16).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503") and b"retry-after: 5" in head
            assert "--drain" in json.loads(body)["error"]
    for process in processes:
        assert "drained too late" in process.events()
        assert "Traceback" not in process.told()


def test_a_slow_client_gets_its_whole_reply(started: Start) -> None:
    process = started(how="slow client").ready()
    with socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE) as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        size = len(sock.recv(1 << 16))
        process.signal(signal.SIGTERM)
        time.sleep(1)  # longer than what ends with its reply waits for
        assert process.process.poll() is None
        while part := sock.recv(1 << 20):
            size += len(part)
    assert size > 50 << 20
    assert process.ended() == 0 and process.events()[-1] == "ended"


def test_what_does_not_close_does_not_hold_the_end_up(started: Start) -> None:
    process = started(how="stuck").ready()
    process.signal(signal.SIGTERM)
    assert process.ended() == 0
    last = json.loads(process.told().splitlines()[-1])
    assert last["event"] == "ended" and "went on" in last["reason"]


def test_a_second_signal_ends_it_at_once(started: Start) -> None:
    process = started().ready()
    with socket.create_connection(("127.0.0.1", process.port)) as sock:
        sock.sendall(b"POST /work?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.3)
        process.signal(signal.SIGTERM)
        process.until(lambda: "draining" in process.events())
        process.signal(signal.SIGTERM)
        assert process.ended() == 128 + signal.SIGTERM


def test_it_can_be_ended_while_it_loads(started: Start) -> None:
    process = started(loads=600)
    assert process.url
    process.signal(signal.SIGTERM)
    assert process.ended() == 0


def test_idle_connections_do_not_hold_the_end_up(started: Start) -> None:
    process = started().ready()
    with socket.create_connection(("127.0.0.1", process.port)) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        sock.recv(1 << 16)
        process.signal(signal.SIGTERM)
        assert process.ended() == 0
    assert "drained too late" not in process.events()


def test_a_hangup_reloads_and_never_ends_it(started: Start) -> None:
    process, refusing, loading = started(), started(how="fails"), started(loads=600)
    process.ready().signal(signal.SIGHUP)
    process.until(lambda: "model reloaded" in process.events())
    refusing.ready().signal(signal.SIGHUP)
    refusing.until(lambda: "model refused" in refusing.events())
    status, told = refusing.ask("POST", "/v1/model/reload")
    assert status == 409 and "is no artifact" in told["error"] and "abababababab" in told["error"]
    assert refusing.ask("GET", "/readyz")[0] == 200
    assert loading.url
    loading.signal(signal.SIGHUP)
    time.sleep(0.3)
    assert loading.ask("GET", "/healthz")[0] == 200


def test_a_storm_of_hangups_is_two_reloads(started: Start) -> None:
    process = started().ready()
    threads = process.ask("GET", "/reloads")[1][1]
    hold = process.folder / "hold"
    hold.touch()
    process.signal(signal.SIGHUP)
    process.until(lambda: process.ask("GET", "/reloads")[1][0] == 1)
    for _ in range(300):
        process.signal(signal.SIGHUP)
    assert process.ask("GET", "/reloads")[1] == [1, threads + 1]
    hold.unlink()
    process.until(lambda: process.ask("GET", "/reloads")[1] == [2, threads])
    process.signal(signal.SIGHUP)
    process.until(lambda: process.ask("GET", "/reloads")[1] == [3, threads])


def test_a_reload_that_cannot_begin_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    settings = ServeSettings(model=tmp_path / "m.onnx", data_dir=tmp_path)
    daemon: Any = SimpleNamespace(
        settings=settings, access=Access(settings), metrics=DaemonMetrics(settings.limits)
    )
    monkeypatch.setattr(server, "create_app", lambda daemon: FastAPI())
    reloaded = threading.Event()
    monkeypatch.setattr(server, "reload_model", lambda daemon: reloaded.set())
    made = server._Server(daemon)
    with monkeypatch.context() as without:
        without.setattr(server.threading.Thread, "start", Mock(side_effect=RuntimeError("no more")))
        made._told_to_reload()
    assert "no more" in log.getvalue()
    made._told_to_reload()
    assert reloaded.wait(PATIENCE)
