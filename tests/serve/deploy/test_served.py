"""A real daemon, scraped: what rules and dashboard ask for is there, and drift is seen."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from lloss import Scorer
from lloss.manifest import KEY, read_manifest
from lloss.statistics.loss_distribution import LossReference

from ...waiting import PATIENCE

DEPLOY = Path(__file__).parents[3] / "serve" / "deploy"
NAMED = re.compile(r"(?<![\w:])((?:lloss|process)_\w+)")


def noise(count: int, seed: int) -> np.ndarray:
    """Images of all kinds of brightness."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 200, (count, 1, 1, 3))
    return (base + random.integers(0, 56, (count, 8, 8, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def model(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact, with a reference of such images."""
    path = tmp_path_factory.mktemp("referenced") / "model.onnx"
    with Scorer(artifact, "cpu") as scorer:
        reference = LossReference.of(scorer.score(noise(1000, 0)).loss, "noise")
    graph = onnx.load(str(artifact))
    del graph.metadata_props[:]
    manifest = dataclasses.replace(read_manifest(artifact), reference=reference)
    graph.metadata_props.add(key=KEY, value=manifest.to_json())
    onnx.save(graph, str(path))
    return path


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "lloss", "serve", model, "--data-dir", folder, "--port=0",
               "--provider=cpu", "--threads=1"]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            until = time.monotonic() + PATIENCE
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.05)
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()


def scraped(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reply = client.get("/metrics")
    assert reply.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


def send(client: httpx.Client, images: np.ndarray, batch: int = 50) -> None:
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        request = {
            "inputs": [
                {
                    "name": "images",
                    "datatype": "UINT8",
                    "shape": list(chunk.shape),
                    "data": chunk.ravel().tolist(),
                }
            ]
        }
        reply = client.post("/v2/models/lloss/infer", json=request)
        assert reply.status_code == 200, reply.text


def test_live_images_of_another_kind_are_drift(served: httpx.Client, model: Path) -> None:
    none = frozenset[tuple[str, str]]()
    assert scraped(served)["lloss_ready", none] == 1
    assert np.isnan(scraped(served)["lloss_drift_psi", none])
    send(served, noise(1000, 1))
    found = scraped(served)
    assert found["lloss_drift_window_images", none] == 1000
    assert found["lloss_drift_reference_images", none] == 1000
    assert found["lloss_drift_psi", none] < 0.1 and found["lloss_drift_ks", none] < 0.1
    assert found["lloss_served_images_total", none] == 1000
    send(served, np.minimum(noise(1000, 2), 90))
    found = scraped(served)
    assert found["lloss_drift_psi", none] > 0.25


def test_a_real_daemon_exports_all_that_is_asked_for(served: httpx.Client) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(1, 0)[0]).save(file, "PNG")
    served.post("/v1/score", files={"a": file.getvalue(), "b": b"no image"})
    text = (DEPLOY / "grafana.json").read_text(encoding="utf-8")
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    asked = set(NAMED.findall(json.dumps(rules)))
    asked |= {name for name in NAMED.findall(text) if not name.endswith(("_requests", "_errors"))}
    names = {name for name, _ in scraped(served)}
    names |= {name.removesuffix("_bucket") for name in names}  # as texts for people say it
    assert asked <= names, asked - names


def test_the_routes_of_scoring_are_those_that_latency_is_asked_of(served: httpx.Client) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(1, 0)[0]).save(file, "PNG")
    served.post("/v1/score", files={"a": file.getvalue()})
    send(served, noise(1, 0))
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    (slow,) = [r["expr"] for g in rules for r in g["rules"] if "p99" in r.get("record", "")]
    pattern = re.search(r'route=~"([^"]*)"', slow)
    assert pattern is not None
    routes = {dict(labels).get("route", "") for _, labels in scraped(served)}
    scoring = {route for route in routes if re.fullmatch(pattern[1], route)}
    assert scoring == {"/v1/score", "/v2/models/lloss/infer"}


def test_requests_are_counted_while_they_are_answered(served: httpx.Client) -> None:
    before = scraped(served)
    for _ in range(3):
        served.get("/healthz")
    served.get("/nowhere/at/all")
    after = scraped(served)
    probe = frozenset({("route", "/healthz"), ("code", "200")})
    counted = "lloss_requests_total"
    assert after[counted, probe] == before.get((counted, probe), 0) + 3
    routes = {dict(labels)["route"] for name, labels in after if name == counted}
    assert "unmatched" in routes and not any("nowhere" in route for route in routes)
    assert after["lloss_requests_in_flight", frozenset()] == 1  # the scrape itself


@pytest.mark.parametrize("accept", ["text/plain;version=zero", "*/*", ";;;", "application/x;q=2"])
def test_a_strange_accept_header_is_no_failure(served: httpx.Client, accept: str) -> None:
    reply = served.get("/metrics", headers={"Accept": accept})
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/plain")
    wanted = {"Accept": "application/openmetrics-text; version=1.0.0"}
    reply = served.get("/metrics", headers=wanted)
    assert reply.text.endswith("# EOF\n")
