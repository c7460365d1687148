"""Shards put together are what one machine would have written."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool

from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import LlossError, PoolError, ScoresError
from lloss.pools import open_pool
from lloss.scores import merge
from lloss.scores.merge import merge_shards
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard

from ..waiting import PATIENCE


@pytest.fixture(scope="module")
def scorer(artifact: Path) -> Scorer:
    return Scorer(artifact, device="cpu", batch_size=8, threads=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def encoded(photos: Path) -> list[bytes]:
    """Every image's bytes, two of them broken."""
    found = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
    found[7], found[41] = b"", b"text"
    return found


def _folder(photos: Path, to: Path) -> str:
    (to / "folder").mkdir()
    for number, content in enumerate(encoded(photos)):
        (to / "folder" / f"{number:02d}.png").write_bytes(content)
    return str(to / "folder")


def _list(photos: Path, to: Path) -> str:
    folder = Path(_folder(photos, to))
    (to / "list.txt").write_text("".join(f"{path}\n" for path in sorted(folder.iterdir())[::-1]))
    return str(to / "list.txt")


def _npy(photos: Path, to: Path) -> str:
    np.save(to / "a.npy", np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8))
    return str(to / "a.npy")


def _tar(
    photos: Path, to: Path, suffix: str = "tar", names: Callable[[int], str] = "{:02d}".format
) -> str:
    images = encoded(photos)
    for shard in range(3):
        with tarfile.open(to / f"s-{shard}.{suffix}", "w:gz" if suffix != "tar" else "w") as tar:
            for number in range(shard * 20, shard * 20 + 20):
                info = tarfile.TarInfo(f"{names(number)}.png")
                info.size = len(images[number])
                tar.addfile(info, io.BytesIO(images[number]))
    return str(to / f"s-{{0..2}}.{suffix}")


def _gz(photos: Path, to: Path) -> str:
    return _tar(photos, to, "tar.gz")


def _parquet(photos: Path, to: Path, names: Callable[[int], str] = "row {}".format) -> str:
    table = pa.table({"id": [names(n) for n in range(60)], "png": encoded(photos)})
    pq.write_table(table, to / "t.parquet", row_group_size=11)
    return str(to / "t.parquet")


KINDS = [_folder, _list, _npy, _tar, _gz, _parquet]
Kind = Callable[[Path, Path], str]


def shards_of(
    scorer: Scorer, pool: str, out: Path, count: int, part_size: int = 7, **options: Any
) -> list[Path]:
    folders = [out / f"shard-{index}" for index in range(1, count + 1)]
    for index, folder in enumerate(folders, 1):
        score_pool(scorer, open_pool(pool), folder, part_size=part_size,
                   shard=Shard(index, count), **options)  # fmt: skip
    return folders


@pytest.mark.parametrize("part_size", [5, 7, 20, 64])
@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__[1:] for kind in KINDS])
def test_merged_shards_are_the_whole_byte_for_byte(
    scorer: Scorer, photos: Path, tmp_path: Path, kind: Kind, part_size: int
) -> None:
    pool = kind(photos, tmp_path)
    report = score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=part_size)
    folders = shards_of(scorer, pool, tmp_path, 3, part_size)
    counts = merge_shards([folders[2], folders[0], folders[1]], tmp_path / "merged")
    assert counts == {"scored": report.scored, "skipped": report.skipped}
    assert sum(counts.values()) == 60
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    ScoresFolder(tmp_path / "merged").opened()
    # What is complete is left alone, by both.
    assert merge_shards(folders, tmp_path / "merged") == counts
    again = score_pool(scorer, open_pool(pool), tmp_path / "merged", part_size=part_size)
    assert again.resumed == 60


def test_there_may_be_more_shards_than_parts(scorer: Scorer, photos: Path, tmp_path: Path) -> None:
    pool = _folder(photos, tmp_path)
    score_pool(scorer, open_pool(pool), tmp_path / "whole", part_size=25, exclude=["03.png"])
    folders = shards_of(scorer, pool, tmp_path, 5, 25, exclude=["03.png"])
    assert [len(ScoresFolder(folder).parts()) for folder in folders] == [1, 1, 1, 0, 0]
    merge_shards(folders, tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


@pytest.fixture
def shards(scorer: Scorer, photos: Path, tmp_path: Path) -> list[Path]:
    """Three shards of a folder of 60 images, nine parts."""
    return shards_of(scorer, _folder(photos, tmp_path), tmp_path, 3)


def refused(shards: list[Path], out: Path, match: str) -> None:
    before = {path: contents(path) for path in shards if path.exists()}
    with pytest.raises(ScoresError, match=match) as told:
        merge_shards(shards, out)
    assert "\n" not in str(told.value)
    assert before == {path: contents(path) for path in shards if path.exists()}


def test_a_missing_or_doubled_shard_is_named(shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(shards[:2], out, "shard 3/3 is missing: give the folders of all 3")
    refused(shards[1:2], out, "shard 1/3, 3/3 is missing")
    refused([*shards, shards[0]], out, "both hold shard 1/3")
    shutil.copytree(shards[1], tmp_path / "copy")
    refused([*shards, tmp_path / "copy"], out, "shard-2 and .*copy: both hold shard 2/3")
    refused([*shards, tmp_path / "nothing"], out, "nothing: no scores here; give the folders of")
    assert not out.exists()


@pytest.mark.parametrize("change", ["added", "removed", "renamed"])
def test_a_pool_that_changed_between_the_shards_is_refused(
    scorer: Scorer, photos: Path, tmp_path: Path, change: str
) -> None:
    """Images that moved from one shard's part to another's would be in none of them."""
    folder = Path(_folder(photos, tmp_path))
    made = []
    for index in (1, 2):
        made.append(tmp_path / f"shard-{index}")
        pool = open_pool(str(folder))
        score_pool(scorer, pool, made[-1], part_size=7, shard=Shard(index, 2))
        if change == "added":
            shutil.copy(folder / "20.png", folder / "99.png")
        else:
            (folder / f"0{index}.png").rename(
                tmp_path / f"{index}.png" if change == "removed" else folder / f"z{index}.png"
            )
    with pytest.raises(ScoresError, match="shard-2: the pool held other images than when"):
        merge_shards(made, tmp_path / "merged")


def test_an_unfinished_shard_is_named(shards: list[Path], tmp_path: Path) -> None:
    folder = ScoresFolder(shards[1])
    run = folder.run() or {}
    folder.write_run({**run, "state": "running"})
    refused(shards, tmp_path / "out", "shard-2: shard 2/3 is not finished; run its lloss score")
    assert not (tmp_path / "out").exists()


def test_shards_of_other_runs_are_refused(
    scorer: Scorer, shards: list[Path], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for key, value in {"model_sha256": "ab", "part_size": 8, "pool": "/x", "precision": "int8",
                       "excluded_sha256": "cd", "batch_size": 4, "provider": "cuda",
                       "onnxruntime": "1.0", "pool_fingerprint": "ef"}.items():  # fmt: skip
        folder = ScoresFolder(shards[2])
        run = folder.run() or {}
        folder.write_run({**run, key: value})
        refused(shards, out, rf"shard-3: was scored with {key} = {value!r}, but .*shard-1 with")
        folder.write_run(run)
    pool = str(tmp_path / "folder")
    score_pool(scorer, open_pool(pool), tmp_path / "four", part_size=7, shard=Shard(2, 4))
    refused([shards[0], tmp_path / "four", shards[2]], out, "shards of 3 and of 4 do not merge")
    score_pool(scorer, open_pool(pool), tmp_path / "all", part_size=7)
    refused([*shards, tmp_path / "all"], out, "shards of 1 and of 3 do not merge")
    assert not out.exists()


@pytest.mark.parametrize("number", [0, 4, 6, 7, 8])
def test_a_lost_part_is_named_wherever_it_was(
    shards: list[Path], tmp_path: Path, number: int
) -> None:
    path = shards[number % 3] / f"part-{number:05d}.parquet"
    path.unlink()
    with pytest.raises(ScoresError, match=rf"shard-{number % 3 + 1}: ") as told:
        merge_shards(shards, tmp_path / "out")
    assert "\n" not in str(told.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_part_is_named(shards: list[Path], tmp_path: Path, damage: str) -> None:
    path = shards[1] / "part-00004.parquet"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"text" * 100, "empty": b""}[damage])
    refused(shards, tmp_path / "out", r"shard-2/part-00004\.parquet: cannot be read")
    path.write_bytes(whole)
    merge_shards(shards, tmp_path / "out")


def test_another_folder_is_not_written_to(
    scorer: Scorer, shards: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("precious")
    refused(shards, tmp_path / "thesis", "thesis: is not empty and holds no scores")
    score_pool(scorer, open_pool(tmp_path / "folder"), tmp_path / "other", part_size=8)
    refused(shards, tmp_path / "other", "other: holds other scores; choose another -o")
    refused(shards, shards[0], "shard-1: holds other scores; choose another -o")
    assert contents(tmp_path / "thesis") == {"a.tex": b"precious"}


@pytest.mark.parametrize("after", [0, 3, 8])
def test_an_interrupted_merge_is_run_again(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    merge_shards(shards, tmp_path / "whole")
    real, left = merge._take, after

    def interrupted(source: Path, target: Path) -> None:
        nonlocal left
        if left == 0:
            (target.parent / f".{target.name}.12345678.part").write_bytes(b"half")
            raise KeyboardInterrupt
        left -= 1
        real(source, target)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(merge, "_take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge_shards(shards, out)
    with pytest.raises(ScoresError, match="not finished"):
        ScoresFolder(out).opened()
    merge_shards(shards, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_parts_are_copied_where_there_are_no_links(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_shards(shards, tmp_path / "linked")

    def no_links(*_: object) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "link", no_links)
    merge_shards(shards, tmp_path / "copied")
    assert contents(tmp_path / "linked") == contents(tmp_path / "copied")
    part = "part-00000.parquet"
    assert (tmp_path / "linked" / part).samefile(shards[0] / part)
    assert not (tmp_path / "copied" / part).samefile(shards[0] / part)


def test_a_shard_alone_is_nothing_to_select_from(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as told:
        main(["select", str(shards[0]), "-k", "3"])
    line = capsys.readouterr().err
    assert told.value.code == 2 and line.count("\n") == 1
    assert "holds shard 1/3 of a pool alone" in line and "lloss merge SHARDS" in line


def test_the_command_merges_and_refuses(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(path) for path in shards]
    main(["merge", *words, "-o", str(tmp_path / "out")])
    assert capsys.readouterr().err == f"{tmp_path / 'out'}: 58 images scored, 2 skipped\n"
    for wrong in ([*words, "-o", words[1]], [*words[1:], "-o", str(tmp_path / "o")]):
        with pytest.raises(SystemExit) as told:
            main(["merge", *wrong])
        line = capsys.readouterr().err
        assert told.value.code == 2 and line.count("\n") == 1 and line.startswith("lloss: ")


def test_a_folder_of_one_shard_is_resumed_as_that_shard_alone(
    scorer: Scorer, shards: list[Path], tmp_path: Path
) -> None:
    pool = open_pool(tmp_path / "folder")
    assert score_pool(scorer, pool, shards[1], part_size=7, shard=Shard(2, 3)).resumed == 21
    with pytest.raises(ScoresError, match="begun with shard = '2/3', now it is '1/3'"):
        score_pool(scorer, pool, shards[1], part_size=7, shard=Shard(1, 3))
    with pytest.raises(ScoresError, match="begun with shard = '2/3', now it is None"):
        score_pool(scorer, pool, shards[1], part_size=7)


def test_a_killed_shard_goes_on(artifact: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "pool.npy", random.integers(0, 256, (60_000, 8, 8, 3), np.uint8))
    command = [sys.executable, "-m", "lloss", "score", str(artifact), str(tmp_path / "pool.npy"),
               "--part-size", "1500", "--provider", "cpu", "-o"]  # fmt: skip
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    second = [*command, str(tmp_path / "2"), "--shard", "2/2"]
    child = subprocess.Popen(second, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not (tmp_path / "2/part-00005.parquet").exists():
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert json.loads((tmp_path / "2" / "run.json").read_text())["state"] == "running"
    refused_early = subprocess.run(
        [sys.executable, "-m", "lloss", "merge", tmp_path / "2", "-o", tmp_path / "m"],
        capture_output=True, text=True, check=False)  # fmt: skip
    assert "shard 2/2 is not finished" in refused_early.stderr
    done = subprocess.run(second, check=True, capture_output=True, text=True)
    assert "score shard 2/2 of" in done.stderr and "of them before" in done.stderr
    subprocess.run(
        [*command, str(tmp_path / "1"), "--shard", "1/2"], check=True, capture_output=True
    )
    merge_shards([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


def test_doubled_ids_are_an_error_before_scoring(
    scorer: Scorer, photos: Path, tmp_path: Path
) -> None:
    pools = {
        _parquet(photos, tmp_path, lambda n: "twice" if n in (4, 55) else f"row {n}"): "twice",
        _tar(photos, tmp_path, names=lambda n: f"key{n % 59}"): "key0",
    }
    for pool, id in pools.items():
        wanted = f"the id '{id}' is that of image .* and of image .*; ids are unique in a pool"
        for shard in (Shard(), Shard(2, 3)):
            with pytest.raises(PoolError, match=wanted):
                score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=7, shard=shard)
        assert not (tmp_path / "s").exists()
    # One of the two left out is a pool without doubles.
    report = score_pool(scorer, open_pool(next(iter(pools))), tmp_path / "s", exclude=["twice"])
    assert report.scored + report.skipped == 58


def test_doubled_ids_of_a_stream_are_an_error_at_the_end(
    scorer: Scorer, photos: Path, tmp_path: Path
) -> None:
    pool = _tar(photos, tmp_path, "tar.gz", lambda n: f"key{n % 59}")
    with pytest.raises(LlossError, match="the id 'key0' comes twice in the pool"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=7)
    with pytest.raises(ScoresError, match="not finished"):
        ScoresFolder(tmp_path / "s").opened()
    # In shards each sees one of the two.
    folders = shards_of(scorer, pool, tmp_path, 3)
    with pytest.raises(ScoresError, match="the id 'key0' comes twice in the pool"):
        merge_shards(folders, tmp_path / "merged")
    with pytest.raises(ScoresError, match="not finished"):
        ScoresFolder(tmp_path / "merged").opened()


def test_shards_are_scored_and_merged_by_commands_that_succeed(
    artifact: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = [tmp_path / "1", tmp_path / "2"]
    for number, out in enumerate(shards, 1):
        words = ["score", artifact, photos, "-o", out, "--shard", f"{number}/2", "--part-size", 16]
        main([*map(str, words), "--provider", "cpu"])
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"{out}: ") and last.endswith("images scored")
    main(["merge", *map(str, shards), "-o", str(tmp_path / "all")])
    assert capsys.readouterr().err.splitlines() == [f"{tmp_path / 'all'}: 60 images scored"]
