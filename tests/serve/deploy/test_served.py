"""A real daemon, scraped: what rules, dashboard and README name is there, and drift is seen."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from lloss import Scorer
from lloss.manifest import KEY, read_manifest
from lloss.statistics.loss_distribution import LossReference

from ..daemon.processes import Process

DEPLOY = Path(__file__).parents[3] / "serve" / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))

SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*(?:\{[^}]*\}[^}]*)*)\}")
NAMED = re.compile(r"(?<![\w:])((?:lloss|process|instance:lloss)_[\w:]+)")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
OF_ONE_KIND = re.compile(r"_(created|bucket|sum|count)$")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def noise(count: int, seed: int) -> np.ndarray:
    """Images of all kinds of brightness."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 200, (count, 1, 1, 3))
    return (base + random.integers(0, 56, (count, 8, 8, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def model(onnx_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported model, with a reference of such images."""
    path = tmp_path_factory.mktemp("referenced") / "model.onnx"
    with Scorer(onnx_file, "cpu") as scorer:
        reference = LossReference.of(scorer.score(noise(1000, 0)).loss, "noise")
    graph = onnx.load(str(onnx_file))
    del graph.metadata_props[:]
    manifest = dataclasses.replace(read_manifest(onnx_file), reference=reference)
    graph.metadata_props.add(key=KEY, value=manifest.to_json())
    onnx.save(graph, str(path))
    return path


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("served")
    with contextlib.closing(Process(folder, "--threads=1", model=model)) as daemon:
        yield daemon.ready()


def send(daemon: Process, images: np.ndarray, batch: int = 50) -> None:
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        tensor = {"name": "images", "datatype": "UINT8", "shape": list(chunk.shape)}
        request = {"inputs": [{**tensor, "data": chunk.ravel().tolist()}]}
        assert daemon.ask("POST", "/v2/models/lloss/infer", request)[0] == 200


def scraped(daemon: Process) -> Samples:
    text = daemon.ask("GET", "/metrics")[1].decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def samples(served: Process) -> Samples:
    """After a request to each route of scoring."""
    file = io.BytesIO()
    Image.fromarray(noise(1, 0)[0]).save(file, "PNG")
    assert (
        served.ask("POST", "/v1/score", file.getvalue(), **{"Content-Type": "image/png"})[0] == 200
    )
    send(served, noise(1, 0))
    return scraped(served)


@pytest.fixture(scope="module")
def exported(samples: Samples) -> dict[str, set[str]]:
    """Names of the samples, with the names of their labels."""
    found: dict[str, set[str]] = {"up": set(), "ALERTS": {"alertstate"}}
    for name, labels in samples:
        found.setdefault(name, set()).update(label for label, _ in labels)
    return found


def queries() -> list[str]:
    """All expressions of the rules and the dashboard."""
    found = [rule["expr"] for group in RULES for rule in group["rules"]]
    found += [each["expr"] for panel in DASHBOARD["panels"] for each in panel.get("targets", ())]
    return found + [each["expr"] for each in DASHBOARD["annotations"]["list"]]


def test_every_metric_is_exported_and_asked_for(exported: dict[str, set[str]]) -> None:
    recorded = {rule["record"] for group in RULES for rule in group["rules"] if "record" in rule}
    asked = {name for query in queries() for name in NAMED.findall(query)}
    assert len(asked) > 35
    assert asked - set(exported) - recorded == set()
    plain = {
        name for name in exported if name.startswith("lloss_") and not OF_ONE_KIND.search(name)
    }
    # Batches within the pipeline, which the dashboard shows by their seconds.
    assert plain - asked == {"lloss_queue_size"}


def test_every_label_asked_for_is_there(exported: dict[str, set[str]], samples: Samples) -> None:
    values = {pair for _, labels in samples for pair in labels}
    seen = 0
    for query in queries():
        for name, selector in SELECTED.findall(query):
            for label, how, value in MATCHER.findall(selector):
                if label in ("job", "instance"):
                    continue
                seen += 1
                assert label in exported[name], (query, label)
                if label in ("reason", "outcome", "state"):
                    each = value.split("|") if how in ("=~", "!~") else [value]
                    assert {(label, one) for one in each} <= values, (query, value)
    assert seen > 10


def test_the_readme_lists_every_metric_with_its_labels(exported: dict[str, set[str]]) -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`lloss_.*?) \|", text, re.MULTILINE)
    listed = dict(re.findall(r"`(\w+)(?:\{([\w,]+)\})?`", " ".join(rows)))
    found: dict[str, set[str]] = {}
    for name, labels in exported.items():
        if name.startswith("lloss_") and not name.endswith("_created"):
            found.setdefault(OF_ONE_KIND.sub("", name), set()).update(labels - {"le"})
    assert {name: set(filter(None, labels.split(","))) for name, labels in listed.items()} == found


def test_the_routes_of_scoring_are_those_that_latency_is_asked_of(samples: Samples) -> None:
    (slow,) = [
        each["expr"] for g in RULES for each in g["rules"] if "p99" in each.get("record", "")
    ]
    pattern = re.search(r'route=~"([^"]*)"', slow)
    assert pattern is not None
    routes = {dict(labels).get("route", "") for _, labels in samples}
    scoring = {route for route in routes if re.fullmatch(pattern[1], route)}
    assert scoring == {"/v1/score", "/v2/models/lloss/infer"}


def test_live_images_of_another_kind_are_drift(served: Process, samples: Samples) -> None:
    none = frozenset[tuple[str, str]]()
    assert np.isnan(samples["lloss_drift_psi", none])
    send(served, noise(1000, 1))
    assert served.metric("lloss_drift_psi") < 0.1
    send(served, np.minimum(noise(1000, 2), 90))
    assert served.metric("lloss_drift_psi") > 0.25
    assert served.metric("lloss_drift_window_images") == 2002
