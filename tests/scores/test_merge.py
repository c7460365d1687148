"""Merged shards are what one machine would have written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from lloss.serve.scoring.batch.score_pool import score_pool

from lloss import Scorer
from lloss.cli.main import main
from lloss.errors import LlossError, PoolError, ScoresError
from lloss.pools import open_pool
from lloss.scores.folder_files import FolderFiles, LocalFiles
from lloss.scores.merge import merge_shards
from lloss.scores.scores_folder import ScoresFolder
from lloss.scores.shard_spec import Shard

from ..object_store import contents
from ..pools.pool_files import random_images, write, write_table, write_tar


@pytest.fixture(scope="module")
def scorer(onnx_file: Path) -> Scorer:
    return Scorer(onnx_file, provider="cpu", batch_size=8, threads=2)


def encoded(photos: Path) -> list[bytes]:
    """60 images, two of them broken."""
    found = [path.read_bytes() for path in sorted(photos.rglob("*.png"))]
    found[7], found[41] = b"", b"text"
    return found


def _folder(photos: Path, to: Path) -> str:
    for number, content in enumerate(encoded(photos)):
        write(to / "folder" / f"{number:02d}.png", content)
    return str(to / "folder")


def _npy(photos: Path, to: Path) -> str:
    np.save(to / "a.npy", random_images(60, 8, 8, 3))
    return str(to / "a.npy")


def _tar(
    photos: Path, to: Path, suffix: str = "tar", names: Callable[[int], str] = "{:02d}".format
) -> str:
    images = encoded(photos)
    for shard in range(3):
        rows = range(shard * 20, shard * 20 + 20)
        write_tar(to / f"s-{shard}.{suffix}", {f"{names(n)}.png": images[n] for n in rows})
    return str(to / f"s-{{0..2}}.{suffix}")


def _gz(photos: Path, to: Path) -> str:
    return _tar(photos, to, "tar.gz")


def _parquet(photos: Path, to: Path, names: Callable[[int], str] = "row {}".format) -> str:
    rows = {"id": [names(n) for n in range(60)], "png": encoded(photos)}
    return str(write_table(to / "t.parquet", rows, block=11))


def shards_of(
    scorer: Scorer, pool: str, out: Path, count: int, part_size: int = 7, **options: Any
) -> list[Path]:
    folders = [out / f"shard-{index}" for index in range(1, count + 1)]
    for index, folder in enumerate(folders, 1):
        score_pool(scorer, open_pool(pool), folder, part_size=part_size,
                   shard=Shard(index, count), **options)  # fmt: skip
    return folders


@pytest.mark.parametrize(
    ("kind", "part_size"),
    [(_folder, 5), (_npy, 7), (_gz, 7), (_parquet, 64)],
)
def test_merged_shards_are_the_whole_byte_for_byte(
    scorer: Scorer, photos: Path, tmp_path: Path, kind: Callable[..., str], part_size: int
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


@pytest.fixture(scope="module")
def scored_shards(
    scorer: Scorer, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    root = tmp_path_factory.mktemp("shards")
    return shards_of(scorer, _folder(photos, root), root, 3)


@pytest.fixture
def shards(scored_shards: list[Path], tmp_path: Path) -> list[Path]:
    """Three shards of a folder of 60 images, nine parts; the test may change them."""
    return [shutil.copytree(path, tmp_path / path.name) for path in scored_shards]


def refused(shards: list[Path], out: Path, match: str) -> None:
    before = {path: contents(path) for path in shards if path.exists()}
    with pytest.raises(ScoresError, match=match) as caught:
        merge_shards(shards, out)
    assert "\n" not in str(caught.value)
    assert before == {path: contents(path) for path in shards if path.exists()}


def test_a_missing_doubled_or_unfinished_shard_is_named(shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(shards[:2], out, "shard 3/3 is missing: give the folders of all 3")
    refused(shards[1:2], out, "shard 1/3, 3/3 is missing")
    refused([*shards, shards[0]], out, "both hold shard 1/3")
    shutil.copytree(shards[1], tmp_path / "copy")
    refused([*shards, tmp_path / "copy"], out, "shard-2 and .*copy: both hold shard 2/3")
    refused([*shards, tmp_path / "nothing"], out, "nothing: no scores here; give the folders of")
    folder = ScoresFolder(shards[1])
    run = folder.run() or {}
    folder.write_run({**run, "shard": "2/4"})
    refused(shards, out, "shards of 3 and of 4 do not merge")
    folder.write_run({**run, "state": "running"})
    refused(shards, out, "shard-2: shard 2/3 is not finished; run its lloss score")
    assert not out.exists()


def test_a_pool_that_changed_between_the_shards_is_refused(
    scorer: Scorer, photos: Path, tmp_path: Path
) -> None:
    """Images that moved from one shard's part to another's would be in none of them."""
    folder = Path(_folder(photos, tmp_path))
    made = []
    for index in (1, 2):
        made.append(tmp_path / f"shard-{index}")
        pool = open_pool(str(folder))
        score_pool(scorer, pool, made[-1], part_size=7, shard=Shard(index, 2))
        shutil.copy(folder / "20.png", folder / "99.png")
    with pytest.raises(ScoresError, match="shard-2: the pool held other images than when"):
        merge_shards(made, tmp_path / "merged")


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_sha256", "ab"), ("part_size", 8), ("pool", "/x"), ("precision", "int8"),
     ("excluded_sha256", "cd"), ("onnxruntime", "1.0"), ("pool_fingerprint", "ef")],
)  # fmt: skip
def test_a_shard_of_another_run_is_refused(
    shards: list[Path], tmp_path: Path, key: str, value: object
) -> None:
    folder = ScoresFolder(shards[2])
    folder.write_run({**(folder.run() or {}), key: value})
    what = rf"shard-3: was scored with {key} = {value!r}, but .*shard-1 with"
    refused(shards, tmp_path / "out", what)


@pytest.mark.parametrize("number", [0, 4, 8])
def test_a_lost_part_is_named_wherever_it_was(
    shards: list[Path], tmp_path: Path, number: int
) -> None:
    (shards[number % 3] / f"part-{number:05d}.parquet").unlink()
    refused(shards, tmp_path / "out", rf"shard-{number % 3 + 1}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_part_is_named(shards: list[Path], tmp_path: Path, damage: str) -> None:
    path = shards[1] / "part-00004.parquet"
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"text" * 100, "empty": b""}[damage])
    refused(shards, tmp_path / "out", r"shard-2/part-00004\.parquet: cannot be read")
    path.write_bytes(whole)
    merge_shards(shards, tmp_path / "out")


def test_another_folder_is_not_written_to(shards: list[Path], tmp_path: Path) -> None:
    write(tmp_path / "thesis/a.tex", b"precious")
    refused(shards, tmp_path / "thesis", "thesis: is not empty")
    refused(shards, shards[0], "shard-1: is not empty; choose another -o")
    assert contents(tmp_path / "thesis") == {"a.tex": b"precious"}


def test_parts_are_links_or_else_copies(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_shards(shards, tmp_path / "linked")
    monkeypatch.setattr(os, "link", Mock(side_effect=OSError(95, "not supported")))
    merge_shards(shards, tmp_path / "copied")
    assert contents(tmp_path / "linked") == contents(tmp_path / "copied")
    part = shards[0] / "part-00000.parquet"
    assert part.samefile(tmp_path / "linked" / part.name)
    assert not part.samefile(tmp_path / "copied" / part.name)


@pytest.mark.parametrize("after", [0, 3, 8])
def test_an_interrupted_merge_is_run_again(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    merge_shards(shards, tmp_path / "whole")
    real, left = LocalFiles.take, after

    def interrupted(target: LocalFiles, source: FolderFiles, name: str) -> None:
        nonlocal left
        if left == 0:
            (target.path / f".{name}.12345678.part").write_bytes(b"half")
            raise KeyboardInterrupt
        left -= 1
        real(target, source, name)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge_shards(shards, out)
    with pytest.raises(ScoresError, match="not finished"):
        ScoresFolder(out).opened()
    merge_shards(shards, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_the_commands_merge_and_refuse(
    shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(path) for path in shards]
    main(["merge", *words, "-o", str(tmp_path / "out")])
    assert capsys.readouterr().err == f"{tmp_path / 'out'}: 58 images scored, 2 skipped\n"
    for wrong, line in (
        (["merge", *words, "-o", words[1]], "is one of the shards"),
        (["merge", *words[1:], "-o", str(tmp_path / "o")], "shard 1/3 is missing"),
        (["select", words[0], "-k", "3"], "holds shard 1/3 of a pool alone"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        error = capsys.readouterr().err
        assert caught.value.code == 2 and error.count("\n") == 1
        assert error.startswith("lloss: ") and line in error


def test_a_folder_of_one_shard_is_resumed_as_that_shard_alone(
    scorer: Scorer, photos: Path, tmp_path: Path
) -> None:
    pool, out = open_pool(_folder(photos, tmp_path)), tmp_path / "s"
    score_pool(scorer, pool, out, part_size=7, shard=Shard(2, 3))
    assert score_pool(scorer, pool, out, part_size=7, shard=Shard(2, 3)).resumed == 21
    for shard, now in ((Shard(1, 3), "'1/3'"), (Shard(), "None")):
        with pytest.raises(ScoresError, match=f"begun with shard = '2/3', now it is {now}"):
            score_pool(scorer, pool, out, part_size=7, shard=shard)


def test_duplicate_ids_are_an_error_before_scoring(
    scorer: Scorer, photos: Path, tmp_path: Path
) -> None:
    pool = open_pool(_parquet(photos, tmp_path, lambda n: "twice" if n in (4, 55) else f"row {n}"))
    for shard in (Shard(), Shard(2, 3)):
        with pytest.raises(PoolError, match="the id 'twice' comes twice"):
            score_pool(scorer, pool, tmp_path / "s", part_size=7, shard=shard)
    assert not (tmp_path / "s").exists()
    # Without them there is no duplicate.
    report = score_pool(scorer, pool, tmp_path / "s", exclude=["twice"])
    assert report.scored + report.skipped == 58


def test_duplicate_ids_of_a_stream_are_an_error_at_the_end(
    scorer: Scorer, photos: Path, tmp_path: Path
) -> None:
    pool = _tar(photos, tmp_path, "tar.gz", lambda n: f"key{n % 59}")
    with pytest.raises(LlossError, match="the id 'key0' comes twice in the pool"):
        score_pool(scorer, open_pool(pool), tmp_path / "s", part_size=7)
    folders = shards_of(scorer, pool, tmp_path, 3)  # each sees one of the two
    with pytest.raises(ScoresError, match="the id 'key0' comes twice in the pool"):
        merge_shards(folders, tmp_path / "merged")
    for folder in ("s", "merged"):
        with pytest.raises(ScoresError, match="not finished"):
            ScoresFolder(tmp_path / folder).opened()
