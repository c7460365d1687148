"""A pool's fingerprint changes with its images, and not with its place."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lloss.pools import SubsetPool, open_pool

COUNT, LENGTH = 40, 3000


def _images(seed: int) -> list[bytes]:
    """Of the same sizes for any seed; the first and the last ones are the same too."""
    ends, inner = np.random.default_rng(0), np.random.default_rng(seed)
    edge = [ends.bytes(LENGTH) for _ in range(20)]
    return [*edge[:10], *(inner.bytes(LENGTH) for _ in range(COUNT - 20)), *edge[10:]]


def _tar(path: Path, images: list[bytes], mode: Any = "w") -> None:
    with tarfile.open(path, mode) as tar:
        for number, image in enumerate(images):
            info = tarfile.TarInfo(f"{number:02d}.jpg")
            info.size = len(image)
            tar.addfile(info, io.BytesIO(image))


def _shards(folder: Path, seed: int) -> None:
    _tar(folder / "0.tar", _images(0))
    _tar(folder / "1.tar", _images(seed))


def _gz(folder: Path, seed: int) -> None:
    _tar(folder / "0.tar.gz", _images(seed), "w:gz")


def _parquet(folder: Path, seed: int) -> None:
    pq.write_table(pa.table({"jpg": _images(seed)}), folder / "t.parquet")


def _feather(folder: Path, seed: int) -> None:
    table = pa.table({"jpg": _images(seed)})
    with pa.ipc.new_file(folder / "t.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=7)


def _stream(folder: Path, seed: int) -> None:
    table = pa.table({"jpg": _images(seed)})
    with pa.ipc.new_stream(folder / "t.arrow", table.schema) as file:
        file.write_table(table, max_chunksize=7)


@pytest.mark.parametrize("write", [_shards, _gz, _parquet, _feather, _stream])
def test_other_images_of_the_same_number_and_names_change_it(
    tmp_path: Path, write: Callable[[Path, int], None]
) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    write(pool, 0)
    before, ids = open_pool(pool).fingerprint(), list(open_pool(pool).ids())
    assert before
    shutil.copytree(pool, tmp_path / "elsewhere" / "other name")
    for path in (tmp_path / "elsewhere" / "other name").iterdir():
        os.utime(path, (1, 1))
    assert open_pool(tmp_path / "elsewhere" / "other name").fingerprint() == before
    assert SubsetPool(open_pool(pool), ["0"]).fingerprint() == before
    write(pool, 1)
    assert list(open_pool(pool).ids()) == ids
    assert open_pool(pool).fingerprint() != before


def test_a_relative_path_is_the_same_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _shards(tmp_path, 1)
    before = open_pool(tmp_path).fingerprint()
    monkeypatch.chdir(tmp_path)
    assert open_pool(".").fingerprint() == open_pool("{0..1}.tar").fingerprint() == before


def test_files_that_changed_places_change_it(tmp_path: Path) -> None:
    _shards(tmp_path, 1)
    before = open_pool(tmp_path).fingerprint()
    for old, new in (("0.tar", "x"), ("1.tar", "0.tar"), ("x", "1.tar")):
        (tmp_path / old).rename(tmp_path / new)
    assert open_pool(tmp_path).fingerprint() != before


def test_the_whole_of_a_long_parquet_footer_counts(tmp_path: Path) -> None:
    def write(image: bytes) -> str:
        many = {f"{n}": [0.5] for n in range(600)}
        columns = dict(list(many.items())[:150]) | {"jpg": [image]} | many
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        return open_pool(tmp_path / "t.parquet").fingerprint()

    before = write(b"x")
    first = (tmp_path / "t.parquet").read_bytes()
    assert write(b"y") != before
    second = (tmp_path / "t.parquet").read_bytes()
    assert len(first) == len(second)
    assert first[:4096] == second[:4096]
    assert first[-(1 << 16) :] == second[-(1 << 16) :]


def test_a_list_is_told_by_its_text_and_a_folder_by_nothing(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "l.csv").write_text("id,path\n1,a.jpg\n")
    before = open_pool(tmp_path / "l.csv").fingerprint()
    shutil.copy(tmp_path / "l.csv", tmp_path / "m.csv")
    assert open_pool(tmp_path / "m.csv").fingerprint() == before != ""
    (tmp_path / "l.csv").write_text("id,path\n1,b.jpg\n")
    assert open_pool(tmp_path / "l.csv").fingerprint() != before
    assert open_pool(tmp_path).fingerprint() == ""


def test_a_saved_data_set_is_told_by_its_tables_and_its_order(tmp_path: Path) -> None:
    hf = pytest.importorskip("datasets")
    features = hf.Features({"image": hf.Image()})

    def saved(name: str, seed: int, order: list[int]) -> str:
        rows = [{"bytes": image, "path": None} for image in _images(seed)]
        hf.Dataset.from_dict({"image": rows}, features=features).save_to_disk(tmp_path / name)
        kept = pa.table({"indices": pa.array(order, pa.uint64())})
        with pa.ipc.new_stream(tmp_path / name / "indices.arrow", kept.schema) as file:
            file.write_table(kept)
        state = tmp_path / name / "state.json"
        indices = {"_indices_data_files": [{"filename": "indices.arrow"}] if order else None}
        state.write_text(json.dumps({**json.loads(state.read_text()), **indices}))
        return open_pool(tmp_path / name).fingerprint()

    whole, kept = saved("a", 0, []), saved("b", 0, [3, 1])
    assert len({whole, kept, saved("c", 0, [1, 3]), saved("d", 1, [3, 1]), ""}) == 5
    shutil.copytree(tmp_path / "b", tmp_path / "e")
    assert open_pool(tmp_path / "e").fingerprint() == kept
