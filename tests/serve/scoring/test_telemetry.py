"""Metrics, against counts by hand, and over HTTP."""

from __future__ import annotations

import pickle
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lloss.serve.scoring.telemetry import Telemetry, serve_metrics
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import ImageError
from lloss.pools import Item, Pool

from ...waiting import PATIENCE
from .fakes import pictures


def parsed(text: str) -> dict[tuple[str, ...], float]:
    """Samples by name and values of the labels (by the labels' names)."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    return parsed(generate_latest(telemetry.registry).decode())


def test_images_are_counted_by_outcome() -> None:
    telemetry = Telemetry()
    for scored, skipped in ((5, 0), (3, 2), (0, 4)):
        telemetry.ran(np.zeros(scored, np.float32), skipped)
    found = samples(telemetry)
    assert found["lloss_images_total", "scored"] == 8
    assert found["lloss_images_total", "skipped"] == 6
    assert telemetry.images == 14
    assert (found["lloss_batch_size_count",], found["lloss_batch_size_sum",]) == (2, 8)
    assert found["lloss_batch_size_bucket", "4.0"] == 1


def test_predicted_losses_fall_into_buckets() -> None:
    telemetry = Telemetry()
    losses = np.random.default_rng(0).normal(0, 5, 1000).astype(np.float32)
    losses[:4] = [0.5, 16, 1e9, -8]  # on the edges, and beyond
    telemetry.ran(losses, 0)
    telemetry.ran(np.array([np.nan, np.inf, 1.0], np.float32), 0)
    finite = np.append(losses, 1.0)
    buckets = {key[1]: value for key, value in samples(telemetry).items()
               if key[0] == "lloss_predicted_loss_bucket"}  # fmt: skip
    assert buckets.pop("+Inf") == 1001 and len(buckets) == 17
    for edge, count in buckets.items():
        assert count == (finite <= float(edge)).sum(), edge


def test_seconds_are_measured() -> None:
    telemetry = Telemetry()
    with telemetry.timed("decode"):
        time.sleep(0.02)
    with pytest.raises(ValueError), telemetry.timed("write"):
        raise ValueError
    telemetry.spent("read", 0.004)
    telemetry.spent("read", 0.04)
    found = samples(telemetry)
    assert 0.02 <= telemetry.total_seconds("decode") < 0.5
    assert found["lloss_write_duration_seconds_count",] == 1
    assert found["lloss_read_duration_seconds_bucket", "0.005"] == 1
    assert telemetry.total_seconds("read") == pytest.approx(0.044)


class SomePool(Pool):
    """50 images, two of them broken."""

    uri, unique = "some", True

    def __init__(self, remote: bool) -> None:
        self.remote, self.images = remote, pictures(50)

    def __iter__(self) -> Iterator[Item]:
        return (Item(str(n), lambda n=n: self._read(n)) for n in range(50))  # type: ignore[misc]

    def _read(self, number: int) -> np.ndarray:
        if number in (3, 30):
            raise ImageError("broken")
        return self.images[number]


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
def test_every_batch_is_counted_once_in_every_stage(onnx_file: Path, remote: bool) -> None:
    with Scorer(onnx_file, "cpu", batch_size=8, threads=2) as scorer:
        losses = np.concatenate([batch.loss for batch in scorer.stream(SomePool(remote))])
        scorer.score(np.zeros((0, 8, 8, 3), np.uint8))
        found = samples(scorer.telemetry)
    assert found["lloss_images_total", "scored"] == 48 == len(losses)
    assert found["lloss_images_total", "skipped"] == 2
    for stage in ("read", "decode", "infer", "queue"):
        assert found[f"lloss_{stage}_duration_seconds_count",] == 7, stage
    assert found["lloss_batch_size_count",] == 7
    assert found["lloss_predicted_loss_bucket", "0.0"] == (losses <= 0).sum()
    assert found["lloss_model_info", "cpu", "fp32", "cpu", scorer.engine.sha256] == 1
    assert found["lloss_queue_size",] == 0


def test_scorers_may_share_one(onnx_file: Path) -> None:
    telemetry = Telemetry()
    telemetry.model("of the program", "cpu", "fp32")
    for _ in range(2):
        with Scorer(onnx_file, "cpu", telemetry=telemetry) as scorer:
            scorer.score(pictures(2))
            copy = pickle.loads(pickle.dumps(scorer))
            assert scorer.telemetry is telemetry is not copy.telemetry
            copy.close()
    found = samples(telemetry)
    assert found["lloss_images_total", "scored"] == 4
    (named,) = [key for key in found if key[0] == "lloss_model_info"]
    assert "of the program" in named


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scraped(port: int) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        return parsed(reply.read().decode())


def test_metrics_are_served_during_a_run(onnx_file: Path, port: int) -> None:
    with Scorer(onnx_file, "cpu", batch_size=8) as scorer, serve_metrics(scorer.telemetry, port):
        stream = scorer.stream(SomePool(remote=False))
        next(stream)
        assert scraped(port)["lloss_images_total", "scored"] >= 7
        assert sum(map(len, stream)) == 41
        assert scraped(port)["lloss_images_total", "scored"] == 48
    with pytest.raises(urllib.error.URLError):
        scraped(port)


def test_a_port_in_use_is_one_line(
    onnx_file: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit):
            main(["score", str(onnx_file), str(photos), "-o", str(tmp_path / "s"),
                  "--provider", "cpu", "--metrics-port", str(port)])  # fmt: skip
    wanted = f"lloss: --metrics-port {port}: Address already in use; choose another port"
    assert capsys.readouterr().err.splitlines()[-1] == wanted
    assert not (tmp_path / "s").exists()
