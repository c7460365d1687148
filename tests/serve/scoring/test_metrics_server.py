"""Metrics over HTTP while a run is going on."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.metrics_server import serve_metrics
from lloss.serve.scoring.telemetry import Telemetry
from prometheus_client.parser import text_string_to_metric_families

from lloss import Scorer
from lloss.errors import SettingsError
from lloss.pools import Item, Pool

from ...waiting import PATIENCE


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scraped(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        text = reply.read().decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Slow(Pool):
    """Images that are there up to some place, and then only when they may be."""

    uri, unique = "slow", True

    def __init__(self, go_on: threading.Event) -> None:
        self.go_on = go_on

    def __iter__(self) -> Iterator[Item]:
        for number in range(64):
            if number == 40:
                self.go_on.wait(PATIENCE)
            yield Item(str(number), lambda: np.zeros((8, 8, 3), np.uint8))


def test_a_run_can_be_watched(artifact: Path, port: int) -> None:
    go_on = threading.Event()
    with Scorer(artifact, "cpu", batch_size=8) as scorer, serve_metrics(scorer.telemetry, port):
        stream = scorer.stream(Slow(go_on))
        for _ in range(5):
            next(stream)
        assert scraped(port)["lloss_images_total scored"] == 40
        go_on.set()
        assert sum(map(len, stream)) == 24
        assert scraped(port)["lloss_images_total scored"] == 64
    with pytest.raises(urllib.error.URLError):
        scraped(port)


def test_a_real_command_serves_them(artifact: Path, tmp_path: Path, port: int) -> None:
    np.save(tmp_path / "pool.npy", np.zeros((200_000, 8, 8, 3), np.uint8))
    child = subprocess.Popen(
        [sys.executable, "-m", "lloss", "score", artifact, tmp_path / "pool.npy", "--provider",
         "cpu", "-o", tmp_path / "s", "--metrics-port", str(port)],
        stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        found: dict[str, float] = {}
        while child.poll() is None and not found.get("lloss_images_total scored"):
            try:
                found = scraped(port)
            except urllib.error.URLError:
                threading.Event().wait(0.05)
        assert 0 < found["lloss_images_total scored"] <= 200_000
        assert found["lloss_infer_duration_seconds_count"] > 0
    finally:
        child.kill()
        child.wait()


def test_a_port_that_is_taken_is_one_line(artifact: Path, photos: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        wanted = f"--metrics-port {port}: Address already in use; choose another port"
        with pytest.raises(SettingsError, match=wanted), serve_metrics(Telemetry(), port):
            pass
        done = subprocess.run(
            [sys.executable, "-m", "lloss", "score", artifact, photos, "-o", tmp_path / "s",
             "--provider", "cpu", "--metrics-port", str(port)],
            capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == f"lloss: {wanted}"
    assert "Traceback" not in done.stderr and not (tmp_path / "s").exists()


def test_no_port_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lloss.serve.scoring.metrics_server.start_http_server", None)
    with serve_metrics(Telemetry(), None):
        pass
