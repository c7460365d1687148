"""Faults that the real process survives: kills, full disks, misbehaving clients."""

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
from lloss.serve.daemon.store.catalog import Catalog

from ...object_store import contents
from ...small_disk import fill
from ...waiting import PATIENCE
from .processes import Process, inference, raw_inference

MOST = 20_500
"""Images of the large pool: three parts of scores."""

Start = Callable[..., Process]


def parts(folder: Path) -> dict[str, bytes]:
    return {name: of for name, of in contents(folder).items() if name != "run.json"}


def half_written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


def check_parts(folder: Path) -> int:
    """Check every file with a final name; return the number of parts."""
    parts = sorted(folder.rglob("part-*.parquet"))
    for part in parts:
        pq.read_table(part, page_checksum_verification=True)
    for run in folder.rglob("run.json"):
        json.loads(run.read_text())
    return len(parts)


def replace_model(folder: Path) -> None:
    """Write another file that computes the same."""
    model = onnx.load(folder / "model.onnx")
    model.doc_string += "another"
    onnx.save(model, folder / "model.onnx")


# Kills


def test_after_several_kills_the_scores_equal_the_command_lines(
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
        replace_model(folder)  # the job goes on with the one it began with
        daemon = start().ready()
    assert daemon.ended(job)["state"] == "done"
    assert contents(out) == contents(undisturbed)
    assert parts(out) == parts(plain)  # run.json names the model's file, which is another
    served = daemon.ask("GET", "/v1/model")[1]["sha256"]
    assert json.loads(contents(out)["run.json"])["model_sha256"] != served
    assert len(contents(out)) == 5 and not half_written(daemon.data)
    assert daemon.end() == 0


# The end under load


class Crowd:
    """Clients that infer, select and label until the connection breaks."""

    def __init__(self, daemon: Process) -> None:
        self.daemon = daemon
        self.codes: Counter[tuple[str, int]] = Counter()
        self.broken: list[str] = []
        self.selected: list[str] = []
        self.labeled: dict[str, str] = {}
        kinds = [self.infer, self.select, self.label] * 4
        self.threads = [threading.Thread(target=self._go, args=pair) for pair in enumerate(kinds)]
        for thread in self.threads:
            thread.start()

    def _go(self, seed: int, work: Callable[[http.client.HTTPConnection, int], None]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            while True:
                accepted = connection.sock is not None
                try:
                    work(connection, seed)
                except (OSError, http.client.HTTPException) as error:
                    # Refused, or reset before the socket accepted it.
                    if accepted or not isinstance(error, ConnectionError):
                        self.broken.append(f"{work.__name__}: {error!r}")
                    return

    def _ask(
        self, connection: http.client.HTTPConnection, path: str, body: Any, **headers: str
    ) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, raw, {"Content-Type": "application/json", **headers})
        reply = connection.getresponse()
        content = reply.read()
        self.codes[path.partition("?")[0].rpartition("/")[2], reply.status] += 1
        return json.loads(content) if reply.status == 200 else None

    def infer(self, connection: http.client.HTTPConnection, seed: int) -> None:
        headers, body = inference(30 if seed % 2 else 1)
        self._ask(connection, "/v2/models/lloss/infer", body, **headers)

    def select(self, connection: http.client.HTTPConnection, _: int) -> None:
        reply = self._ask(connection, "/v1/pools/p/select", {"k": 2, "at_most": True})
        self.selected += [image["id"] for image in reply["images"]] if reply else []
        time.sleep(0.05)

    def label(self, connection: http.client.HTTPConnection, seed: int) -> None:
        id, text = f"dark/{seed * 3 + 1:03d}.png", str(sum(self.codes.values()))
        given = {"labels": [{"id": id, "label": text}]}
        if self._ask(connection, "/v1/pools/p/labels?allow_new_classes=true", given):
            self.labeled[id] = text
        time.sleep(0.02)


def test_sigterm_under_load_answers_everybody_and_keeps_every_promise(
    start: Start, folder: Path
) -> None:
    daemon = start("--pending=1h").ready()
    assert daemon.scored("p", folder / "photos")["state"] == "done"
    daemon.ask("PUT", "/v1/pools/q", {"uri": str(folder / "photos")})
    crowd = Crowd(daemon)
    for kind in ("infer", "select", "labels"):
        daemon.until(lambda kind=kind: crowd.codes[kind, 200] > 5)
    daemon.ask("POST", "/v1/pools/q/score")
    assert daemon.end() == 0
    for thread in crowd.threads:
        thread.join()
    assert not crowd.broken
    assert {status for _, status in crowd.codes} <= {200, 409, 503}
    assert not half_written(daemon.data) and check_parts(daemon.data)
    assert '"status": 500' not in daemon.log_text() and "Traceback" not in daemon.log_text()
    for line in daemon.log_text().splitlines():
        assert {"time", "level", "event"} <= set(json.loads(line))
    with contextlib.closing(Catalog(daemon.data)) as catalog:
        assert catalog.images.labels("p").items() >= crowd.labeled.items()
        assert set(crowd.selected) <= catalog.images.taken("p")
    assert crowd.labeled and len(crowd.selected) == len(set(crowd.selected)) > 0


# A full disk


def test_a_full_disk_stops_writes_only(start: Start, folder: Path, disk: Path) -> None:
    daemon = start(data=disk / "data").ready()
    whole = daemon.data / "pools/p/scores" / daemon.scored("p", folder / "photos")["id"]
    expected = contents(whole)
    fill(disk)
    reply = daemon.ask("GET", "/readyz")
    assert reply[0] == 503 and "the disk is full; free some space" in reply[1]["error"]
    many = [{"id": f"{('bright', 'dark', 'red')[n % 3]}/{n:03d}.png"} for n in range(60)]
    refused = [
        daemon.ask("POST", "/v1/pools/p/select", {"k": 50}),
        daemon.ask(
            "POST",
            "/v1/pools/p/labels?allow_new_classes=true",
            {"labels": [{**one, "label": "x" * 5000} for one in many]},
        ),
    ]
    for status, answer in refused:
        assert status == 507 and "free some space" in answer["error"]
    assert daemon.infer(5)[0] == 200
    assert daemon.ask("GET", "/v1/pools/p/preview")[0] == 200
    assert daemon.ask("GET", "/pools/p")[0] == daemon.ask("GET", "/metrics")[0] == 200
    assert daemon.metric("lloss_ready") == 0
    before = daemon.ask("GET", "/v1/model")[1]["sha256"]
    replace_model(folder)
    status, answer = daemon.ask("POST", "/v1/model/reload")
    assert status == 409 and "disk is full" in answer["error"] and before[:12] in answer["error"]
    assert daemon.ask("GET", "/v1/model")[1]["sha256"] == before and daemon.infer()[0] == 200
    (disk / "ballast").unlink()
    daemon.ready()
    assert daemon.ask("GET", "/v1/pools/p/pending")[1]["total"] == 0
    assert daemon.ask("GET", "/v1/pools/p/labels")[1]["labels"] == []
    assert daemon.ask("POST", "/v1/pools/p/select", {"k": 50})[0] == 200
    assert not half_written(disk) and contents(whole) == expected
    assert daemon.end() == 0
    assert "Traceback" not in daemon.log_text()
    fill(disk)
    late = start(data=disk / "new")
    assert late.process.wait(PATIENCE) == 2
    line = late.log_text().splitlines()[-1]
    assert line.startswith("lloss: ") and "free some space" in line


# Clients


def test_misbehaving_clients_delay_nobody(start: Start) -> None:
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
    assert '"status": 500' not in daemon.log_text() and "Traceback" not in daemon.log_text()
