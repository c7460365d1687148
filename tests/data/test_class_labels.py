"""Images labeled with a class each, from wherever the labels are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from lloss.annotations import Problems
from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet
from lloss.errors import LabelError, LlossError, MissingExtraError, PoolError
from lloss.tasks.classification import TASK


def _pool(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def _opened(pool: Path, table: str) -> LabeledSet:
    path = pool.parent / "l.csv"
    path.write_text(table)
    return TASK.open(str(pool), path, Path("/nowhere"), Problems())


def test_a_csv_labels_the_items_of_a_pool(tmp_path: Path) -> None:
    pool = _pool(tmp_path / "pool", "a.jpg", "b.jpg", "c/d.jpg")
    data = _opened(pool, "who,id,label\nme,c/d.jpg, dog \nme,a.jpg,cat\n")
    assert [item.id for item in data.items] == ["c/d.jpg", "a.jpg"]
    assert list(data.labels) == ["dog", "cat"]
    with pytest.raises(LabelError, match=r"l\.csv.*'z\.jpg'.*look like 'a\.jpg'"):
        _opened(pool, "id,label\na.jpg,cat\nz.jpg,dog\n")
    with pytest.raises(LabelError, match="no label yet"):
        _opened(pool, "id,label\n")


def test_class_folders_label_their_images(tmp_path: Path) -> None:
    data = open_labeled(str(_pool(tmp_path / "a", "dog/deep/1.jpg", "cat/2.jpg", "cat/notes.txt")))
    assert [item.id for item in data.items] == ["cat/2.jpg", "dog/deep/1.jpg"]
    assert list(data.labels) == ["cat", "dog"]


@pytest.mark.parametrize("labels", [[3, 10, 3], ["cat", "dog", "cat"]])
def test_an_npz_carries_its_labels(tmp_path: Path, labels: list[Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.array(labels))
    data = open_labeled(str(tmp_path / "d.npz"))
    assert list(data.labels) == [str(label) for label in labels]
    assert [item.id for item in data.items] == ["0", "1", "2"]
    assert np.array_equal([np.asarray(item.read()) for item in data.items], images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(2), "3 images, but labels of shape"),
        (np.array([0.5, 1, 2]), "float64"),
        (np.array(["cat", "", "dog"]), "the label of image 1 is empty"),
        (None, "no array 'labels'"),
    ],
)
def test_an_npz_without_a_label_an_image_is_refused(
    tmp_path: Path, labels: Any, message: str
) -> None:
    arrays = {"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": labels}
    np.savez(tmp_path / "d.npz", **{n: one for n, one in arrays.items() if one is not None})
    with pytest.raises(LlossError, match=message):
        open_labeled(str(tmp_path / "d.npz"))


def test_data_without_labels_asks_for_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(LabelError, match=r"add --labels labels\.csv"):
        open_labeled(str(tmp_path / "d.npy"))
    with pytest.raises(PoolError, match="no such labeled data; give a folder or"):
        open_labeled(str(tmp_path / "none"))


def test_torchvisions_sets_come_by_name_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "cifar100"
    calls: list[tuple[Path, bool]] = []
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)

    def fake(root: Path, train: bool, download: bool) -> Any:
        calls.append((root, train))
        fields = {"data": images, "targets": [1, 0, 1], "classes": ["plane", "car"]}
        return type("Fake", (), fields)()

    monkeypatch.setattr(torchvision.datasets, name.upper(), fake)
    for data, train in ((name, True), (f"{name}:train", True), (f"{name}:test", False)):
        found = open_labeled(data, data_root=tmp_path)
        assert calls.pop() == (tmp_path, train)
        assert list(found.labels) == ["car", "plane", "car"]
        assert np.array_equal([np.asarray(item.read()) for item in found.items], images)
    with pytest.raises(PoolError, match=f"{name}:train or {name}:test"):
        open_labeled(f"{name}:val")


def test_a_set_that_cannot_be_downloaded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(PoolError, match=r"cannot be downloaded.*no network"):
        open_labeled("cifar10", data_root=tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lloss\[train\]'"):
        open_labeled("cifar10", data_root=tmp_path)
