"""Faults that the real process must stand: kills, full disks, bad clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from lloss.serve.daemon.store.catalog import Catalog

from ...waiting import PATIENCE
from .disks import Disk
from .processes import Process, inference, raw_inference

MOST = 20_500
"""Images of the large pool: three parts of scores."""

Start = Callable[..., Process]


def contents(folder: Path, *without: str) -> dict[str, Any]:
    """All files' bytes; of ``run.json`` the values."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = json.loads(found["run.json"])
    found["run.json"] = {name: value for name, value in run.items() if name not in without}
    return found


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def check_parts(folder: Path) -> int:
    """Whatever has a final name is whole; how many parts there are."""
    parts = sorted(folder.rglob("part-*.parquet"))
    for part in parts:
        pq.read_table(part, page_checksum_verification=True)
    for run in folder.rglob("run.json"):
        json.loads(run.read_text())
    return len(parts)


def exchange_model(folder: Path) -> None:
    """For another that computes the same."""
    model = onnx.load(folder / "model.onnx")
    model.doc_string += "another"
    onnx.save(model, folder / "model.onnx")


# Kills


def test_killed_again_and_again_the_scores_are_those_of_the_command_line(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (MOST, 8, 8, 3), np.uint8)
    np.save(folder / "large.npy", images)
    plain = tmp_path / "plain"
    subprocess.run(
        [sys.executable, "-m", "lloss", "score", str(folder / "model.onnx"),
         str(folder / "large.npy"), "-o", str(plain), "--batch-size=8", "--provider=cpu"],
        check=True, capture_output=True,
    )  # fmt: skip
    daemon = start().ready()
    undisturbed = daemon.data / "pools/a/scores" / daemon.scored("a", folder / "large.npy")["id"]
    assert daemon.ask("PUT", "/v1/pools/b", {"uri": str(folder / "large.npy")})[0] == 200
    job = daemon.ask("POST", "/v1/pools/b/score")[1]["id"]
    out = daemon.data / "pools/b/scores" / job
    draw = random.Random(0)
    moments: list[Callable[[], bool]] = [
        lambda: (out / "run.json").exists(),
        lambda: bool(half_written(out)) or (out / "part-00000.parquet").exists(),
        lambda: (out / "part-00001.parquet").exists(),
        lambda: (out / "part-00002.parquet").exists(),
    ]
    for moment in moments:
        daemon.until(moment)
        time.sleep(draw.uniform(0, 0.05))
        assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
        check_parts(out)
        exchange_model(folder)  # the job goes on with the one that it was begun with
        daemon = start().ready()
    assert daemon.ended(job)["state"] == "done"
    assert contents(out) == contents(undisturbed) == contents(plain)
    served = daemon.ask("GET", "/v1/model")[1]["sha256"]
    assert contents(out)["run.json"]["model_sha256"] != served
    assert len(contents(out)) == 5 and not half_written(daemon.data)
    assert daemon.end() == 0


# The end under load


class Crowd:
    """Clients of several kinds until the connection breaks; remembers what was answered."""

    def __init__(self, daemon: Process, clients: int = 16) -> None:
        self.daemon = daemon
        self.answers: list[tuple[str, int]] = []
        self.broken: list[str] = []
        self.selected: list[str] = []
        self.labeled: dict[str, str] = {}
        kinds = [self.single, self.batch, self.select, self.label]
        self.threads = [
            threading.Thread(target=self._go, args=(kinds[n % len(kinds)], n))
            for n in range(clients)
        ]
        for thread in self.threads:
            thread.start()

    def _go(self, work: Callable[[http.client.HTTPConnection, int], None], seed: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            while True:
                answered = connection.sock is not None
                try:
                    work(connection, seed)
                except (OSError, http.client.HTTPException) as error:
                    # Reset while still in the kernel's queue, or refused: it was never accepted.
                    if answered or not isinstance(error, ConnectionError):
                        self.broken.append(f"{work.__name__}: {error!r}")
                    return

    def _ask(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, **headers: str
    ) -> Any:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        reply = connection.getresponse()
        told = reply.read()
        self.answers.append((path.rpartition("/")[2], reply.status))
        return json.loads(told) if reply.status == 200 and b"binary_data" not in told else None

    def single(self, connection: http.client.HTTPConnection, _: int) -> None:
        self._infer(connection, 1)

    def batch(self, connection: http.client.HTTPConnection, _: int) -> None:
        self._infer(connection, 30)

    def _infer(self, connection: http.client.HTTPConnection, count: int) -> None:
        headers, body = inference(count)
        told = self._ask(connection, "/v2/models/lloss/infer", body, **headers)
        if told is not None:
            assert len(told["outputs"][0]["data"]) >= count

    def select(self, connection: http.client.HTTPConnection, _: int) -> None:
        body = json.dumps({"k": 2, "at_most": True}).encode()
        told = self._ask(connection, "/v1/pools/p/select", body)
        self.selected += [image["id"] for image in told["images"]] if told else []
        time.sleep(0.05)

    def label(self, connection: http.client.HTTPConnection, seed: int) -> None:
        text = f"{seed}.{len(self.answers)}"
        id = f"{('bright', 'dark', 'red')[seed % 3]}/{seed:03d}.png"
        given = {"labels": [{"id": id, "label": text}], "allow_new_classes": True}
        body = json.dumps(given).encode()
        if self._ask(connection, "/v1/pools/p/labels", body):
            self.labeled[id] = text
        time.sleep(0.02)


def test_told_to_end_under_load_it_answers_everybody_and_forgets_nothing(
    start: Start, folder: Path
) -> None:
    for seconds in (0.6, 1.0):
        daemon = start("--pending=1h").ready()
        assert daemon.scored("p", folder / "photos")["state"] == "done"
        daemon.ask("PUT", "/v1/pools/q", {"uri": str(folder / "photos")})
        crowd = Crowd(daemon)
        time.sleep(seconds)
        daemon.ask("POST", "/v1/pools/q/score")
        assert daemon.end() == 0
        for thread in crowd.threads:
            thread.join()
        assert not crowd.broken
        codes = Counter(status for _, status in crowd.answers)
        assert set(codes) <= {200, 409, 503} and codes[200] > 50
        assert {kind for kind, status in crowd.answers if status == 200} == {
            "infer", "select", "labels",
        }  # fmt: skip
        assert not half_written(daemon.data) and check_parts(daemon.data)
        assert '"status": 500' not in daemon.told() and "Traceback" not in daemon.told()
        for line in daemon.told().splitlines():
            assert {"time", "level", "event"} <= set(json.loads(line))
        with contextlib.closing(Catalog(daemon.data)) as catalog:
            assert catalog.images.labels("p").items() >= crowd.labeled.items()
            assert crowd.labeled and crowd.selected
            assert set(crowd.selected) <= catalog.images.taken("p")
    assert len(crowd.selected) == len(set(crowd.selected))


# A full disk


def test_a_full_disk_stops_what_is_written_and_nothing_else(
    start: Start, folder: Path, disk: Disk
) -> None:
    daemon = start(data=disk.path / "data").ready()
    whole = daemon.data / "pools/p/scores" / daemon.scored("p", folder / "photos")["id"]
    expected = contents(whole)
    disk.fill()
    told = daemon.ask("GET", "/readyz")
    assert told[0] == 503 and "the disk is full; make room" in told[1]["error"]
    many = [{"id": f"{('bright', 'dark', 'red')[n % 3]}/{n:03d}.png"} for n in range(60)]
    refused = [
        daemon.ask("POST", "/v1/pools/p/select", {"k": 50}),
        daemon.ask(
            "POST",
            "/v1/pools/p/labels",
            {"labels": [{**one, "label": "x" * 5000} for one in many], "allow_new_classes": True},
        ),
    ]
    for status, answer in refused:
        assert status == 507 and "make room" in answer["error"] and "\n" not in answer["error"]
    assert daemon.infer(5)[0] == 200
    assert daemon.ask("GET", "/v1/pools/p/preview")[0] == 200
    assert daemon.ask("GET", "/pools/p")[0] == daemon.ask("GET", "/metrics")[0] == 200
    assert daemon.metric("lloss_ready") == 0
    before = daemon.ask("GET", "/v1/model")[1]["sha256"]
    exchange_model(folder)
    status, answer = daemon.ask("POST", "/v1/model/reload")
    assert status == 409 and "disk is full" in answer["error"] and before[:12] in answer["error"]
    assert daemon.ask("GET", "/v1/model")[1]["sha256"] == before and daemon.infer()[0] == 200
    disk.make_room()
    daemon.ready()
    assert daemon.ask("GET", "/v1/pools/p/pending")[1]["total"] == 0
    assert daemon.ask("GET", "/v1/pools/p/labels")[1]["labels"] == []
    assert daemon.ask("POST", "/v1/pools/p/select", {"k": 50})[0] == 200
    assert not half_written(disk.path) and contents(whole) == expected
    assert daemon.end() == 0
    assert "Traceback" not in daemon.told()


def test_a_job_that_finds_the_disk_full_finishes_when_there_is_room(
    start: Start, folder: Path, disk: Disk
) -> None:
    daemon = start(data=disk.path / "data").ready()
    images = np.random.default_rng(0).integers(0, 256, (10_500, 8, 8, 3), np.uint8)
    np.save(folder / "large.npy", images)
    daemon.ask("PUT", "/v1/pools/large", {"uri": str(folder / "large.npy")})
    job = daemon.ask("POST", "/v1/pools/large/score")[1]["id"]
    out = daemon.data / "pools/large/scores" / job
    daemon.until(lambda: (out / "run.json").exists())
    disk.fill()
    daemon.until(lambda: "the disk is full" in daemon.told().partition("job " + job)[2])
    assert not half_written(out) and check_parts(out) == 0
    assert daemon.infer()[0] == 200
    disk.make_room()
    failed = daemon.ended(job)
    assert failed["state"] == "failed" and failed["resumable"]
    assert "disk is full" in failed["error"] and "score the pool again" in failed["error"]
    assert daemon.ask("POST", "/v1/pools/large/score")[1]["id"] == job
    assert daemon.ended(job)["state"] == "done"
    again = daemon.scored("again", folder / "large.npy")["id"]
    assert contents(out) == contents(daemon.data / "pools/again/scores" / again)
    assert daemon.end() == 0
    assert "Traceback" not in daemon.told()


def test_a_disk_that_is_full_at_the_start_is_one_line(
    start: Start, folder: Path, disk: Disk
) -> None:
    disk.fill()
    daemon = start(data=disk.path / "data")
    assert daemon.process.wait(PATIENCE) == 2
    (line,) = daemon.told().splitlines()
    assert line.startswith("lloss: ") and "make room" in line
    disk.make_room()
    assert start(data=disk.path / "data").ready().end() == 0


# Clients


def test_clients_that_behave_badly_hold_nothing_up(start: Start) -> None:
    daemon = start("--threads=1").ready()
    assert daemon.infer()[0] == 200
    descriptors = Path(f"/proc/{daemon.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    whole = raw_inference(64)
    head, _, body = whole.partition(b"\r\n\r\n")
    with contextlib.ExitStack() as open_:

        def connected(sent: bytes) -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", daemon.port), timeout=PATIENCE)
            open_.enter_context(sock).sendall(sent)
            return sock

        for n in range(20):
            connected(whole[: n * 5])  # half a head
            connected(head + b"\r\n\r\n" + body[: n * 10])  # half a body
            connected(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30)  # never reads
            connected(whole).close()  # gone while it is queued or computed
            gone = connected(whole[:-7])
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.close()  # in the middle of its body, with a reset
        half = connected(whole)
        half.shutdown(socket.SHUT_WR)
        slow = connected(b"")
        for at in range(0, len(whole), len(whole) // 10):
            assert daemon.infer()[0] == 200
            slow.sendall(whole[at : at + len(whole) // 10])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        assert half.recv(100)[:12] in (b"HTTP/1.1 200", b"")  # answered, or taken for gone
    daemon.until(lambda: len(list(descriptors.iterdir())) <= before + 2)
    daemon.until(lambda: daemon.metric("lloss_requests_in_flight") == 1)  # that of the metrics
    daemon.until(lambda: daemon.metric("lloss_queue_images") == 0)
    gone = 'lloss_requests_total{code="499",route="unmatched"}'
    daemon.until(lambda: daemon.metric(gone) >= 1)
    assert daemon.end() == 0
    assert '"status": 500' not in daemon.told() and "Traceback" not in daemon.told()


def test_who_goes_away_while_it_waits_is_dropped_from_the_queue(start: Start, folder: Path) -> None:
    daemon = start("--threads=1", "--batch-size=8", "--queue=4000").ready()
    dropped = 'lloss_refused_images_total{reason="cancelled"}'
    socks = []
    for _ in range(12):  # more than can be scored until they are gone
        sock = socket.create_connection(("127.0.0.1", daemon.port))
        sock.sendall(raw_inference(300))
        socks.append(sock)
    time.sleep(0.02)
    for sock in socks:
        sock.close()
    daemon.until(lambda: daemon.metric(dropped) >= 300)
    daemon.until(lambda: daemon.metric("lloss_queue_images") == 0)
    gone = 'lloss_requests_total{code="499",route="/v2/models/{model}/infer"}'
    daemon.until(lambda: daemon.metric(gone) >= 1)
    assert daemon.infer()[0] == 200 and daemon.end() == 0


# Too little of everything


def test_without_descriptors_it_waits_and_recovers(start: Start, folder: Path) -> None:
    daemon = start(files=80).ready()
    assert daemon.scored("p", folder / "photos")["state"] == "done"
    socks = []
    for _ in range(120):
        sock = socket.socket()
        sock.settimeout(0.5)
        with contextlib.suppress(OSError):
            sock.connect(("127.0.0.1", daemon.port))
        socks.append(sock)
    time.sleep(1)
    assert daemon.process.poll() is None
    status = []
    for sock in socks[:5]:  # they were accepted, and are answered
        with contextlib.suppress(OSError):
            sock.sendall(b"GET /v1/pools/p HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status.append(sock.recv(100)[9:12])
    assert status and set(status) <= {b"200", b"503"}
    for sock in socks:
        sock.close()

    def well() -> bool:
        with contextlib.suppress(OSError):
            return daemon.infer()[0] == 200 and daemon.ask("GET", "/readyz")[0] == 200
        return False

    daemon.until(well)
    done = daemon.scored("q", folder / "photos")
    assert (done["state"], done["scored"], done["skipped"]) == ("done", 60, 0)
    assert daemon.end() == 0


# Time


@pytest.mark.parametrize("value", ["0", "-5"])
def test_a_pending_time_that_cannot_be_is_refused(folder: Path, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lloss", "serve", str(folder / "model.onnx"),
         f"--data-dir={folder / 'data'}", "--port=0", f"--pending={value}"],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 2 and "--pending" in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "data").exists()
