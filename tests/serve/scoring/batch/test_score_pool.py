"""A pool into a folder: resumed, changed, broken."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool

from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import (
    ImageError,
    InterruptedRunError,
    LlossError,
    PoolError,
    ScoresError,
    SettingsError,
)
from lloss.files import locked
from lloss.pools import open_pool
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard

from ....waiting import PATIENCE


@pytest.fixture(scope="module")
def scorer(artifact: Path) -> Scorer:
    return Scorer(artifact, device="cpu", batch_size=8, threads=1)


@pytest.fixture
def pool(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photos to break, two of them broken already."""
    copy = tmp_path / "pool"
    shutil.copytree(photos, copy)
    (copy / "dark" / "zzz.png").write_bytes(b"broken")
    (copy / "bright" / "000.png").write_bytes(b"")
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_image_is_a_row_or_a_reason(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    report = score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=25)
    folder = ScoresFolder(tmp_path / "s").opened()
    assert (report.scored, report.skipped) == (59, 2)
    ids = [id for b in folder.batches(["id"]) for id in b["id"].to_pylist()]
    reasons = dict(folder.skipped())
    assert sorted([*ids, *reasons]) == sorted(item.id for item in open_pool(pool))
    assert reasons["bright/000.png"] == "an empty file"
    assert len(folder.parts()) == 3
    table = pa.Table.from_batches(folder.batches(["id", "loss"]))
    whole = {id: x for batch in scorer.stream(pool) for id, x in zip(batch.ids, batch.loss)}
    for id, loss in zip(table["id"].to_pylist(), table["loss"].to_pylist()):
        assert loss == pytest.approx(float(whole[id]), abs=1e-4)


def test_a_run_interrupted_anywhere_ends_byte_identical(
    scorer: Scorer, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=10)
    run, calls = scorer.engine.executor.run, 0

    def interrupted(buffer: object, count: int) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise KeyboardInterrupt
        return run(buffer, count)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.engine.executor, "run", interrupted)
        interruptions = 0
        for _ in range(20):
            try:
                report = score_pool(scorer, open_pool(pool), tmp_path / "cut", part_size=10)
                break
            except InterruptedRunError as error:
                assert "run the same command again" in str(error)
                interruptions += 1
    assert interruptions >= 2 and report.resumed > 0
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")


def test_a_killed_process_is_finished_by_the_next(artifact: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    np.save(tmp_path / "pool.npy", noise.integers(0, 256, (60_000, 8, 8, 3), np.uint8))
    command = [sys.executable, "-m", "lloss", "score", str(artifact), str(tmp_path / "pool.npy"),
               "--part-size", "2000", "--provider", "cpu", "-o"]  # fmt: skip
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    child = subprocess.Popen([*command, str(tmp_path / "cut")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not (tmp_path / "cut/part-00003.parquet").exists():
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    done = subprocess.run([*command, str(tmp_path / "cut")], check=True, capture_output=True)
    assert b"of them before" in done.stderr
    cut = {name: data for name, data in contents(tmp_path / "cut").items() if name[0] != "."}
    assert cut == contents(tmp_path / "whole")


def test_a_complete_folder_is_left_alone(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    first = score_pool(scorer, open_pool(pool), tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()}
    again = score_pool(scorer, open_pool(pool), tmp_path / "s")
    assert (again.scored, again.skipped) == (first.scored, first.skipped)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "s").iterdir()}


def test_another_setting_is_refused_with_both_values(
    scorer: Scorer, artifact: Path, pool: Path, tmp_path: Path
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "s")
    other = Scorer(artifact, device="cpu", batch_size=4)
    with pytest.raises(ScoresError, match="begun with batch_size = 8, now it is 4"):
        score_pool(other, open_pool(pool), tmp_path / "s")


def test_a_pool_that_changed_under_a_run_is_refused(
    scorer: Scorer, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = scorer.engine.executor.run, 0

    def stopped(buffer: object, count: int) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return run(buffer, count)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.engine.executor, "run", stopped)
        with pytest.raises(InterruptedRunError):
            score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10)
    shutil.copy(pool / "dark" / "004.png", pool / "bright" / "0000.png")
    with pytest.raises(ScoresError, match=r"changed .*'bright/0000\.png' is new"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10)


def test_a_complete_folder_is_not_passed_off_for_a_pool_that_changed(
    scorer: Scorer, pool: Path, tmp_path: Path
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=61)  # one part, just full
    shutil.copy(pool / "dark" / "004.png", pool / "red" / "zzz.png")
    with pytest.raises(ScoresError, match=r"'red/zzz\.png' is new"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=61)
    (pool / "red" / "zzz.png").unlink()
    (pool / "dark" / "004.png").unlink()
    with pytest.raises(ScoresError, match=r"'dark/004\.png' is gone"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=61)


def test_what_a_killed_run_left_aside_is_in_nobodys_way(
    scorer: Scorer, pool: Path, tmp_path: Path
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".run.json.12345678.part").write_text("{")
    score_pool(scorer, open_pool(pool), tmp_path / "s")
    assert not list((tmp_path / "s").glob(".*"))


def test_the_same_pool_by_another_path_is_the_same(
    scorer: Scorer, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = score_pool(scorer, open_pool(pool), tmp_path / "s")
    monkeypatch.chdir(pool.parent)
    assert score_pool(scorer, open_pool("pool"), tmp_path / "s").scored == first.scored


def test_excluded_images_are_not_scored(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "s", exclude={"dark/001.png", "dark/004.png"})
    ids = {id for b in ScoresFolder(tmp_path / "s").batches(["id"]) for id in b["id"].to_pylist()}
    assert len(ids) == 57 and not ids & {"dark/001.png", "dark/004.png"}


def test_fail_fast_stops_at_the_first_broken_image(
    scorer: Scorer, pool: Path, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match=r"'bright/000\.png': an empty file"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", fail_fast=True)
    assert not list((tmp_path / "s").glob("part-*"))


def test_a_pool_of_which_nothing_can_be_read_fails_each_time(
    scorer: Scorer, tmp_path: Path
) -> None:
    (tmp_path / "pool").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "pool" / name).write_bytes(b"text")
    for _ in range(2):
        with pytest.raises(ScoresError, match=r"none of the 2 images .*'a\.png': not an image"):
            score_pool(scorer, open_pool(tmp_path / "pool"), tmp_path / "s")
    assert len(ScoresFolder(tmp_path / "s").skipped()) == 2


def test_a_folder_of_other_things_is_not_filled(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("precious")
    with pytest.raises(ScoresError, match="not empty and holds no scores"):
        score_pool(scorer, open_pool(pool), tmp_path / "s")


def test_a_full_disk_leaves_no_half_part(scorer: Scorer, artifact: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    np.save(tmp_path / "pool.npy", noise.integers(0, 256, (3000, 8, 8, 3), np.uint8))
    code = (
        "import resource, sys; from lloss.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(artifact), str(tmp_path / "pool.npy"),
         "-o", str(tmp_path / "s")], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("lloss: ")
    assert "part-00000.parquet: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["run.json"]


def test_a_lost_last_part_is_not_passed_over(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10)
    (tmp_path / "s" / "part-00006.parquet").unlink()
    with pytest.raises(ScoresError, match="has 6 of its 7 parts"):
        ScoresFolder(tmp_path / "s").opened()


def begun(scorer: Scorer, pool: Path, out: Path, **options: Any) -> None:
    """A run that was interrupted after some parts of ten."""
    score_pool(scorer, open_pool(pool), out, part_size=10, **options)
    for part in sorted(out.glob("part-*"))[3:]:
        part.unlink()
    (out / "skipped.parquet").unlink()
    run = json.loads((out / "run.json").read_text())
    counts = ("scored", "skipped")
    state = {key: value for key, value in run.items() if key not in counts}
    (out / "run.json").write_text(json.dumps({**state, "state": "running"}))


def test_each_setting_that_decides_the_bytes_is_refused_when_it_changed(
    scorer: Scorer, artifact: Path, pool: Path, tmp_path: Path
) -> None:
    begun(scorer, pool, tmp_path / "s", exclude=["dark/001.png"])
    kept = contents(tmp_path / "s")
    usual: dict[str, Any] = {"part_size": 10, "exclude": ["dark/001.png"]}
    changes: dict[str, dict[str, Any]] = {
        "part_size = 10, now it is 11": {"part_size": 11},
        "excluded = 1, now it is 0": {"exclude": []},
        "excluded = 1, now it is 2": {"exclude": ["dark/001.png", "dark/004.png"]},
        "excluded_sha256 = '.*', now it is '": {"exclude": ["dark/004.png"]},
        "shard = None, now it is '1/2'": {"shard": Shard(1, 2)},
    }
    for match, change in changes.items():
        with pytest.raises(ScoresError, match=f"s: was begun with {match}.*or go back to the old"):
            score_pool(scorer, open_pool(pool), tmp_path / "s", **{**usual, **change})
    shutil.copytree(pool, tmp_path / "copy")
    with pytest.raises(ScoresError, match="begun with pool = '.*/pool', now it is '.*/copy'"):
        score_pool(scorer, open_pool(tmp_path / "copy"), tmp_path / "s", **usual)
    with Scorer(artifact, device="cpu", batch_size=4) as other:
        with pytest.raises(ScoresError, match="begun with batch_size = 8, now it is 4"):
            score_pool(other, open_pool(pool), tmp_path / "s", **usual)
        other.engine.batch_size = 8
        for name, value in {"sha256": "ab12", "provider": "cuda"}.items():
            old = getattr(other.engine, name)
            setattr(other.engine, name, value)
            with pytest.raises(
                ScoresError, match=f"begun with .*{name} = '.*', now it is '{value}'"
            ):
                score_pool(other, open_pool(pool), tmp_path / "s", **usual)
            setattr(other.engine, name, old)
    assert contents(tmp_path / "s") == kept
    link = tmp_path / "link"
    link.symlink_to(pool)
    assert score_pool(scorer, open_pool(link), tmp_path / "s", **usual).resumed == 30


def test_another_model_is_refused(
    scorer: Scorer, artifact: Path, pool: Path, tmp_path: Path
) -> None:
    begun(scorer, pool, tmp_path / "s")
    model = onnx.load(artifact)
    model.doc_string += " "
    onnx.save(model, tmp_path / "other.onnx")
    with (
        Scorer(tmp_path / "other.onnx", "cpu", batch_size=8) as other,
        pytest.raises(ScoresError, match="begun with model_sha256 = '[0-9a-f]{64}', now it is '"),
    ):
        score_pool(other, open_pool(pool), tmp_path / "s", part_size=10)


def test_another_array_under_the_same_path_is_refused(scorer: Scorer, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (61, 8, 8, 3), np.uint8)
    np.save(tmp_path / "a.npy", images)
    begun(scorer, tmp_path / "a.npy", tmp_path / "s")
    np.save(tmp_path / "a.npy", images[::-1])
    with pytest.raises(ScoresError, match=r"pool changed .*\(its images are others than before"):
        score_pool(scorer, open_pool(tmp_path / "a.npy"), tmp_path / "s", part_size=10)
    np.save(tmp_path / "a.npy", images)
    assert score_pool(scorer, open_pool(tmp_path / "a.npy"), tmp_path / "s", part_size=10).resumed


def test_an_array_of_no_images_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(PoolError, match=r"a\.npy: the pool holds no image"):
        open_pool(tmp_path / "a.npy")


def test_threads_may_change_between_an_interruption_and_the_rest(
    scorer: Scorer, artifact: Path, pool: Path, tmp_path: Path
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=10)
    for threads in (2, 5):
        begun(scorer, pool, tmp_path / f"{threads}")
        with Scorer(artifact, device="cpu", batch_size=8, threads=threads, readers=3) as other:
            score_pool(other, open_pool(pool), tmp_path / f"{threads}", part_size=10)
        assert contents(tmp_path / f"{threads}") == contents(tmp_path / "whole")


def test_a_run_killed_at_any_moment_ends_the_same(artifact: Path, tmp_path: Path) -> None:
    draw = random.Random(0)
    images = np.random.default_rng(0).integers(0, 256, (50_000, 8, 8, 3), np.uint8)
    np.save(tmp_path / "pool.npy", images)
    command = [sys.executable, "-m", "lloss", "score", str(artifact), str(tmp_path / "pool.npy"),
               "--part-size", "1000", "--provider", "cpu", "-o"]  # fmt: skip
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = 0
    for attempt in range(8):
        child = subprocess.Popen(
            [*command, str(tmp_path / "cut"), "--threads", str(1 + attempt % 3)],
            stderr=subprocess.DEVNULL,
        )
        try:
            assert child.wait(draw.uniform(0.3, 1.2)) == 0
            break
        except subprocess.TimeoutExpired:
            child.kill()
            killed += 1
            child.wait()
    subprocess.run([*command, str(tmp_path / "cut")], check=True, capture_output=True)
    assert killed
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_errors_of_a_run_are_all_of_the_house() -> None:
    assert issubclass(InterruptedRunError, LlossError) and issubclass(ScoresError, LlossError)


def test_two_runs_do_not_share_a_folder(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with (
        locked(tmp_path / "s", ScoresError("held by this test")),
        pytest.raises(ScoresError, match="another lloss score is at work in this folder"),
    ):
        score_pool(scorer, open_pool(pool), tmp_path / "s")
    assert score_pool(scorer, open_pool(pool), tmp_path / "s").scored == 59


def test_a_file_in_the_folders_place_is_told_as_one(
    scorer: Scorer, pool: Path, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(ScoresError, match="is no folder"):
        score_pool(scorer, open_pool(pool), tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_with_one_line_and_it_goes_on(
    artifact: Path, tmp_path: Path, number: signal.Signals
) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "pool.npy", random.integers(0, 256, (60_000, 8, 8, 3), np.uint8))
    command = [sys.executable, "-m", "lloss", "score", str(artifact), str(tmp_path / "pool.npy"),
               "--part-size", "1000", "--provider", "cpu", "-o", str(tmp_path / "s")]  # fmt: skip
    child = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background hands down that Ctrl-C is none of its business.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not (tmp_path / "s/part-00002.parquet").exists():
        time.sleep(0.01)
    child.send_signal(number)
    _, told = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert told.splitlines()[-1].endswith("run the same command again to go on")
    assert "Traceback" not in told
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "60000 images scored" in done.stderr and "of them before" in done.stderr


class Follower:
    """Notes what it is told; interrupts the run at some batch."""

    def __init__(self, stop_at: int = -1) -> None:
        self.stop_at = stop_at
        self.told: list[Any] = []

    def begin(self, done: Any, total: Any) -> None:
        self.told.append(("begin", done.scored, done.skipped, total()))

    def batch(self, scores: Any) -> None:
        self.told.append((len(scores), len(scores.skipped)))
        if len(self.told) == self.stop_at:
            raise InterruptedRunError("enough")

    def end(self) -> None:
        self.told.append("end")


def test_who_follows_a_run_is_told_and_can_end_it(
    scorer: Scorer, pool: Path, tmp_path: Path
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=10)
    follower = Follower(stop_at=6)
    with pytest.raises(InterruptedRunError, match="enough"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10, progress=follower)
    assert follower.told[0] == ("begin", 0, 0, 61) and follower.told[-1] == "end"
    assert not (tmp_path / "s/skipped.parquet").exists()
    follower = Follower()
    report = score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10, progress=follower)
    assert follower.told[0][1] + follower.told[0][2] == report.resumed > 0
    seen = [sum(batch) for batch in follower.told[1:-1]]
    assert sum(seen) + report.resumed == 61 and max(seen) <= scorer.batch_size
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_a_smaller_batch_is_as_a_scorer_of_that_size(
    scorer: Scorer, artifact: Path, pool: Path, tmp_path: Path
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "s", batch_size=3)
    with Scorer(artifact, device="cpu", batch_size=3) as small:
        score_pool(small, open_pool(pool), tmp_path / "small")
    assert contents(tmp_path / "s") == contents(tmp_path / "small")
    for size in (-1, 9):
        with pytest.raises(SettingsError, match=f"batch_size = {size}: give 1 to 8"):
            score_pool(scorer, open_pool(pool), tmp_path / "t", batch_size=size)


def test_image_files_newer_than_their_scores_are_counted(
    artifact: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names are the same, so the scores are kept; that they may be of other pixels is said."""
    pool, out = tmp_path / "pool", tmp_path / "scores"
    shutil.copytree(photos, pool)
    names = sorted(path for path in pool.rglob("*.png"))
    os.utime(names[0], (1, 1))
    command = ["score", str(artifact), str(pool), "-o", str(out), "--part-size", "20"]

    def said() -> str:
        with contextlib.suppress(SystemExit):
            main([*command, "--exclude", str(tmp_path / "labels.csv")])
        return capsys.readouterr().err

    (tmp_path / "labels.csv").write_text(f"id\n{names[1].relative_to(pool)}\n")
    assert "are newer" not in said() and "are newer" not in said()
    far = time.time() + 1000
    for path in names[:3]:
        os.utime(path, (far, far))
    told = said()
    assert "warning: 2 image files are newer than their scores" in told  # one is excluded
    assert repr(str(names[0].relative_to(pool))) in told
