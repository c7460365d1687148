"""Pools scored in the background: resumed, cancelled, failed, and what remains then."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lloss.serve.daemon.daemon import Daemon
from lloss.serve.daemon.errors import RequestError
from lloss.serve.daemon.services import job_runner
from lloss.serve.daemon.services.job_runner import JobProgress, JobRunner
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.records import JobRow, PoolScores
from lloss.serve.scoring.batch import score_pool as engine

from lloss import Scorer
from lloss.errors import LlossError
from lloss.pools import open_pool
from lloss.scores.scores_folder import ScoresFolder

from ....waiting import PATIENCE
from ..waiting import until
from .conftest import refused

ENDED = ("done", "failed", "cancelled")


class Bench:
    """A daemon that is started again and again; ``pause`` is seconds of each batch of a job."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.pause = 0.0
        self.daemon: Daemon | None = None

    def start(self, **changes: Any) -> Daemon:
        self.close()
        settings: dict[str, Any] = {
            "model": self.folder / "model.onnx",
            "data_dir": self.folder / "data",
            "pool_roots": (str(self.root),),
            "provider": "cpu",
            "threads": 1,
        }
        self.daemon = Daemon(ServeSettings(**{**settings, **changes}))
        self.daemon.start()
        for name in ("pool", "array.npy"):
            self.daemon.pools.put(name, str(self.root / name))
        return self.daemon

    def close(self) -> None:
        if self.daemon is not None:
            self.daemon.close()

    def until(self, job: JobRow, *states: str) -> JobRow:
        """The job, once it is in one of these states, or has ended."""
        assert self.daemon is not None
        jobs = self.daemon.catalog.jobs
        until(lambda: jobs.row(job.id).state in (states or ENDED))
        return jobs.row(job.id)

    def score(self, pool: str, **options: Any) -> JobRow:
        """A job that has ended."""
        assert self.daemon is not None
        return self.until(self.daemon.jobs.submit(pool, **options))

    def interrupted(self, pool: str, parts: int = 2, **changes: Any) -> JobRow:
        """A job of a daemon that was closed after some parts."""
        self.pause = 0.02
        daemon = self.start(**changes)
        job = daemon.jobs.submit(pool)
        until(lambda: len(list(job.folder.glob("part-*"))) >= parts)
        daemon.close()
        self.pause = 0.0
        return job


@pytest.fixture
def root(photos: Path, tmp_path: Path) -> Path:
    """A folder of 62 images, two of them broken, and an array of a thousand."""
    root = tmp_path / "root"
    shutil.copytree(photos, root / "pool")
    (root / "pool/dark/zzz.png").write_bytes(b"broken")
    (root / "pool/bright/0.png").write_bytes(b"")
    noise = np.random.default_rng(0)
    np.save(root / "array.npy", noise.integers(0, 256, (1000, 8, 8, 3), np.uint8))
    return root


@pytest.fixture
def bench(
    onnx_file: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    shutil.copy(onnx_file, tmp_path / "model.onnx")
    bench, batch = Bench(root, tmp_path), JobProgress.batch

    def slow(self: Any, scores: Any) -> None:
        time.sleep(bench.pause)
        batch(self, scores)

    monkeypatch.setattr(JobProgress, "batch", slow)
    monkeypatch.setattr(JobRunner, "part_size", 100)
    monkeypatch.setattr(job_runner, "_RETRY_SECONDS", 0.05)
    yield bench
    bench.pause = 0.0
    bench.close()


def break_parts(patch: pytest.MonkeyPatch, error: Exception, after: int = 0) -> None:
    """Fail to write parts from this one on."""
    write = ScoresFolder.write_part

    def broken(self: ScoresFolder, number: int, *args: Any) -> None:
        if number >= after:
            raise error
        write(self, number, *args)

    patch.setattr(ScoresFolder, "write_part", broken)


def assert_removed(folder: Path) -> None:
    until(lambda: not folder.exists())  # a moment after the job's end


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_a_job_writes_what_the_command_line_writes(
    bench: Bench, onnx_file: Path, root: Path, tmp_path: Path
) -> None:
    daemon = bench.start()
    job = bench.score("pool")
    assert (job.state, job.done, job.scored, job.skipped, job.total) == ("done", 62, 60, 2, 62)
    assert job.error == "" and job.created <= job.started <= job.ended and job.batch_size == 8  # type: ignore[operator]
    row = daemon.catalog.pools.row("pool")
    assert row.scores == PoolScores(job.folder, daemon.models.sha256, 60, 2)
    assert job.folder == tmp_path / "data/pools/pool/scores" / job.id
    with Scorer(onnx_file, "cpu", batch_size=8) as scorer:
        engine.score_pool(scorer, open_pool(root / "pool"), tmp_path / "cli", part_size=100)
    by_job, by_hand = contents(job.folder), contents(tmp_path / "cli")
    with daemon.models.borrowed(daemon.models.sha256) as scorer:
        own = str(scorer.engine.path)  # the daemon keeps a copy of the model
    by_job["run.json"] = by_job["run.json"].replace(own.encode(), str(onnx_file).encode())
    assert by_job == by_hand
    assert daemon.jobs.cancel(job.id) == job, "it is done"
    assert daemon.catalog.pools.row("pool") == row


def test_jobs_run_in_order_and_a_pool_has_one(bench: Bench) -> None:
    bench.pause = 0.01
    daemon = bench.start()
    first, second = daemon.jobs.submit("array.npy"), daemon.jobs.submit("pool")
    assert daemon.jobs.submit("array.npy").id == first.id
    assert daemon.jobs.submit("pool").id == second.id
    bench.pause = 0
    first, second = bench.until(first), bench.until(second)
    assert first.ended <= second.started  # type: ignore[operator]
    assert [job.id for job in daemon.catalog.jobs.rows()] == [second.id, first.id]
    assert daemon.jobs.submit("pool").id != second.id


def test_progress_is_reported(bench: Bench) -> None:
    bench.pause = 0.05
    daemon = bench.start()
    job = daemon.jobs.submit("array.npy")
    live = lambda: daemon.jobs.live(daemon.catalog.jobs.row(job.id))  # noqa: E731
    until(lambda: live().done >= 40)
    row = live()
    assert row.state == "running" and row.total == 1000 and row.scored == row.done
    assert row.rate is not None and 10 < row.rate < 8 / 0.05 * 1.5
    bench.pause = 0
    row = bench.until(job)
    assert daemon.jobs.live(row) == row


def test_an_interrupted_job_continues_at_the_next_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.start()
    whole = bench.score("array.npy")
    expected = contents(whole.folder)
    monkeypatch.setattr(job_runner, "_WRITE_SECONDS", 0)
    job = bench.interrupted("array.npy")
    assert not (job.folder / "skipped.parquet").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "lloss-jobs"]
    resume, score = threading.Event(), job_runner.score_pool

    def looking(*args: Any, **options: Any) -> Any:
        resume.wait(PATIENCE)
        return score(*args, **options)

    monkeypatch.setattr(job_runner, "score_pool", looking)
    daemon = bench.start()
    try:  # it reports what it had while the parts are counted
        row = daemon.jobs.live(bench.until(job, "running"))
        assert row.done >= 200 and row.total == 1000
    finally:
        resume.set()
    done = bench.until(job)
    assert (done.state, done.scored) == ("done", 1000)
    assert contents(job.folder) == expected
    assert_removed(whole.folder)


def test_a_cancelled_job_leaves_nothing(bench: Bench) -> None:
    bench.pause = 0.02
    daemon = bench.start()
    job, queued = daemon.jobs.submit("array.npy"), daemon.jobs.submit("pool")
    until((job.folder / "run.json").exists)
    assert daemon.jobs.cancel(queued.id).state == "cancelled"
    cancelled = daemon.jobs.cancel(job.id)
    assert cancelled.state == "cancelled" and cancelled.done < 1000
    bench.pause = 0
    until(lambda: daemon.catalog.pools.trash() == [])
    assert daemon.catalog.pools.row("array.npy").scores is None and not job.folder.exists()
    assert daemon.jobs.cancel(job.id) == cancelled
    assert bench.score("pool").state == "done"
    assert "no job" in refused(lambda: daemon.jobs.cancel("none"), 404)


def test_a_changed_pool_is_scored_from_the_start(
    bench: Bench, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(JobRunner, "part_size", 8)
    job = bench.interrupted("pool")
    shutil.copy(root / "pool/dark/001.png", root / "pool/bright/00.png")
    with caplog.at_level(logging.WARNING):
        bench.start()
        failed = bench.until(job)
    assert failed.state == "failed" and "'bright/00.png' is new" in failed.error
    assert "\n" not in failed.error and "score the pool again" in failed.error
    assert "remove that folder" not in failed.error and not failed.resumable
    (said,) = [record for record in caplog.records if record.message == "job_failed"]
    assert vars(said)["lloss_fields"] == {
        "job": job.id, "pool": "pool", "reason": failed.error, "resumable": False,
    }  # fmt: skip
    again = bench.score("pool")
    assert again.id != job.id and (again.state, again.scored) == ("done", 61)
    assert_removed(job.folder)


def test_a_failed_job_can_be_cancelled_or_replaced(
    bench: Bench, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = bench.start()
    with monkeypatch.context() as patch:
        break_parts(patch, LlossError("a broken disk"))
        cancelled, failed = bench.score("array.npy"), bench.score("pool")
    assert cancelled.folder.exists()
    assert daemon.jobs.cancel(cancelled.id).state == "cancelled"
    assert not cancelled.folder.exists()
    model = onnx.load(onnx_file)
    model.doc_string += " "
    onnx.save(model, tmp_path / "model.onnx")
    daemon.models.reload()
    again = bench.score("pool")
    assert again.id != failed.id
    assert again.model_sha256 == daemon.models.sha256 != failed.model_sha256
    assert_removed(failed.folder)
    copies = tmp_path / "data/models"
    until(lambda: [path.stem for path in copies.iterdir()] == [again.model_sha256])


@pytest.mark.parametrize(
    ("setting", "value"),
    [("provider", "cuda"), ("onnxruntime", "1.0"), ("batch_size", 10_000)],
)
def test_a_job_waits_for_what_it_began_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, setting: str, value: object
) -> None:
    """Such as a GPU that is lost, or another version of a library."""
    job = bench.interrupted("array.npy")
    run = job.folder / "run.json"
    settings = json.loads(run.read_text())
    run.write_text(json.dumps({**settings, setting: value}))
    before = contents(job.folder)
    bench.start()
    for failed in (bench.until(job), bench.score("array.npy")):
        assert (failed.id, failed.state, failed.resumable) == (job.id, "failed", True)
        assert re.search(f"begun with {setting} = {value!r}, .*what was scored is", failed.error)
        assert "anew=true" in failed.error and contents(job.folder) == before
    run.write_text(json.dumps(settings))
    with monkeypatch.context() as patch:
        break_parts(patch, LlossError("a broken disk"), after=6)
        assert bench.score("array.npy").id == job.id
    again = bench.score("array.npy", restart=True)
    assert again.id != job.id and again.state == "done"
    assert_removed(job.folder)


def test_losses_of_the_serving_model_count_for_drift(bench: Bench) -> None:
    drift = bench.start().metrics.drift
    assert (bench.score("pool").scored, drift.images) == (60, 60)
    drift.against(None, "another model")
    bench.score("pool")
    assert drift.images == 0


def test_unexpected_errors_end_no_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise LlossError("the catalog is damaged")

    daemon = bench.start()
    with monkeypatch.context() as patch:
        break_parts(patch, ZeroDivisionError("secret"))
        assert bench.score("pool").error == "internal error; see the daemon's log"
    assert "ZeroDivisionError" in caplog.text
    with monkeypatch.context() as patch:
        patch.setattr(daemon.catalog.jobs, "begin", broken)
        patch.setattr(daemon.catalog.jobs, "fail", broken)
        job = daemon.jobs.submit("pool")
        until(lambda: "job_not_recorded" in caplog.text)
    assert bench.until(job).state == "done"


def test_a_job_has_at_most_the_engines_batch_size(bench: Bench) -> None:
    daemon = bench.start(job_batch_size=100_000)
    done = bench.score("pool")
    with daemon.models.borrowed(done.model_sha256) as scorer:
        assert done.batch_size == scorer.batch_size


def test_an_unwritable_catalog_loses_no_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = bench.start().catalog.jobs
    finish, failures = jobs.finish, [RequestError(507, "the disk is full")] * 3

    def full(*args: Any) -> bool:
        if failures:
            raise failures.pop()
        return finish(*args)

    monkeypatch.setattr(jobs, "finish", full)
    assert bench.score("pool").state == "done" and not failures


def test_unusable_pools_fail(bench: Bench, root: Path) -> None:
    daemon = bench.start()
    (root / "bad").mkdir()
    (root / "bad/a.png").write_bytes(b"text")
    daemon.pools.put("bad", str(root / "bad"))
    job = bench.score("bad")
    assert job.state == "failed" and "none of the 1 image could be read" in job.error
    assert_removed(job.folder)
    assert daemon.catalog.pools.row("bad").scores is None
    shutil.rmtree(root / "bad")
    assert "no such pool" in bench.score("bad").error
    refused(lambda: daemon.jobs.submit("none"), 404)
