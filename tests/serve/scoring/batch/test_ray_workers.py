"""Actors start only where they fit, leave nothing behind, and what fails is one line."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool
from lloss.serve.scoring.batch.scoring_run import ScoreReport

from lloss import Scorer
from lloss.errors import EngineError, SettingsError
from lloss.pools import open_pool

from ....object_store import contents
from ..fakes import pictures

pytestmark = pytest.mark.distributed
ray = pytest.importorskip("ray", reason="Ray is not installed: make test-distributed installs it")

from lloss.serve.scoring.batch import ray_run  # noqa: E402
from lloss.serve.scoring.batch.ray_actor import PoolSource, ScorerSpec  # noqa: E402
from lloss.serve.scoring.batch.ray_run import RayOptions, score_on_ray  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, as if it had four GPUs and two cores."""
    ray.init("local", num_cpus=2, num_gpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "a.npy", pictures(100))
    return tmp_path / "a.npy"


def machine(cpu: float, gpu: float = 0, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cpu, **({"GPU": gpu} if gpu else {})}
    return {"Alive": alive, "Resources": resources if cpu else {"GPU": gpu}}


@pytest.mark.parametrize(
    ("machines", "provider", "threads", "found"),
    [
        ([machine(4, 8)], "auto", 0, (4, 1)),  # fewer cores than GPUs
        ([machine(16, 2), machine(4, 1)], "cuda", 0, (3, 4)),
        ([machine(16, 2), machine(2, 1)], "cuda", 4, (2, 4)),  # the second has too few
        ([machine(16, 2), machine(64)], "auto", 0, (2, 8)),
        ([machine(5, 1), machine(3)], "cpu", 2, (3, 2)),
        ([machine(8), machine(8, alive=False)], "auto", 0, (8, 1)),
    ],
)
def test_actors_are_as_many_as_fit(
    monkeypatch: pytest.MonkeyPatch,
    machines: list[dict[str, Any]],
    provider: str,
    threads: int,
    found: tuple[int, int],
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: machines)
    workers = ray_run._Workers.of(RayOptions(threads=threads), provider)
    assert (workers.count, workers.threads) == found
    assert workers.resources.get("num_gpus", 0) == (provider != "cpu" and "GPU" in str(machines))


@pytest.mark.parametrize(
    ("machines", "provider", "message"),
    [
        ([machine(4, 2)], "cuda", "--threads 8: no machine .* so many cores and a GPU; give fewer"),
        ([machine(0, 2)], "auto", "cores and a GPU; give fewer, or start Ray with more"),
        ([machine(4)], "cpu", "--threads 8: no machine of the cluster has so many cores; give"),
    ],
)
def test_an_actor_that_fits_nowhere_is_refused(
    monkeypatch: pytest.MonkeyPatch, machines: list[dict[str, Any]], provider: str, message: str
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: machines)
    threads = 8 if machines[0]["Resources"].get("CPU") else 0
    with pytest.raises(SettingsError, match=message):
        ray_run._Workers.of(RayOptions(threads=threads), provider)


def test_gpus_without_cores_do_not_hang_a_run(
    cluster: None, onnx_file: Path, array: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Four actors of a GPU and a core do not fit; five that were asked for neither."""
    started = []
    for name, actors in (("fit", 0), ("asked", 5)):
        options = RayOptions(batch_size=8, actors=actors)
        with caplog.at_level(logging.WARNING):
            score_on_ray(
                onnx_file, PoolSource(str(array)), open_pool(array), tmp_path / name,
                options=options, part_size=20, announce=lambda _, count: started.append(count),
            )  # fmt: skip
    assert started == [2, 5]
    assert "5 parts for 2 actors: about 17 % of their time is idle" in caplog.text
    with Scorer(onnx_file, provider="cpu", batch_size=8) as scorer:
        score_pool(scorer, open_pool(array), tmp_path / "local", part_size=20)
    assert contents(tmp_path / "fit") == contents(tmp_path / "local")
    assert contents(tmp_path / "asked") == contents(tmp_path / "local")


def test_a_note_on_idle_actors_is_for_a_new_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run: Any = SimpleNamespace(pool=SimpleNamespace(ids=lambda: iter("abcde")), part_size=5)
    work: Any = None
    monkeypatch.setattr(ray_run._RayParts, "_rows", lambda *_: iter(()))
    parts = ray_run._RayParts(run, work, ray_run._Workers(2, 1, {}))
    parts.score(ScoreReport(5, 0, resumed=5), itertools.count())
    assert not caplog.messages
    parts.score(ScoreReport(0, 0, resumed=0), itertools.count())
    assert caplog.text.count("1 part for 2 actors: about 50 % of their time is idle") == 1


def test_the_copy_of_the_model_is_gone_once_it_is_loaded(
    cluster: None, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = ray.put(onnx_file.read_bytes())
    with ScorerSpec(str(onnx_file), content, "cpu", 8, 1, 4).start() as scorer:
        assert not list(tmp_path.iterdir())
        assert len(scorer.score(pictures(3))) == 3
    broken = ScorerSpec(str(onnx_file), ray.put(b"text"), "cpu", 8, 1, 4)
    with pytest.raises(Exception, match=r"model\.onnx"):
        broken.start()
    assert not list(tmp_path.iterdir())


def fail(kind: str) -> None:
    if kind == "lines":
        raise ValueError("the first line\nthe second line")
    os._exit(1)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("lines", "ValueError: the first line the second line"), ("exit", "died unexpectedly")],
)
def test_what_ends_a_task_is_one_line(cluster: None, kind: str, reason: str) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with pytest.raises(ray.exceptions.RayError) as raised:
            ray.get(ray.remote(fail).options(max_retries=0).remote(kind))
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    text = str(ray_run._gave_up(raised.value))
    assert text.startswith("Ray gave up: ") and reason in text and "\n" not in text
    assert text.endswith("; run the same command again to go on") and "\x1b" not in text


class FailingSource(PoolSource):
    """Opens no pool, and raises what no user causes."""

    def open(self) -> Any:
        raise RuntimeError("the first line\nthe second line")


def test_what_an_actor_raises_is_one_line(
    cluster: None, onnx_file: Path, array: Path, tmp_path: Path
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    expected = "^on a worker of Ray: RuntimeError: the first line the second line$"
    try:
        with pytest.raises(EngineError, match=expected):
            score_on_ray(
                onnx_file, FailingSource(str(array)), open_pool(array), tmp_path / "s",
                options=RayOptions(provider="cpu", batch_size=8), part_size=20,
            )  # fmt: skip
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_what_a_worker_lacks_is_one_line(
    cluster: None, onnx_file: Path, array: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where lloss is not installed on a machine: a module that only this process has."""
    module = ModuleType("only_here")
    source = type("Elsewhere", (PoolSource,), {"__module__": "only_here"})
    module.Elsewhere = source  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(EngineError, match=r"only_here") as raised:
        score_on_ray(
            onnx_file, source(str(array)), open_pool(array), tmp_path / "s",
            options=RayOptions(provider="cpu", batch_size=8), part_size=20,
        )  # fmt: skip
    assert "\n" not in str(raised.value)


def test_waiting_for_a_busy_cluster_is_logged(
    cluster: None,
    onnx_file: Path,
    array: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ray_run, "_PATIENCE", 0.5)
    other = ray.remote(dict).options(num_cpus=2).remote()  # holds all cores
    threading.Timer(5, ray.kill, (other,)).start()
    with caplog.at_level(logging.WARNING):
        score_on_ray(
            onnx_file, PoolSource(str(array)), open_pool(array), tmp_path / "s",
            options=RayOptions(provider="cpu", batch_size=8), part_size=50,
        )  # fmt: skip
    assert "no worker of Ray has answered yet" in caplog.text


def test_a_cluster_that_is_not_there_is_one_line(
    onnx_file: Path, array: Path, tmp_path: Path
) -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(SettingsError, match=r"^--ray-address 127\.0\.0\.1:9: ") as raised:
        score_on_ray(
            onnx_file, PoolSource(str(array)), open_pool(array), tmp_path / "s",
            options=RayOptions(address="127.0.0.1:9"),
        )  # fmt: skip
    assert "\n" not in str(raised.value) and not (tmp_path / "s").exists()
