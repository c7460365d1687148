"""Models are copied, checked, swapped without a failed request, and kept for jobs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.model_manager import ModelManager
from lloss.serve.daemon.settings import Limits, ServeSettings
from lloss.serve.scoring.engine import engine as engine_module
from onnx import numpy_helper

from lloss.errors import EngineError, LlossError, ModelFileError

from ...scoring.fakes import pictures
from .conftest import in_threads, refused


def change(model: Path, factor: float) -> str:
    """Make a file another model of the same interface: its weights are multiplied."""
    proto = onnx.load(str(model))
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = (numpy_helper.to_array(tensor) * np.float32(factor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, str(model))
    return hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.fixture
def model(onnx_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(onnx_file, tmp_path / "model.onnx"))


@pytest.fixture
def make(model: Path, tmp_path: Path) -> Iterator[Callable[[], ModelManager]]:
    made: list[ModelManager] = []

    def models() -> ModelManager:
        settings = ServeSettings(
            model=model, data_dir=tmp_path / "data", provider="cpu", batch_size=8, threads=2
        )
        made.append(ModelManager(settings, DaemonMetrics(Limits())))
        return made[-1]

    yield models
    for one in made:
        one.close()


@pytest.fixture
def models(make: Callable[[], ModelManager]) -> ModelManager:
    models = make()
    models.load()
    return models


def serving(models: ModelManager) -> Any:
    """The scorer that serves."""
    return models.current.scorer


def copies(tmp_path: Path) -> set[str]:
    return {path.stem for path in (tmp_path / "data/models").iterdir()}


def named(models: ModelManager) -> str:
    """The model that the metrics name."""
    found = re.findall('lloss_model_info{.*sha256="(.*?)"', models._metrics.exposition().decode())
    return "".join(found)


def reloads(models: ModelManager) -> dict[str, float]:
    """How many reloads had each outcome."""
    sample = models._metrics.registry.get_sample_value
    outcomes = ("swapped", "unchanged", "refused")
    counts = {name: sample("lloss_reloads_total", {"outcome": name}) for name in outcomes}
    return {name: count for name, count in counts.items() if count}


def losses(models: ModelManager, count: int = 3) -> Any:
    return asyncio.run(models.score(pictures(count), 10)).answer.columns["loss"]


def test_a_copy_serves(models: ModelManager, model: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    current = models.current
    assert (models.sha256, current.sha256, models.not_ready()) == (sha256, sha256, "")
    engine = serving(models).engine
    assert (current.provider, current.note) == (engine.provider, engine.note) == ("cpu", "")
    copy = tmp_path / "data/models" / f"{sha256}.onnx"
    assert copy.read_bytes() == model.read_bytes()
    assert copy.stat().st_ino != model.stat().st_ino and copy.stat().st_nlink == 1
    before = losses(models)
    model.write_bytes(b"overwritten in place")
    assert np.array_equal(losses(models), before)
    scored = asyncio.run(models.score(pictures(1), 10))
    assert scored.model is current


def test_nothing_is_scored_before_a_load_or_after_the_end(make: Callable[[], ModelManager]) -> None:
    models = make()
    assert models.sha256 == "" and "not loaded yet" in models.not_ready()
    for act in (lambda: models.current, models.reload, lambda: losses(models)):
        refused(act, 503)
    models.load()
    models.close()
    assert models.not_ready() and models.sha256 == ""
    refused(lambda: losses(models), 503)


def test_a_reload_swaps_and_frees_the_old_model(models: ModelManager, model: Path) -> None:
    old, before, scorer = models.sha256, losses(models), serving(models)
    new = change(model, 1.1)
    assert models.reload() == (old, new) and models.sha256 == new
    assert not np.array_equal(losses(models), before)
    assert scorer._closed
    in_threads(lambda _: models.reload(), 3)
    assert named(models) == new and reloads(models) == {"swapped": 1, "unchanged": 3}
    assert models._metrics.drift.images == 3, "an unchanged model goes on"


def test_no_request_fails_during_reloads(models: ModelManager, model: Path) -> None:
    first = model.read_bytes()
    expected = {models.sha256: losses(models)}
    change(model, 1.2)
    second = model.read_bytes()
    models.reload()
    expected[models.sha256] = losses(models)
    seen = []

    def exchange() -> None:
        for number in range(6):
            model.write_bytes((first, second)[number % 2])
            models.reload()

    async def ask(until: asyncio.Future[None]) -> None:
        while not until.done():
            scored = await models.score(pictures(3), 10)
            found = scored.answer.columns["loss"]
            np.testing.assert_allclose(found, expected[scored.model.sha256], rtol=1e-4, atol=1e-5)
            seen.append(scored.model.sha256)

    async def work() -> None:
        exchanged = asyncio.get_running_loop().run_in_executor(None, exchange)
        await asyncio.gather(exchanged, *(ask(exchanged) for _ in range(8)))

    asyncio.run(work())
    assert len(seen) > 50 and set(seen) == set(expected)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "model.onnx: no such file; make it with"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "model.onnx: not a readable"),
        (lambda path: path.write_bytes(b""), "model.onnx: "),
        (lambda path: path.write_bytes(b"text"), "model.onnx: not a readable ONNX file"),
        (lambda path: (path.unlink(), path.mkdir()), "model.onnx: no such file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "model.onnx: no such file"),
        (lambda path: change(path, np.nan), "model.onnx: gives .* not finite"),
    ],
)
def test_an_invalid_model_is_refused_and_the_old_one_serves(
    models: ModelManager, model: Path, tmp_path: Path, spoil: Any, message: str
) -> None:
    sha256, before = models.sha256, losses(models)
    spoil(model)
    with pytest.raises((ModelFileError, EngineError), match=message) as error:
        models.reload()
    assert "\n" not in str(error.value) and str(tmp_path / "data") not in str(error.value)
    assert models.sha256 == sha256 and np.array_equal(losses(models), before)
    assert reloads(models) == {"refused": 1}


def test_a_file_that_is_being_written_is_refused(
    models: ModelManager, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_bytes

    def rewriting(self: Path) -> bytes:
        content = read(self)
        if self == model:
            model.write_bytes(content)
        return content

    monkeypatch.setattr(Path, "read_bytes", rewriting)
    with pytest.raises(ModelFileError, match="is being written"):
        models.reload()


def test_a_job_keeps_the_model_that_it_began_with(
    models: ModelManager, model: Path, tmp_path: Path
) -> None:
    old, before, original = models.sha256, losses(models), model.read_bytes()
    with models.borrowed(old) as scorer:
        assert scorer is serving(models)
        change(model, 1.4)
        models.reload()
        assert np.allclose(scorer.score(pictures(3)).loss, before, atol=1e-5)
        with models.borrowed(old) as same:
            assert same is scorer
        models.prune(set())
        assert copies(tmp_path) == {old, models.sha256}
    assert scorer._closed
    with models.borrowed(old) as scorer:  # loaded again for it
        assert scorer.engine.sha256 == old and scorer.telemetry is models._metrics.telemetry
        assert np.allclose(scorer.score(pictures(3)).loss, before, atol=1e-5)
        assert named(models) == models.sha256
        model.write_bytes(original)
        assert models.reload()[1] == old and serving(models) is scorer
    assert np.isfinite(losses(models)).all() and not scorer._closed


def test_copies_that_nothing_needs_are_pruned(
    models: ModelManager, model: Path, tmp_path: Path
) -> None:
    old = models.sha256
    change(model, 1.5)
    models.reload()
    models.prune({old})
    assert old in copies(tmp_path)
    with models._loading:  # for minutes, if it makes a TensorRT engine
        models.prune(set())
    assert old in copies(tmp_path)
    models.prune(set())
    assert copies(tmp_path) == {models.sha256}
    with pytest.raises(LlossError, match="gone or damaged"), models.borrowed(old):
        pass


def test_requests_and_the_job_of_an_old_model_share_cores(
    models: ModelManager, model: Path
) -> None:
    """So that requests go first: beside the job's threads they would get half of the cores."""
    with models.borrowed(models.sha256) as scorer:
        slots = scorer._started().slots
        change(model, 1.9)
        models.reload()
        assert serving(models) is not scorer
        assert serving(models)._started().slots is slots


@pytest.fixture
def gpu(models: ModelManager, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The serving engine, which claims to run on a GPU."""
    engine = serving(models).engine
    monkeypatch.setattr(engine, "provider", "cuda")
    return engine


def test_a_lost_gpu_is_not_ready(
    models: ModelManager, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models.not_ready() == ""
    monkeypatch.setattr(gpu.executor, "failure", lambda: "cuda:0 was lost (719)")
    assert models.not_ready() == "cuda:0 was lost (719)"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_cpu_does_not_replace_a_gpu(
    models: ModelManager,
    gpu: Any,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    before, new = models.sha256, change(model, 2.0)
    read = engine_module.read_manifest
    monkeypatch.setattr(
        engine_module, "read_manifest", lambda path: replace(read(path), precision=precision)
    )
    if precision == "int8":  # which is for CPUs
        assert models.reload()[1] == new
        return
    with pytest.raises(EngineError, match=r"model\.onnx: would run on the CPU, .* on cuda:0"):
        models.reload()
    assert models.sha256 == before
