"""A pool's fingerprint changes with its images, and not with its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lloss.pools import SubsetPool, open_pool

from .pool_files import write, write_table, write_tar

COUNT, LENGTH = 40, 3000


def _images(seed: int) -> list[bytes]:
    """Of the same sizes for any seed; the first and the last ones are the same too."""
    ends, inner = np.random.default_rng(0), np.random.default_rng(seed)
    edge = [ends.bytes(LENGTH) for _ in range(20)]
    return [*edge[:10], *(inner.bytes(LENGTH) for _ in range(COUNT - 20)), *edge[10:]]


def _fill(folder: Path, name: str, seed: int) -> None:
    images = _images(seed)
    if name.endswith(("parquet", "arrow")):
        write_table(folder / name, {"jpg": images}, block=COUNT if "parquet" in name else 7)
        return
    members = {f"{number:02d}.jpg": image for number, image in enumerate(images)}
    write_tar(folder / name, members)


@pytest.mark.parametrize("name", ["1.tar", "0.tar.gz", "t.parquet", "t.arrow"])
def test_other_images_of_the_same_number_and_names_change_it(tmp_path: Path, name: str) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    if name == "1.tar":
        _fill(pool, "0.tar", 0)
    _fill(pool, name, 0)
    before, ids = open_pool(pool).fingerprint(), list(open_pool(pool).ids())
    assert before
    copy = shutil.copytree(pool, tmp_path / "elsewhere" / "other name")
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    assert open_pool(copy).fingerprint() == before
    assert SubsetPool(open_pool(pool), ["0"]).fingerprint() == before
    _fill(pool, name, 1)
    assert list(open_pool(pool).ids()) == ids
    assert open_pool(pool).fingerprint() != before


def test_names_count_from_the_pools_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        _fill(tmp_path, f"{seed}.tar", seed)
    before = open_pool(tmp_path).fingerprint()
    monkeypatch.chdir(tmp_path)
    assert open_pool(".").fingerprint() == open_pool("{0..1}.tar").fingerprint() == before
    for old, new in (("0.tar", "x"), ("1.tar", "0.tar"), ("x", "1.tar")):
        Path(old).rename(new)
    assert open_pool(tmp_path).fingerprint() != before


def test_the_whole_of_a_long_parquet_footer_counts(tmp_path: Path) -> None:
    many = {f"{n}": [0.5] for n in range(600)}
    prints, files = set(), []
    for image in (b"x", b"y"):
        columns = dict(list(many.items())[:150]) | {"jpg": [image]} | many
        path = write_table(tmp_path / "t.parquet", columns)
        prints.add(open_pool(path).fingerprint())
        files.append(path.read_bytes())
    assert len(prints) == 2
    assert len(files[0]) == len(files[1])
    assert files[0][:4096] == files[1][:4096]
    assert files[0][-(1 << 16) :] == files[1][-(1 << 16) :]


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("l.csv", b"id,path\n1,a.jpg\n", b"id,path\n1,b.jpg\n"),
        ("l.json", b'[{"image": "a.jpg", "box": [0, 0, 8, 8]}]',
         b'[{"image": "a.jpg", "box": [0, 0, 8, 8]}] '),
    ],
)  # fmt: skip
def test_a_list_has_one_by_its_text_and_a_folder_none(
    tmp_path: Path, name: str, one: bytes, other: bytes
) -> None:
    write(tmp_path / "pool/a.jpg")
    before = open_pool(write(tmp_path / name, one)).fingerprint()
    assert open_pool(write(tmp_path / f"copy of {name}", one)).fingerprint() == before != ""
    assert open_pool(write(tmp_path / name, other)).fingerprint() != before
    assert open_pool(tmp_path / "pool").fingerprint() == ""
