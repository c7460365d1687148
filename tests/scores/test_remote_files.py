"""Scores in an object store: the bytes, resumption and errors of those on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool

import lloss
from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import LlossError, ScoresError
from lloss.pools import open_pool
from lloss.scores.merge import merge_shards
from lloss.scores.remote_files import RemoteFiles
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard

from ..object_store import contents
from ..pools.pool_files import random_images, write
from ..small_disk import fill
from ..waiting import until

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(scope="module")
def scorer(onnx_file: Path) -> Scorer:
    return Scorer(onnx_file, provider="cpu", batch_size=8, threads=1)


@pytest.fixture
def url(s3: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a folder of the bucket in which nothing is."""
    root = f"{s3}/{tmp_path.name}"
    yield root
    files, path = fsspec.core.url_to_fs(root)
    if files.exists(path):
        files.rm(path, recursive=True)


def score(onnx_file: Path, pool: Path, out: Path | str, *options: str) -> list[str]:
    words = ["score", str(onnx_file), str(pool), "-o", str(out), "--provider", "cpu"]
    return [*words, "--part-size=10", *options]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("lloss: ")
    return last


def test_the_files_are_those_of_a_local_run(
    onnx_file: Path, pool: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(score(onnx_file, pool, tmp_path / "local"))
    for folder in (url, f"{url}/deeper/still/"):
        main(score(onnx_file, pool, folder))
        assert contents(folder) == contents(tmp_path / "local")
    assert f"2 skipped ({url}/skipped.parquet)" in capsys.readouterr().err
    assert ScoresFolder(url).opened().skipped()[0] == ("bright/000.png", "an empty file")
    main(score(onnx_file, pool, url))  # complete, and left alone
    assert "61 of them before" in capsys.readouterr().err


def test_a_killed_run_leaves_whole_parts_and_ends_byte_identical(
    onnx_file: Path, url: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", random_images(4000, 8, 8, 3))
    words = score(onnx_file, tmp_path / "a.npy", url, "--part-size=100", "--threads=1")
    child = subprocess.Popen([sys.executable, "-m", "lloss", *words], stderr=subprocess.PIPE)
    files = ScoresFolder(url)
    until(lambda: len(files.part_numbers()) > 2)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    done = files.part_numbers()
    assert all(files.part_counts(number) == (100, 0) for number in done) and len(done) < 40
    with pytest.raises(ScoresError, match="not finished"):
        files.opened()
    main(words)
    main(score(onnx_file, tmp_path / "a.npy", tmp_path / "whole", "--part-size=100"))
    assert contents(url) == contents(tmp_path / "whole")


def test_missing_parts_alone_are_scored(scorer: Scorer, pool: Path, url: str) -> None:
    """Wherever they are: several processes may have filled the folder."""
    score_pool(scorer, open_pool(pool), url, part_size=10)
    whole, folder = contents(url), ScoresFolder(url)
    for name in ("part-00000.parquet", "part-00003.parquet", "skipped.parquet"):
        folder.files.fs.rm_file(folder.files._object(name))  # type: ignore[attr-defined]
    run = folder.run() or {}
    folder.write_run({**{k: v for k, v in run.items() if k != "scored"}, "state": "running"})
    report = score_pool(scorer, open_pool(pool), url, part_size=10)
    assert (report.resumed, report.scored, report.skipped) == (41, 59, 2)
    assert contents(url) == whole


def test_a_part_that_another_run_writes_is_counted_once(
    scorer: Scorer, pool: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing locks a folder in a store: a part may appear when the others were counted."""
    score_pool(scorer, open_pool(pool), url, part_size=10)
    whole, folder = contents(url), ScoresFolder(url)
    run = folder.run() or {}
    folder.write_run({**{k: v for k, v in run.items() if k != "scored"}, "state": "running"})
    listed = ScoresFolder.part_numbers
    first = iter([listed(folder)[:-2]])  # the last two are not there yet
    monkeypatch.setattr(ScoresFolder, "part_numbers", lambda self: next(first, listed(self)))
    report = score_pool(scorer, open_pool(pool), url, part_size=10)
    assert (report.scored, report.skipped) == (59, 2)
    assert contents(url) == whole and (folder.run() or {})["scored"] == 59


def test_shards_merge_wherever_they_and_the_result_are(
    scorer: Scorer, pool: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=10)
    shards: list[Path | str] = [f"{url}/1", f"{url}/2", tmp_path / "3"]
    for index, shard in enumerate(shards, 1):
        score_pool(scorer, open_pool(pool), shard, part_size=10, shard=Shard(index, 3))
    for out in (f"{url}/merged", tmp_path / "merged"):
        assert merge_shards(shards, out) == {"scored": 59, "skipped": 2}
        assert contents(out) == contents(tmp_path / "whole")
    main(["merge", *map(str, shards), "-o", f"{url}/again"])
    assert contents(f"{url}/again") == contents(tmp_path / "whole")
    assert "one of the shards" in refused(["merge", *map(str, shards), "-o", f"{url}/2/"], capsys)


@pytest.mark.parametrize("strategy", ["top", "diverse"])
def test_the_same_images_are_selected(
    scorer: Scorer,
    pool: Path,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
) -> None:
    picked = []
    write(tmp_path / "done.csv", b"id\ndark/004.png\n")
    for out in (tmp_path / "scores", url):
        score_pool(scorer, open_pool(pool), out, part_size=10)
        capsys.readouterr()
        options = ["-k", "7", "--strategy", strategy, "--exclude", str(tmp_path / "done.csv")]
        main(["select", str(out), *options, "--format", "csv"])
        picked.append(capsys.readouterr().out)
        ids = lloss.select(str(out), k=7, strategy=strategy, exclude=["dark/004.png"]).ids
        assert list(ids) == [line.split(",")[0] for line in picked[-1].splitlines()[1:]]
    assert picked[0] == picked[1] and "dark/004.png" not in picked[0]


def test_a_failed_upload_leaves_nothing_under_the_name(
    scorer: Scorer, pool: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ScoresFolder(url)
    assert isinstance(folder.files, RemoteFiles)
    put = folder.files.fs.put_file

    def broken(path: str, name: str, **options: Any) -> None:
        if name.endswith("part-00002.parquet"):
            raise OSError("connection\nreset")
        put(path, name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folder.files.fs, "put_file", broken)
        with pytest.raises(ScoresError, match=r"00002\.parquet: cannot be written: connection res"):
            score_pool(scorer, open_pool(pool), url, part_size=10)
    assert folder.part_numbers() == [0, 1]
    score_pool(scorer, open_pool(pool), url, part_size=10)
    assert len(folder.opened().parts()) == 7


def test_only_one_of_two_runs_begins_a_folder(
    scorer: Scorer, pool: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw it empty: the second would mix its parts with those of the first."""
    folder, run = ScoresFolder(url), ScoresFolder.run
    calls: list[Any] = []

    def late(self: ScoresFolder) -> Any:
        calls.append(run(self))
        if len(calls) == 2:  # the last look before it begins
            folder.write_run({"state": "running", "model_sha256": "another"})
        return calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ScoresFolder, "run", late)
        with pytest.raises(ScoresError, match=r"began here at the same time|is not empty"):
            score_pool(scorer, open_pool(pool), url, part_size=10)
    with pytest.raises(ScoresError, match="begun with model_sha256 = 'another'"):
        score_pool(scorer, open_pool(pool), url, part_size=10)
    with pytest.raises(ScoresError, match="began here at the same time"):
        folder.write_run({"state": "running"}, new=True)
    assert (folder.run() or {})["model_sha256"] == "another" and not folder.parts()


def test_image_files_newer_than_their_scores_are_counted(
    onnx_file: Path, pool: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(score(onnx_file, pool, url))
    future = time.time() + 1000
    os.utime(pool / "dark/004.png", (future, future))
    main(score(onnx_file, pool, url))
    assert "warning: 1 image files are newer than their scores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("s3://no-such-bucket/scores", "s3://no-such-bucket/scores/run.json: cannot be written: "),
        ("http://127.0.0.1:9/scores", "cannot be read: "),
        ("nonsense://bucket/scores", "nonsense://bucket/scores: "),
    ],
)
def test_an_unusable_store_is_one_line(
    onnx_file: Path,
    pool: Path,
    s3: str,
    capsys: pytest.CaptureFixture[str],
    out: str,
    message: str,
) -> None:
    assert message in refused(score(onnx_file, pool, out), capsys)
    assert "lloss" in refused(["select", out, "-k", "3"], capsys)


def test_a_store_that_shows_half_files_is_refused(
    scorer: Scorer, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ScoresFolder("memory://bucket/scores")
    monkeypatch.setattr(type(folder.files.fs), "protocol", "sftp")  # type: ignore[attr-defined]
    with pytest.raises(ScoresError, match="other stores can show half a file"):
        score_pool(scorer, open_pool(pool), "memory://bucket/scores")
    assert folder.files.names() == []


def test_a_place_that_cannot_be_a_scores_folder_is_refused(
    scorer: Scorer, url: str, pool: Path, onnx_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RemoteFiles(url).fs.pipe_file(f"{url}/thesis.tex", b"precious")
    with pytest.raises(ScoresError, match="is not empty and holds no scores"):
        score_pool(scorer, open_pool(pool), url)
    with pytest.raises(ScoresError, match=r"thesis\.tex: is an object"):
        score_pool(scorer, open_pool(pool), f"{url}/thesis.tex")
    assert list(contents(url)) == ["thesis.tex"]
    with pytest.raises(ScoresError, match="a Path cannot hold a URL; give the URL as text"):
        ScoresFolder(Path(url))
    for number in range(3):
        RemoteFiles(url).fs.pipe_file(f"{url}/photos/{number}.png", b"")
    bucket = url.removeprefix("s3://")
    for root, out in (
        (f"{url}/photos", f"{url}/photos/scores"),
        (f"{url}/photos/", f"{url}/photos"),
        (f"s3a://{bucket}/photos", f"{url}//photos/./scores/"),
        (f"{url}//other/../photos/.", f"s3a://{bucket}/photos/scores"),
        (url, f"{url}/scores"),
    ):
        inside = score(onnx_file, Path("unused"), out)
        inside[2] = root
        message = f"-o {out.rstrip('/')}: is inside of the pool {root}; choose one beside it"
        assert message in refused(inside, capsys)
    with pytest.raises(ScoresError, match="give a scores folder of this machine"):
        _ = ScoresFolder(url).path


def test_scores_beside_the_pool_are_written(onnx_file: Path, photos: Path, url: str) -> None:
    """Also where the one name begins with the other's."""
    store = RemoteFiles(url)
    store.fs.put(str(photos / "red"), f"{store.path}/photos", recursive=True)
    words = score(onnx_file, Path("unused"), f"{url}/photos-scores")
    words[2] = f"{url}/photos"
    main(words)
    assert len(ScoresFolder(f"{url}/photos-scores").opened().parts()) == 2


def test_a_full_disk_is_named_and_not_the_part_that_is_copied(
    scorer: Scorer, pool: Path, url: str, tmp_path: Path, disk: Path
) -> None:
    local = tmp_path / "1"
    for index, shard in enumerate((local, url), 1):
        score_pool(scorer, open_pool(pool), shard, part_size=10, shard=Shard(index, 2))
    (disk / "out").mkdir()
    for number, source in enumerate((local, url)):
        part = f"part-{number:05d}.parquet"
        fill(disk)
        with pytest.raises(LlossError) as full:
            ScoresFolder(disk / "out").files.take(ScoresFolder(source).files, part)
        assert str(full.value) == (
            f"{disk}/out/{part}: the disk is full; free some space and run it again"
        )
        (disk / "ballast").unlink()
    merge_shards([local, url], disk / "merged")
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=10)
    assert contents(disk / "merged") == contents(tmp_path / "whole")


def test_a_damaged_part_is_named(scorer: Scorer, url: str, pool: Path) -> None:
    score_pool(scorer, open_pool(pool), url, part_size=10)
    RemoteFiles(url).fs.pipe_file(f"{url}/part-00003.parquet", b"PAR1 but not really PAR1")
    with pytest.raises(ScoresError, match=r"cannot be read: .*part-00003\.parquet"):
        lloss.select(url, k=3)
    with pytest.raises(ScoresError, match=r"part-00003\.parquet: cannot be read"):
        ScoresFolder(url).check_unique()


def test_a_file_url_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    assert ScoresFolder(f"file://{tmp_path}").path == tmp_path
