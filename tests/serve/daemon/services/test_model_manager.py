"""Models are copied, checked, exchanged without a failed request, and kept for jobs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.observability.metrics import DaemonMetrics
from lloss.serve.daemon.services.model_manager import Models
from lloss.serve.daemon.settings import Limits, ServeSettings
from lloss.serve.scoring.engine import session as engines
from onnx import numpy_helper

from lloss.errors import ArtifactError, EngineError, LlossError
from lloss.pools import ArrayPool

from ..waiting import PATIENCE, until


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def changed(source: Path, target: Path, by: float) -> str:
    """Another model of the same interface: one weight vector of the head is multiplied."""
    model = onnx.load(str(source))
    held = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    for tensor in held:
        values = numpy_helper.to_array(tensor) * np.float32(by)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(model, str(target))
    return hashlib.sha256(target.read_bytes()).hexdigest()


class Told:
    def __init__(self) -> None:
        self.named: list[str] = []
        self.outcomes: list[str] = []


Make = Callable[..., Models]


@pytest.fixture
def model(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(artifact, tmp_path / "model.onnx"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    found = Told()
    name, reloaded = DaemonMetrics.model, DaemonMetrics.reloaded

    def model(self: Any, manifest: Any, sha256: str, provider: str) -> None:
        found.named.append(sha256)
        name(self, manifest, sha256, provider)

    def outcome(self: Any, outcome: str) -> None:
        found.outcomes.append(outcome)
        reloaded(self, outcome)

    monkeypatch.setattr(DaemonMetrics, "model", model)
    monkeypatch.setattr(DaemonMetrics, "reloaded", outcome)
    return found


@pytest.fixture
def make(model: Path, tmp_path: Path, told: Told) -> Iterator[Make]:
    made: list[Models] = []

    def models(load: bool = True, **given: Any) -> Models:
        settings = ServeSettings(
            model=model,
            data_dir=tmp_path / "data",
            provider="cpu",
            batch_size=8,
            threads=2,
            limits=Limits(**given),
        )
        made.append(Models(settings, DaemonMetrics(settings.limits)))
        if load:
            made[-1].load()
        return made[-1]

    yield models
    for one in made:
        one.close()


def copies(tmp_path: Path) -> set[str]:
    return {path.name.removesuffix(".onnx") for path in (tmp_path / "data/models").iterdir()}


def loss(models: Models, images: Any = None) -> Any:
    images = pictures(3) if images is None else images
    return asyncio.run(models.score(images, 10)).answer.columns["loss"]


def test_the_copy_is_what_serves(make: Make, model: Path, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    models = make()
    assert (models.sha256, models.provider, models.not_ready()) == (sha256, "cpu", "")
    copy = tmp_path / "data/models" / f"{sha256}.onnx"
    assert copy.read_bytes() == model.read_bytes()
    assert copy.stat().st_ino != model.stat().st_ino and copy.stat().st_nlink == 1
    models._serving.loaded.scorer.engine.note = "no VNNI"  # type: ignore[union-attr]
    assert models.note == "no VNNI"
    before = loss(models)
    model.write_bytes(b"written over in place")
    assert np.array_equal(loss(models), before)
    scored = asyncio.run(models.score(pictures(1), 10))
    assert scored.sha256 == sha256 and scored.manifest == models.manifest


def test_before_it_is_loaded_it_says_so(make: Make) -> None:
    models = make(load=False)
    assert models.sha256 == models.note == "" and "not loaded yet" in models.not_ready()
    for ask in (lambda: models.manifest, lambda: models.provider, lambda: loss(models)):
        with pytest.raises(RequestError) as refused:
            ask()
        assert refused.value.status == 503
    with pytest.raises(RequestError):
        models.reload()
    models.load()
    models.close()
    assert models.not_ready() and models.sha256 == ""
    with pytest.raises(RequestError):
        loss(models)


def test_a_reload_swaps_and_closes_the_old_one(
    make: Make, artifact: Path, model: Path, told: Told
) -> None:
    models = make()
    old, before = models.sha256, loss(models)
    scorer = models._serving.loaded.scorer  # type: ignore[union-attr]
    sha256 = changed(artifact, model, 1.1)
    done = models.reload()
    assert (done.before, done.now) == (old, sha256) and models.sha256 == sha256
    assert not np.array_equal(loss(models), before)
    assert scorer._closed
    assert models.reload() == type(done)(sha256, sha256)
    assert told.named == [old, sha256] and told.outcomes == ["swapped", "unchanged"]
    text = models._metrics.exposition()[0].decode()
    assert sha256 in text and old not in text
    assert models.batches >= 2


def test_no_request_fails_while_models_are_exchanged(
    make: Make, artifact: Path, model: Path, tmp_path: Path
) -> None:
    models = make()
    other = tmp_path / "other.onnx"
    wanted = {models.sha256: loss(models)}
    changed(artifact, other, 1.2)
    files = [artifact.read_bytes(), other.read_bytes()]
    model.write_bytes(files[1])
    models.reload()
    wanted[models.sha256] = loss(models)
    seen = []

    def exchange() -> None:
        for number in range(6):
            model.write_bytes(files[number % 2])
            models.reload()

    async def ask(until: asyncio.Future[None]) -> None:
        while not until.done():
            scored = await models.score(pictures(3), 10)
            np.testing.assert_allclose(
                scored.answer.columns["loss"], wanted[scored.sha256], rtol=1e-4, atol=1e-5
            )
            seen.append(scored.sha256)

    async def work() -> None:
        exchanged = asyncio.get_running_loop().run_in_executor(None, exchange)
        await asyncio.gather(exchanged, *(ask(exchanged) for _ in range(8)))

    asyncio.run(work())
    assert len(seen) > 50 and set(seen) == set(wanted)


def test_what_the_old_model_still_predicts_is_no_drift_of_the_new_one(
    make: Make, artifact: Path, model: Path, told: Told
) -> None:
    models, free = make(), threading.Event()
    drift = models._metrics.drift
    loss(models)
    assert drift.measure().images == 3
    workers = models._serving.loaded.scorer._started().workers  # type: ignore[union-attr]
    changed(artifact, model, 1.7)

    async def work() -> None:
        for _ in range(workers.count):
            workers.submit(lambda: free.wait(PATIENCE), -1)
        asked = [asyncio.ensure_future(models.score(pictures(8), 20)) for _ in range(4)]
        await asyncio.sleep(0)
        reloading = asyncio.get_running_loop().run_in_executor(None, models.reload)
        while len(told.named) < 2:
            await asyncio.sleep(0.001)
        free.set()
        done = await reloading
        assert {scored.sha256 for scored in await asyncio.gather(*asked)} == {done.before}

    asyncio.run(asyncio.wait_for(work(), 30))
    assert drift.measure().images == 0
    loss(models)
    assert drift.measure().images == 3


def test_several_reloads_at_a_time_load_once(
    make: Make, artifact: Path, model: Path, told: Told
) -> None:
    models = make()
    changed(artifact, model, 1.3)
    threads = [threading.Thread(target=models.reload) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(told.outcomes) == ["swapped", *["unchanged"] * 4]


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda path: path.unlink(), "model.onnx: no such file; make it with"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "model.onnx: not a readable"),
        (lambda path: path.write_bytes(b""), "model.onnx: "),
        (lambda path: path.write_bytes(b"no model"), "model.onnx: not a readable ONNX file"),
        (lambda path: (path.unlink(), path.mkdir()), "model.onnx: is not a file"),
        (lambda path: changed(path, path, np.nan), "model.onnx: gives .* not finite"),
    ],
)
def test_a_model_that_is_none_is_refused_and_the_old_one_goes_on(
    make: Make, model: Path, tmp_path: Path, told: Told, spoil: Any, match: str
) -> None:
    models = make()
    sha256, before = models.sha256, loss(models)
    spoil(model)
    with pytest.raises((ArtifactError, EngineError), match=match) as refused:
        models.reload()
    assert "\n" not in str(refused.value) and str(tmp_path / "data") not in str(refused.value)
    assert models.sha256 == sha256 and np.array_equal(loss(models), before)
    assert told.outcomes == ["refused"] and copies(tmp_path) == {sha256}


def test_a_file_that_is_being_written_is_refused(
    make: Make, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = make()
    read = Path.read_bytes

    def slow(self: Path) -> bytes:
        content = read(self)
        if self == model:
            with model.open("ab") as file:
                file.write(b"more")
        return content

    monkeypatch.setattr(Path, "read_bytes", slow)
    with pytest.raises(ArtifactError, match="is being written"):
        models.reload()


def test_what_is_no_file_is_refused_at_once(make: Make, model: Path) -> None:
    """A pipe that nobody writes to would hold reloads, and the end, up for ever."""
    models = make()
    model.unlink()
    os.mkfifo(model)
    with pytest.raises(ArtifactError, match="is not a file"):
        models.reload()


def test_a_damaged_copy_is_made_again(make: Make, tmp_path: Path) -> None:
    models = make()
    sha256 = models.sha256
    models.close()
    copy = tmp_path / "data/models" / f"{sha256}.onnx"
    content = copy.read_bytes()
    copy.write_bytes(content[:-1] + b"x")
    again = make()
    assert again.sha256 == sha256 and copy.read_bytes() == content


def test_a_job_keeps_the_model_that_it_began_with(
    make: Make, artifact: Path, model: Path, tmp_path: Path
) -> None:
    models = make()
    old, before = models.sha256, loss(models)
    with models.borrowed(old) as scorer:
        assert scorer is models._serving.loaded.scorer  # type: ignore[union-attr]
        changed(artifact, model, 1.4)
        models.reload()
        assert np.allclose(scorer.score(pictures(3)).loss, before, atol=1e-5)
        with models.borrowed(old) as same:
            assert same is scorer
        assert not scorer._closed
        models.prune(set())
        assert copies(tmp_path) == {old, models.sha256}
    assert scorer._closed
    assert np.isfinite(loss(models)).all()


def test_after_a_reload_requests_still_go_before_the_job_of_the_old_model(
    make: Make, artifact: Path, model: Path
) -> None:
    """They share the cores' threads: beside the job's a request would get half of them."""
    models, order, most = make(), list[str](), 0
    free, lock, running = threading.Event(), threading.Lock(), list[str]()

    def watched(scorer: Any, name: str) -> None:
        run = scorer.engine.executor.run

        def watched_run(*given: Any) -> Any:
            nonlocal most
            with lock:
                running.append(name)
                order.append(name)
                most = max(most, len(running))
            if name == "job":
                free.wait(30)
            try:
                return run(*given)
            finally:
                with lock:
                    running.remove(name)

        scorer.engine.executor.run = watched_run

    async def ask() -> None:
        asked = asyncio.ensure_future(models.score(pictures(1), 30))
        await asyncio.sleep(0.2)  # for what would not wait
        free.set()
        await asked

    with models.borrowed(models.sha256) as scorer:
        changed(artifact, model, 1.9)
        models.reload()
        serving = models._serving.loaded.scorer  # type: ignore[union-attr]
        assert serving is not scorer
        watched(scorer, "job")
        watched(serving, "request")
        ranges = (range(n, n + 8) for n in range(0, 80, 8))
        batches = scorer.ranges(ArrayPool(pictures(80), "x"), ranges)
        job = threading.Thread(target=lambda: list(batches))
        job.start()
        until(lambda: len(running) == 2)  # both threads
        asyncio.run(ask())
        job.join(PATIENCE)
    assert most == 2 and order.index("request") == 2 and order.count("job") == 10


def test_copies_are_not_pruned_while_a_model_is_loaded_and_nobody_waits(
    make: Make, tmp_path: Path
) -> None:
    models = make()
    stray = tmp_path / "data/models" / f"{'0' * 64}.onnx"
    stray.write_bytes(b"")
    with models._loading:  # as for the minutes that a TensorRT engine takes
        models.prune(set())
        assert stray.exists()
    models.prune(set())
    assert not stray.exists()


def test_an_earlier_model_is_loaded_for_a_job(
    make: Make, artifact: Path, model: Path, tmp_path: Path, told: Told
) -> None:
    models = make()
    old, before = models.sha256, loss(models)
    changed(artifact, model, 1.5)
    models.reload()
    with models.borrowed(old) as scorer:
        assert scorer.engine.sha256 == old and scorer.telemetry is models._metrics.telemetry
        assert np.allclose(scorer.score(pictures(3)).loss, before, atol=1e-5)
    assert scorer._closed and told.named[-1] == models.sha256
    models.prune({old})
    assert old in copies(tmp_path)
    models.prune(set())
    assert copies(tmp_path) == {models.sha256}
    with pytest.raises(LlossError, match="gone or damaged"), models.borrowed(old):
        pass


def test_going_back_to_a_model_that_a_job_holds(make: Make, artifact: Path, model: Path) -> None:
    models = make()
    old = models.sha256
    with models.borrowed(old) as scorer:
        changed(artifact, model, 1.6)
        models.reload()
        shutil.copy(artifact, model)
        assert models.reload().now == old
        assert models._serving.loaded.scorer is scorer  # type: ignore[union-attr]
        assert np.isfinite(loss(models)).all()
    assert np.isfinite(loss(models)).all() and not scorer._closed


def on_a_gpu(models: Models, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The engine that serves, which says that it runs on a GPU."""
    engine = models._current().loaded.scorer.engine
    monkeypatch.setattr(engine, "provider", "cuda")
    return engine


def test_a_lost_gpu_is_not_ready(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    models = make()
    engine = on_a_gpu(models, monkeypatch)
    assert models.not_ready() == ""
    monkeypatch.setattr(engine.executor, "failure", lambda: "cuda:0 was lost (719)")
    assert models.not_ready() == "cuda:0 was lost (719)"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_cpu_does_not_take_the_place_of_a_gpu(
    make: Make,
    artifact: Path,
    model: Path,
    tmp_path: Path,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    models = make()
    before = models.sha256
    on_a_gpu(models, monkeypatch)
    changed(artifact, model, 2.0)
    read = engines.read_manifest
    monkeypatch.setattr(
        engines, "read_manifest", lambda path: replace(read(path), precision=precision)
    )
    if precision == "int8":  # which is for CPUs
        assert models.reload().now != before
        return
    with pytest.raises(EngineError, match=r"model\.onnx: would run on the CPU, .* on cuda:0"):
        models.reload()
    assert models.sha256 == before and told.outcomes == ["refused"]
    assert copies(tmp_path) == {before}


def test_closing_finishes_what_is_queued(make: Make) -> None:
    models = make()

    async def work() -> None:
        asked = [asyncio.ensure_future(models.score(pictures(8), 10)) for _ in range(8)]
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, models.close)
        for scored in await asyncio.gather(*asked):
            assert np.isfinite(scored.answer.columns["loss"]).all()

    asyncio.run(work())
