"""A pool into a scores folder: resumed, changed, broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool

from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import InterruptedRunError, ScoresError, SettingsError
from lloss.files import locked
from lloss.pools import open_pool
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard

from ....object_store import contents
from ....waiting import PATIENCE, until
from ..fakes import pictures


@pytest.fixture(scope="module")
def scorer(onnx_file: Path) -> Scorer:
    return Scorer(onnx_file, provider="cpu", batch_size=8, threads=1)


@pytest.fixture
def whole(scorer: Scorer, pool: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of a run in parts of ten that nothing interrupted."""
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=10)
    return contents(tmp_path / "whole")


def command(onnx_file: Path, pool: Path, out: Path, *options: str) -> list[str]:
    return ["score", str(onnx_file), str(pool), "-o", str(out), "--provider", "cpu", *options]


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lloss", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_image_is_a_row_or_a_reason(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    report = score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=25)
    folder = ScoresFolder(tmp_path / "s").opened()
    assert (report.scored, report.skipped, len(folder.parts())) == (59, 2, 3)
    table = pa.Table.from_batches(folder.scan(["id", "loss"]))
    losses, reasons = dict(zip(*table.to_pydict().values())), dict(folder.skipped())
    assert sorted([*losses, *reasons]) == sorted(item.id for item in open_pool(pool))
    assert reasons["bright/000.png"] == "an empty file"
    streamed = {id: x for batch in scorer.stream(pool) for id, x in zip(batch.ids, batch.loss)}
    assert losses == pytest.approx({id: float(x) for id, x in streamed.items()}, abs=1e-4)


def test_a_killed_run_ends_byte_identical(onnx_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", pictures(40_000))
    options = [onnx_file, tmp_path / "pool.npy"]
    main(command(*options, tmp_path / "whole", "--part-size=1000"))
    for attempt in range(2):
        child = started(*command(*options, tmp_path / "cut", "--part-size=1000",
                                 f"--threads={1 + attempt}"))  # fmt: skip
        part = tmp_path / f"cut/part-{10 * attempt + 3:05d}.parquet"
        until(part.exists)
        time.sleep(0.02 * attempt)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.communicate()
    main(command(*options, tmp_path / "cut", "--part-size=1000"))
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_with_one_line(
    onnx_file: Path, tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "pool.npy", pictures(40_000))
    arguments = command(onnx_file, tmp_path / "pool.npy", tmp_path / "s", "--part-size=1000")
    child = started(*arguments)
    until((tmp_path / "s/part-00002.parquet").exists)
    child.send_signal(number)
    _, lines = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert lines.splitlines()[-1].endswith("run the same command again to go on")
    assert "Traceback" not in lines
    main(arguments)
    done = capsys.readouterr().err
    assert "40,000 images scored" in done and "of them before" in done


def test_a_full_disk_leaves_no_half_part(onnx_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "pool.npy", pictures(3000))
    code = (
        "import resource, sys; from lloss.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); main(sys.argv[1:])"
    )
    arguments = command(onnx_file, tmp_path / "pool.npy", tmp_path / "s")
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("lloss: ") and "part-00000.parquet: cannot be written" in last
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["run.json"]
    main(arguments)  # goes on
    assert len(ScoresFolder(tmp_path / "s").opened().parts()) == 1


def test_a_complete_folder_is_left_alone_also_by_another_path(
    scorer: Scorer, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".run.json.12345678.part").write_text("{")  # of a killed run
    first = score_pool(scorer, open_pool(pool), tmp_path / "s")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").iterdir()}
    monkeypatch.chdir(pool.parent)
    again = score_pool(scorer, open_pool("pool"), tmp_path / "s")
    assert (again.scored, again.skipped) == (first.scored, first.skipped)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "s").iterdir()}
    assert not list((tmp_path / "s").glob(".*"))


def test_a_pool_that_changed_is_refused(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    begun(scorer, pool, tmp_path / "begun")
    score_pool(scorer, open_pool(pool), tmp_path / "full", part_size=61)  # one part, just full

    def refused(folder: str, part_size: int, match: str) -> None:
        with pytest.raises(ScoresError, match=match):
            score_pool(scorer, open_pool(pool), tmp_path / folder, part_size=part_size)

    added = pool / "bright" / "0000.png"
    shutil.copy(pool / "dark" / "004.png", added)
    refused("begun", 10, r"changed .*'bright/0000\.png' is new")
    added.rename(pool / "red" / "zzz.png")
    refused("full", 61, r"'red/zzz\.png' is new")
    (pool / "red" / "zzz.png").unlink()
    (pool / "dark" / "004.png").unlink()
    refused("full", 61, r"'dark/004\.png' is gone")


def test_a_pool_without_a_readable_image_fails_each_time(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "pool" / name).write_bytes(b"text")
    for _ in range(2):
        with pytest.raises(ScoresError, match=r"none of the 2 images .*'a\.png': not an image"):
            score_pool(scorer, open_pool(tmp_path / "pool"), tmp_path / "s")
    assert len(ScoresFolder(tmp_path / "s").skipped()) == 2


def test_an_unusable_folder_is_refused(scorer: Scorer, pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    out.write_text("precious")
    with pytest.raises(ScoresError, match="folder"):
        score_pool(scorer, open_pool(pool), out)
    assert out.read_text() == "precious"
    out.unlink()
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    with pytest.raises(ScoresError, match="not empty and holds no scores"):
        score_pool(scorer, open_pool(pool), out)
    (out / "thesis.tex").unlink()
    with (
        locked(out, ScoresError("held by this test")),
        pytest.raises(ScoresError, match="another lloss score is at work in this folder"),
    ):
        score_pool(scorer, open_pool(pool), out)
    assert score_pool(scorer, open_pool(pool), out, part_size=10).scored == 59
    (out / "part-00006.parquet").unlink()
    with pytest.raises(ScoresError, match="has 6 of its 7 parts"):
        ScoresFolder(out).opened()


def begun(scorer: Scorer, pool: Path, out: Path, **options: Any) -> None:
    """A run that was interrupted after three parts of ten."""
    score_pool(scorer, open_pool(pool), out, part_size=10, **options)
    for part in sorted(out.glob("part-*"))[3:]:
        part.unlink()
    (out / "skipped.parquet").unlink()
    run = json.loads((out / "run.json").read_text())
    state = {key: value for key, value in run.items() if key not in ("scored", "skipped")}
    (out / "run.json").write_text(json.dumps({**state, "state": "running"}))


def test_a_change_of_a_setting_that_decides_the_bytes_is_refused(
    scorer: Scorer, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, exclude = tmp_path / "s", ["dark/001.png"]
    begun(scorer, pool, out, exclude=exclude)
    kept = contents(out)
    usual: dict[str, Any] = {"part_size": 10, "exclude": exclude}
    changes: dict[str, dict[str, Any]] = {
        "part_size = 10, now it is 11": {"part_size": 11},
        "excluded = 1, now it is 0": {"exclude": []},
        "excluded_sha256 = '.*', now it is '": {"exclude": ["dark/004.png"]},
        "shard = None, now it is '1/2'": {"shard": Shard(1, 2)},
    }
    for match, change in changes.items():
        with pytest.raises(ScoresError, match=f"s: was begun with {match}.*or go back to the old"):
            score_pool(scorer, open_pool(pool), out, **{**usual, **change})
    shutil.copytree(pool, tmp_path / "copy")
    with pytest.raises(ScoresError, match="begun with pool = '.*/pool', now it is '.*/copy'"):
        score_pool(scorer, open_pool(tmp_path / "copy"), out, **usual)
    for name, value, match in (
        ("sha256", "ab", "model_sha256 = '[0-9a-f]{64}', now it is 'ab'"),
        ("batch_size", 4, "batch_size = 8, now it is 4"),
        ("provider", "cuda", "provider = 'cpu', now it is 'cuda'"),
    ):
        with monkeypatch.context() as patch, pytest.raises(ScoresError, match=f"with {match}"):
            patch.setattr(scorer.engine, name, value)
            score_pool(scorer, open_pool(pool), out, **usual)
    assert contents(out) == kept
    (tmp_path / "link").symlink_to(pool)
    assert score_pool(scorer, open_pool(tmp_path / "link"), out, **usual).resumed == 30
    ids = {id for b in ScoresFolder(out).scan(["id"]) for id in b["id"].to_pylist()}
    assert len(ids) == 58 and "dark/001.png" not in ids


def test_another_array_under_the_same_path_is_refused(scorer: Scorer, tmp_path: Path) -> None:
    images = pictures(61)
    np.save(tmp_path / "a.npy", images)
    begun(scorer, tmp_path / "a.npy", tmp_path / "s")
    np.save(tmp_path / "a.npy", images[::-1])
    with pytest.raises(ScoresError, match=r"pool changed .*\(its images are others than before"):
        score_pool(scorer, open_pool(tmp_path / "a.npy"), tmp_path / "s", part_size=10)
    np.save(tmp_path / "a.npy", images)
    assert score_pool(scorer, open_pool(tmp_path / "a.npy"), tmp_path / "s", part_size=10).resumed


def test_a_smaller_batch_is_as_a_scorer_of_that_size(
    scorer: Scorer, onnx_file: Path, pool: Path, tmp_path: Path
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "s", batch_size=3)
    with Scorer(onnx_file, provider="cpu", batch_size=3, threads=5) as small:
        score_pool(small, open_pool(pool), tmp_path / "small")
    assert contents(tmp_path / "s") == contents(tmp_path / "small")
    for size in (-1, 9):
        with pytest.raises(SettingsError, match=f"batch_size = {size}: give 1 to 8"):
            score_pool(scorer, open_pool(pool), tmp_path / "t", batch_size=size)


class Follower:
    """Notes the progress; interrupts the run at some batch."""

    def __init__(self, stop_at: int = -1) -> None:
        self.stop_at = stop_at
        self.calls: list[Any] = []

    def begin(self, done: Any, total: Any) -> None:
        self.calls.append(("begin", done.scored + done.skipped, total()))

    def batch(self, scores: Any) -> None:
        self.calls.append(scores.seen)
        if len(self.calls) == self.stop_at:
            raise InterruptedRunError("enough")


def test_progress_follows_a_run_and_can_end_it(
    scorer: Scorer, pool: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    follower = Follower(stop_at=6)
    with pytest.raises(InterruptedRunError, match="enough"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10, progress=follower)
    assert follower.calls[0] == ("begin", 0, 61)
    assert not (tmp_path / "s/skipped.parquet").exists()
    follower = Follower()
    report = score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=10, progress=follower)
    assert follower.calls[0] == ("begin", report.resumed, 61) and report.resumed > 0
    seen = follower.calls[1:]
    assert sum(seen) + report.resumed == 61 and max(seen) <= scorer.batch_size
    assert contents(tmp_path / "s") == whole


def test_image_files_newer_than_their_scores_are_counted(
    onnx_file: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names are the same, so the scores are kept, with a warning."""
    names = sorted((pool / "dark").glob("0*.png"))
    os.utime(names[0], (1, 1))
    (tmp_path / "labels.csv").write_text(f"id\n{names[1].relative_to(pool)}\n")

    def messages() -> str:
        exclude = ["--exclude", str(tmp_path / "labels.csv")]
        main(command(onnx_file, pool, tmp_path / "scores", "--part-size=20", *exclude))
        return capsys.readouterr().err

    assert "are newer" not in messages() and "are newer" not in messages()
    future = time.time() + 1000
    for path in names[:3]:
        os.utime(path, (future, future))
    warning = messages()
    assert "warning: 2 image files are newer than their scores" in warning  # one is excluded
    assert repr(str(names[0].relative_to(pool))) in warning
