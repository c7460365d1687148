from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.data import image_overlap as overlap
from lloss.data.image_overlap import (
    find_test_images,
    shared_images,
    traces,
    trained_on,
    trained_on_note,
    without_test_images,
)
from lloss.data.labeled_set import LabeledSet
from lloss.pools import open_pool


def _content(seed: int, size: int = 9000) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _test_set(folder: Path, *seeds: int) -> LabeledSet:
    for seed in seeds:
        _write(folder / f"t{seed}.png", _content(seed))
    items = list(open_pool(folder))
    return LabeledSet(items, ["x"] * len(items), str(folder))


def test_files_are_known_by_links_and_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = _test_set(tmp_path / "pool" / "test", 1, 2)
    pool = tmp_path / "pool"
    _write(pool / "copy.jpg", _content(2))
    _write(pool / "other.png", _content(3))
    _write(pool / "size.png", _content(2, 9001))
    almost = bytearray(_content(2))
    almost[0] ^= 1  # the middle is the same
    _write(pool / "almost.png", bytes(almost))
    (pool / "hard.png").hardlink_to(pool / "test" / "t1.png")
    (pool / "soft.png").symlink_to(pool / "test" / "t1.png")
    (pool / "gone.png").symlink_to("nowhere")
    os.mkfifo(pool / "pipe.png")
    read = set[str]()
    read_file = overlap.read_file
    monkeypatch.setattr(
        overlap,
        "read_file",
        lambda path: read.add(Path(os.fsdecode(path)).name) or read_file(path),
    )
    found = shared_images(open_pool(pool), test.items)
    same = {"copy.jpg": "t2.png", "hard.png": "t1.png", "soft.png": "t1.png"}
    assert found == {**same, "test/t1.png": "t1.png", "test/t2.png": "t2.png"}
    assert read == {"almost.png", "t1.png", "t2.png", *same}  # no other files are read whole


def test_images_within_larger_files_are_known_by_content(tmp_path: Path) -> None:
    test = _test_set(tmp_path / "test", 1, 2)
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for seed in (0, 2, 4):
            info = tarfile.TarInfo(f"{seed}.png")
            info.size = 9000
            tar.addfile(info, io.BytesIO(_content(seed)))
    shards = open_pool(tmp_path / "s.tar")
    assert shared_images(shards, test.items) == {"2": "t2.png"}
    assert shared_images(test.items, shards) == {"t2.png": "2"}


def test_arrays_are_known_by_their_rows(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (6, 40, 50, 3), np.uint8)
    np.save(tmp_path / "pool.npy", rows)
    np.save(tmp_path / "test.npy", rows[[4, 1]])
    np.save(tmp_path / "turned.npy", rows[[4]].reshape(1, 50, 40, 3))
    test = open_pool(tmp_path / "test.npy")
    assert shared_images(open_pool(tmp_path / "pool.npy"), test) == {"1": "1", "4": "0"}
    assert shared_images(open_pool(tmp_path / "turned.npy"), test) == {}


def test_persons_are_known_by_the_image_that_shows_them(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name, seed=ord(name[0]))
    two = [person("a.jpg", center=[20, 9]), person("b.jpg", center=[20, 9])]
    pool = open_pool(as_json(tmp_path / "pool.json", two))
    test = open_pool(as_json(tmp_path / "test.json", [person("a.jpg", center=[9, 9])]))
    assert shared_images(pool, test) == {"a.jpg@20,9,0.5": "a.jpg@9,9,0.5"}


def test_objects_of_a_store_are_known_by_their_urls(tmp_path: Path) -> None:
    files = pytest.importorskip("fsspec").filesystem("memory")
    for name in ("a.png", "test/b.png"):
        files.pipe(f"/overlap/{name}", b"x")
    pool, problems = open_pool("memory://overlap"), Problems()
    test = list(open_pool("memory://overlap/test"))
    found = find_test_images(pool, LabeledSet(test, ["x"], "test"), set(), problems)
    assert found == {"test/b.png"} and "content was not compared" in problems.notes[-1]
    local = _test_set(tmp_path, 1)
    assert find_test_images(pool, local, set(), Problems()) == set()
    files.rm("/overlap", recursive=True)


def test_images_of_the_test_set_are_left_out_of_labels_and_pool(tmp_path: Path) -> None:
    test = _test_set(tmp_path / "pool" / "test", 1, 2)
    for seed in (2, 3, 4):
        _write(tmp_path / "pool" / f"{seed}.png", _content(seed))
    pool, problems = open_pool(tmp_path / "pool"), Problems()
    labeled = LabeledSet(pool.find(["2.png", "3.png", "4.png"]), ["a", "b", "c"], "labels.csv")
    assert without_test_images(labeled, test, problems).labels == ["b", "c"]
    assert without_test_images(labeled.take([1, 2]), test, problems).labels == ["b", "c"]
    own = {"test/t1.png", "test/t2.png"}
    assert find_test_images(pool, test, set(), problems) == {"2.png", *own}
    assert find_test_images(pool, test, own, problems) == {"2.png"}
    labels, every, copies = problems.notes
    assert labels == (
        "labels.csv: 1 of 3 labeled images is in the test set too "
        "(such as '2.png', there 't2.png'): not trained on"
    )
    assert "3 images of the pool are in the test set" in every
    assert "1 image of the pool is in the test set" in copies


def test_images_that_were_trained_on_are_counted_when_measured_on(tmp_path: Path) -> None:
    trained = traces(_test_set(tmp_path / "train", 1, 2, 3).items)
    test = _test_set(tmp_path / "test", 2, 3, 4, 5)
    (tmp_path / "test" / "gone.png").symlink_to("nowhere")
    items = list(open_pool(tmp_path / "test"))
    seen = trained_on(items, trained)
    assert {item.id for item, found in zip(items, seen) if found} == {"t2.png", "t3.png"}
    note = trained_on_note(LabeledSet(items, ["x"] * 5, "test.csv"), seen)
    assert note.startswith("test.csv: 2 of 5 images are among those that the network was trained")
    for others, images in ((test.take([2, 3]), trained), (test, traces([]))):
        assert trained_on_note(others, trained_on(others.items, images)) == ""
