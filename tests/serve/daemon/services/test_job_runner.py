"""Pools scored in the background: resumed after a kill, cancelled, failed; what is left then."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lloss.serve.daemon.deps import Daemon
from lloss.serve.daemon.errors import RequestError, status_of
from lloss.serve.daemon.services import job_progress
from lloss.serve.daemon.services import job_runner as jobs_module
from lloss.serve.daemon.services.job_progress import JobProgress
from lloss.serve.daemon.services.job_runner import Jobs
from lloss.serve.daemon.settings import ServeSettings
from lloss.serve.daemon.store.records import JobRow
from lloss.serve.scoring.batch import score_pool as run
from lloss.serve.scoring.batch.score_pool import score_pool

from lloss import Scorer
from lloss.errors import LlossError
from lloss.pools import open_pool
from lloss.scores.scores_folder import ScoresFolder

from ....waiting import PATIENCE


@pytest.fixture
def root(photos: Path, tmp_path: Path) -> Path:
    """A root with 62 pictures, two of them broken, and an array of a thousand."""
    root = tmp_path / "root"
    shutil.copytree(photos, root / "pool")
    (root / "pool/dark/zzz.png").write_bytes(b"broken")
    (root / "pool/bright/0.png").write_bytes(b"")
    noise = np.random.default_rng(0)
    np.save(root / "array.npy", noise.integers(0, 256, (1000, 8, 8, 3), np.uint8))
    return root


Start = Callable[..., Daemon]


@pytest.fixture
def start(artifact: Path, root: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a daemon; one at a time."""
    running: list[Daemon] = []
    shutil.copy(artifact, tmp_path / "model.onnx")

    def started(**changes: Any) -> Daemon:
        for daemon in running:
            daemon.close()
        settings: dict[str, Any] = {
            "model": tmp_path / "model.onnx",
            "data_dir": tmp_path / "data",
            "pool_roots": (str(root),),
            "provider": "cpu",
            "threads": 1,
        }
        daemon = Daemon(ServeSettings(**{**settings, **changes}))
        running.append(daemon)
        daemon.start()
        for name in ("pool", "array.npy"):
            daemon.pools.put(name, str(root / name))
        return daemon

    yield started
    for daemon in running:
        daemon.close()


def until(daemon: Daemon, job: JobRow, *states: str, seconds: float = PATIENCE) -> JobRow:
    """Wait until a job is in one of these states, by default an ended one."""
    wanted = states or ("done", "failed", "cancelled")
    wait_for(lambda: daemon.catalog.jobs.row(job.id).state in wanted, seconds)
    return daemon.catalog.jobs.row(job.id)


def wait_for(reached: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Have each batch of a job take so long from now on."""
    batch, seconds = JobProgress.batch, 0.0

    def waited(self: Any, scores: Any) -> None:
        time.sleep(seconds)
        batch(self, scores)

    def set_to(value: float) -> None:
        nonlocal seconds
        seconds = value

    monkeypatch.setattr(JobProgress, "batch", waited)
    return set_to


def gone(folder: Path) -> bool:
    """Whether a folder is removed, which comes a moment after the job's end."""
    deadline = time.monotonic() + PATIENCE
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not folder.exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_a_job_writes_what_the_command_line_writes(
    start: Start, artifact: Path, root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    daemon = start()
    job = until(daemon, daemon.jobs.submit("pool"))
    assert (job.state, job.done, job.scored, job.skipped, job.total) == ("done", 62, 60, 2, 62)
    assert job.error == "" and job.created <= job.started <= job.ended and job.batch_size == 8
    row = daemon.catalog.pools.row("pool")
    assert (row.scores, row.scored, row.skipped) == (job.folder, 60, 2)
    assert row.model_sha256 == daemon.models.sha256 == job.model_sha256
    assert job.folder == tmp_path / "data/pools/pool/scores" / job.id
    with Scorer(artifact, "cpu", batch_size=8) as scorer:
        score_pool(scorer, open_pool(root / "pool"), tmp_path / "cli")
    assert contents(job.folder) == contents(tmp_path / "cli")
    done = subprocess.run([sys.executable, "-m", "lloss", "select", str(job.folder), "-k", "3"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert len(done.stdout.splitlines()) == 3
    assert "img/s" not in capfd.readouterr().err


def test_jobs_run_in_the_order_they_came_and_a_pool_has_one(
    start: Start, slow: Callable[[float], None]
) -> None:
    slow(0.01)
    daemon = start()
    first, second = daemon.jobs.submit("array.npy"), daemon.jobs.submit("pool")
    assert daemon.jobs.submit("array.npy").id == first.id
    assert daemon.jobs.submit("pool").id == second.id
    slow(0)
    first, second = until(daemon, first), until(daemon, second)
    assert first.ended <= second.started  # type: ignore[operator]
    assert [job.id for job in daemon.catalog.jobs.rows()] == [second.id, first.id]
    assert daemon.jobs.submit("pool").id != second.id


def test_progress_is_told_while_it_runs(start: Start, slow: Callable[[float], None]) -> None:
    slow(0.05)
    daemon = start()
    job = daemon.jobs.submit("array.npy")
    wait_for(lambda: daemon.jobs.live(daemon.catalog.jobs.row(job.id)).done >= 40)
    row = daemon.jobs.live(daemon.catalog.jobs.row(job.id))
    assert row.state == "running" and row.total == 1000 and row.scored == row.done
    rate = daemon.jobs.rate(row)
    assert rate is not None and 10 < rate < 8 / 0.05 * 1.5
    slow(0)
    row = until(daemon, job)
    assert daemon.jobs.live(row) == row and daemon.jobs.rate(row) is None


def test_a_daemon_that_is_closed_goes_on_at_the_next_start(
    start: Start, slow: Callable[[float], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "part_size", 100)
    daemon = start()
    whole = until(daemon, daemon.jobs.submit("array.npy"))
    expected = contents(whole.folder)
    slow(0.01)
    job = daemon.jobs.submit("array.npy")
    wait_for(lambda: len(list(job.folder.glob("part-*"))) >= 3)
    daemon.close()
    assert not (job.folder / "skipped.parquet").exists()
    slow(0)
    daemon = start()
    done = until(daemon, job)
    assert (done.state, done.scored) == ("done", 1000)
    assert contents(job.folder) == expected
    assert gone(whole.folder)


def test_a_job_that_goes_on_tells_how_far_it_was_while_its_parts_are_looked_through(
    start: Start, slow: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_progress, "_WRITE_SECONDS", 0)
    slow(0.02)
    daemon = start()
    job = daemon.jobs.submit("array.npy")
    wait_for(lambda: daemon.jobs.live(daemon.catalog.jobs.row(job.id)).done >= 40)
    free, score = threading.Event(), jobs_module.score_pool

    def looking(*given: Any, **options: Any) -> Any:
        free.wait(PATIENCE)
        return score(*given, **options)

    monkeypatch.setattr(jobs_module, "score_pool", looking)
    daemon = start()
    try:
        row = daemon.jobs.live(until(daemon, job, "running"))
        assert row.done >= 32 and row.total == 1000
    finally:
        slow(0)
        free.set()
    assert until(daemon, job).done == 1000


def test_a_job_that_is_cancelled_leaves_nothing(
    start: Start, slow: Callable[[float], None]
) -> None:
    slow(0.02)
    daemon = start()
    job = daemon.jobs.submit("array.npy")
    waiting = daemon.jobs.submit("pool")
    wait_for((job.folder / "run.json").exists)
    assert daemon.jobs.cancel(waiting.id).state == "cancelled"
    cancelled = daemon.jobs.cancel(job.id)
    assert cancelled.state == "cancelled" and not job.folder.exists()
    assert cancelled.done < 1000
    slow(0)
    assert (
        daemon.catalog.pools.row("array.npy").scores is None and daemon.catalog.pools.trash() == []
    )
    assert daemon.jobs.cancel(job.id) == cancelled
    assert until(daemon, daemon.jobs.submit("pool")).state == "done"
    with pytest.raises(RequestError, match="no job"):
        daemon.jobs.cancel("none")


def test_a_job_that_was_cancelled_before_a_kill_stays_so(
    start: Start, slow: Callable[[float], None]
) -> None:
    slow(0.02)
    daemon = start()
    job = daemon.jobs.submit("array.npy")
    wait_for((job.folder / "run.json").exists)
    # As a kill leaves it: the catalog says so, and nobody has come to remove what was written.
    assert daemon.catalog.jobs.cancel(job.id) and job.folder.exists()
    slow(0)
    daemon = start()
    assert until(daemon, daemon.jobs.submit("pool")).state == "done", "its turn would be first"
    assert daemon.catalog.jobs.row(job.id).state == "cancelled"
    assert daemon.catalog.pools.row("array.npy").scores is None and not job.folder.exists()


def test_to_cancel_a_job_that_is_done_does_nothing(start: Start) -> None:
    daemon = start()
    job = daemon.jobs.submit("array.npy")
    until(daemon, job)
    done = daemon.jobs.cancel(job.id)
    assert done.state == "done" and daemon.catalog.pools.row("array.npy").scores == job.folder


def test_labels_and_old_scores_stay_until_the_new_ones_are_there(
    start: Start, slow: Callable[[float], None]
) -> None:
    daemon = start()
    first = until(daemon, daemon.jobs.submit("pool"))
    slow(0.05)
    second = daemon.jobs.submit("pool")
    until(daemon, second, "running")
    assert daemon.catalog.pools.row("pool").scores == first.folder
    with daemon.pools.reading("pool") as (_, held):
        slow(0)
        until(daemon, second)
        assert daemon.catalog.pools.row("pool").scores == second.folder
        assert ScoresFolder(held.path).opened().skipped()
    assert gone(first.folder)


def test_a_pool_that_changed_fails_and_is_scored_anew(
    start: Start,
    slow: Callable[[float], None],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Jobs, "part_size", 8)
    slow(0.05)
    daemon = start()
    job = daemon.jobs.submit("pool")
    wait_for(lambda: len(list(job.folder.glob("part-*"))) >= 3)
    daemon.close()
    shutil.copy(root / "pool/dark/001.png", root / "pool/bright/00.png")
    slow(0)
    with caplog.at_level(logging.WARNING):
        daemon = start()
        failed = until(daemon, job)
    assert failed.state == "failed" and "'bright/00.png' is new" in failed.error
    assert "\n" not in failed.error and "score the pool again" in failed.error
    assert "remove that folder" not in failed.error and not failed.resumable
    assert failed.error in caplog.text
    again = until(daemon, daemon.jobs.submit("pool"))
    assert again.id != job.id and (again.state, again.scored) == ("done", 61)
    assert gone(job.folder)


def test_a_full_disk_fails_a_job_that_goes_on_when_it_is_submitted_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "part_size", 100)
    daemon = start()
    expected = contents(until(daemon, daemon.jobs.submit("array.npy")).folder)
    write = ScoresFolder.write_part

    def full(self: ScoresFolder, number: int, *given: Any) -> None:
        if number >= 4:
            raise LlossError("part: the disk is full (0.0 MB free); make room and run it again")
        write(self, number, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ScoresFolder, "write_part", full)
        job = daemon.jobs.submit("array.npy")
        failed = until(daemon, job)
        assert failed.state == "failed" and failed.resumable and "disk is full" in failed.error
        assert len(list(job.folder.glob("part-*"))) == 4
    again = daemon.jobs.submit("array.npy")
    assert again.id == job.id
    done = until(daemon, again)
    assert done.state == "done" and done.error == "" and contents(job.folder) == expected


def test_a_job_does_not_go_on_by_another_provider_and_keeps_what_it_has(
    start: Start, slow: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a machine whose GPU is gone at the next boot, with ``--provider auto``."""
    monkeypatch.setattr(Jobs, "part_size", 100)
    # A GPU's batches are larger than any that a CPU takes.
    began = {"provider": "cuda", "batch_size": 10_000}
    slow(0.02)
    daemon = start()
    job = daemon.jobs.submit("array.npy")
    wait_for(lambda: len(list(job.folder.glob("part-*"))) >= 2)
    daemon.close()
    slow(0)
    path = tmp_catalog(daemon)
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE jobs SET provider = :provider, batch_size = :batch_size", began)
    before = contents(job.folder)
    daemon = start()
    for _ in range(2):
        failed = until(daemon, job)
        assert failed.state == "failed" and failed.resumable
        assert "began with provider = 'cuda', now it is 'cpu'" in failed.error
        assert "what was scored is kept" in failed.error and "anew=true" in failed.error
        assert contents(job.folder) == before
        assert daemon.jobs.submit("array.npy").id == job.id
    until(daemon, job)
    with contextlib.closing(sqlite3.connect(path)) as db, db:  # the GPU is back
        db.execute("UPDATE jobs SET provider = 'cpu', batch_size = 8")
    assert until(daemon, daemon.jobs.submit("array.npy")).state == "done"


def test_a_job_whose_library_is_another_version_keeps_what_it_has(
    start: Start, slow: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "part_size", 100)
    slow(0.02)
    daemon = start()
    job = daemon.jobs.submit("array.npy")
    wait_for(lambda: len(list(job.folder.glob("part-*"))) >= 2)
    daemon.close()
    slow(0)
    now = run._versions()
    with monkeypatch.context() as patch:
        patch.setattr(run, "_versions", lambda: {**now, "onnxruntime": "99.0"})
        daemon = start()
        failed = until(daemon, job)
        assert failed.state == "failed" and failed.resumable
        assert "onnxruntime" in failed.error and "'99.0'; what was scored is kept" in failed.error
        assert len(list(job.folder.glob("part-*"))) >= 2
    done = until(daemon, daemon.jobs.submit("array.npy"))
    assert (done.id, done.state, done.scored) == (job.id, "done", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(run, "_versions", lambda: {**now, "onnxruntime": "99.0"})
        patch.setattr(ScoresFolder, "write_part", None)
        failed = until(daemon, daemon.jobs.submit("array.npy"))
        assert failed.resumable
    anew = daemon.jobs.submit("array.npy", restart=True)
    assert anew.id != failed.id and until(daemon, anew).state == "done" and gone(failed.folder)


def tmp_catalog(daemon: Daemon) -> Path:
    return daemon.settings.data_dir / "catalog.sqlite"


def test_a_pool_is_submitted_while_a_model_is_loaded(start: Start) -> None:
    """A job that ends meanwhile prunes copies of models, and so would wait for the load."""
    daemon = start()
    asked: list[JobRow] = []
    with daemon.models._loading:
        pruned = threading.Thread(target=daemon.jobs.prune)
        pruned.start()
        submitted = threading.Thread(target=lambda: asked.append(daemon.jobs.submit("pool")))
        submitted.start()
        submitted.join(PATIENCE)
        assert asked
        pruned.join(PATIENCE)
        assert not pruned.is_alive()
    until(daemon, asked[0])


def test_the_losses_of_a_job_count_for_drift(start: Start) -> None:
    daemon = start()
    drift = daemon.metrics.drift
    job = until(daemon, daemon.jobs.submit("pool"))
    assert (job.scored, drift.measure().images) == (60, 60)
    drift.against(None, "another model")
    until(daemon, daemon.jobs.submit("pool"))
    assert drift.measure().images == 0, "of a model that does not serve"


def test_a_failed_job_of_an_earlier_model_is_begun_anew(
    start: Start, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise LlossError("a disk that fails")

    daemon = start()
    with monkeypatch.context() as patch:
        patch.setattr(ScoresFolder, "write_part", broken)
        job = until(daemon, daemon.jobs.submit("pool"))
    assert job.resumable and daemon.catalog.jobs.models() == {job.model_sha256}
    model = onnx.load(artifact)
    model.doc_string += " "
    onnx.save(model, tmp_path / "model.onnx")
    daemon.models.reload()
    again = until(daemon, daemon.jobs.submit("pool"))
    assert again.id != job.id and again.model_sha256 == daemon.models.sha256 != job.model_sha256
    assert gone(job.folder)
    assert [path.stem for path in (tmp_path / "data/models").iterdir()] == [again.model_sha256]


def test_a_failed_job_can_be_cancelled(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise LlossError("a disk that fails")

    daemon = start()
    monkeypatch.setattr(ScoresFolder, "write_part", broken)
    job = until(daemon, daemon.jobs.submit("pool"))
    assert job.folder.exists()
    assert daemon.jobs.cancel(job.id).state == "cancelled" and not job.folder.exists()


def test_an_error_that_nobody_foresaw_ends_one_job(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    daemon = start()
    with monkeypatch.context() as patch:
        patch.setattr(ScoresFolder, "write_part", broken)
        job = until(daemon, daemon.jobs.submit("pool"))
    assert job.error == "internal error; see the daemon's log"
    assert "ZeroDivisionError" in caplog.text
    assert until(daemon, daemon.jobs.submit("pool")).state == "done"


def test_what_cannot_be_noted_of_one_job_does_not_end_the_thread(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise LlossError("the catalog is damaged")

    monkeypatch.setattr(jobs_module, "_RETRY_SECONDS", 0.05)
    daemon = start()
    with monkeypatch.context() as patch:
        patch.setattr(daemon.catalog.jobs, "begin", broken)
        patch.setattr(daemon.catalog.jobs, "fail", broken)
        job = daemon.jobs.submit("pool")
        wait_for(lambda: "cannot be recorded" in caplog.text)
    assert "the catalog is damaged" in caplog.text
    assert daemon.jobs._thread.is_alive()
    assert until(daemon, job).state == "done"


def test_a_catalog_that_cannot_be_written_for_a_while_loses_no_job(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_RETRY_SECONDS", 0.05)
    daemon = start()
    finish, tries = daemon.catalog.jobs.finish, 0

    def full(*given: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise RequestError(507, "the disk is full")
        return finish(*given)

    monkeypatch.setattr(daemon.catalog.jobs, "finish", full)
    assert until(daemon, daemon.jobs.submit("pool")).state == "done" and tries == 4


def test_a_pool_of_broken_images_or_gone_fails(start: Start, root: Path) -> None:
    daemon = start()
    (root / "bad").mkdir()
    (root / "bad/a.png").write_bytes(b"text")
    daemon.pools.put("bad", str(root / "bad"))
    job = until(daemon, daemon.jobs.submit("bad"))
    assert job.state == "failed" and "none of the 1 images could be read" in job.error
    assert gone(job.folder) and daemon.catalog.pools.row("bad").scores is None
    shutil.rmtree(root / "bad")
    assert "no such pool" in until(daemon, daemon.jobs.submit("bad")).error
    for name in ("none", "\ud800"):
        with pytest.raises(RequestError) as error:
            daemon.jobs.submit(name)
        assert status_of(error.value) == 404


def test_the_batch_size_is_kept_with_the_job(
    start: Start, slow: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Jobs, "part_size", 40)
    slow(0.02)
    daemon = start(job_batch_size=5)
    job = daemon.jobs.submit("array.npy")
    wait_for(lambda: len(list(job.folder.glob("part-*"))) >= 2)
    slow(0)
    daemon = start(job_batch_size=16)
    assert until(daemon, job).batch_size == 5
    assert json.loads((job.folder / "run.json").read_text())["batch_size"] == 5
    huge = start(job_batch_size=100_000)
    done = until(huge, huge.jobs.submit("pool"))
    with huge.models.borrowed(done.model_sha256) as scorer:
        assert done.batch_size == scorer.batch_size


def test_the_thread_ends_with_the_daemon(start: Start) -> None:
    daemon = start()
    daemon.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "lloss-jobs"]
