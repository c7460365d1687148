from __future__ import annotations

from pathlib import Path

import pytest

from lloss.annotations import Problems
from lloss.data.class_folders import class_folders
from lloss.errors import LabelError, PoolError


def _tree(root: Path, *ids: str) -> Path:
    for id in ids:
        (root / id).parent.mkdir(parents=True, exist_ok=True)
        (root / id).write_bytes(b"")
    return root


def _read(root: Path) -> tuple[dict[str, str], list[str]]:
    problems = Problems()
    items, labels = class_folders(root, problems)
    return {item.id: label for item, label in zip(items, labels)}, problems.notes


@pytest.mark.parametrize(
    ("ids", "reported"),
    [
        (("train/cat/1.png", "train/dog/1.png", "val/cat/1.png"), "'train' and 'val' are splits"),
        (("train/cat/1.png", "val/cat/1.png", "test/cat/1.png"), "'train' and 'val' and 'test'"),
        (("Training/cat/1.png", "Testing/dog/1.png"), "give {root}/Training as the data and"),
        (("cat/train/1.png", "cat/test/2.png", "dog/train/1.png"), "make a tree of classes for"),
        (("train2017/cat/1.png", "val2017/cat/1.png"), "splits"),
        (("test/cat/1.png", "test/dog/1.png"), "give {root}/test as the data"),
        (("train/1.png", "val/2.png"), "splits"),
        (("train/1.png", "test/2.png", "unlabeled/3.png"), "splits"),
        (("labeled/cat/1.png", "unlabeled/1.png"), "'labeled' and 'unlabeled' are splits"),
        (("train/cat/1.png", "train/dog/1.png", "car/1.png"), "'train' is a split"),
    ],
)
def test_splits_are_no_classes(tmp_path: Path, ids: tuple[str, ...], reported: str) -> None:
    with pytest.raises(LabelError) as refused:
        _read(_tree(tmp_path, *ids))
    assert reported.format(root=tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    "ids",
    [
        ("train/1.png", "car/1.png"),
        ("train/1.png", "train/2.png", "bus/1.png", "tram/1.png"),
        ("valid/1.png", "invalid/1.png"),
        ("test/1.png", "control/1.png"),
        ("training_shoe/1.png", "boot/1.png"),
        ("trained/1.png", "untrained/1.png"),
    ],
)
def test_a_class_may_be_called_as_a_split_is(tmp_path: Path, ids: tuple[str, ...]) -> None:
    found, notes = _read(_tree(tmp_path, *ids))
    assert found == {id: id.partition("/")[0] for id in ids} and not notes


def test_images_deeper_than_their_class_are_counted(tmp_path: Path) -> None:
    ids = ("vehicle/train/1.png", "vehicle/car/1.png", "animal/1.png")
    found, (note,) = _read(_tree(tmp_path, *ids))
    assert found == {id: id.partition("/")[0] for id in ids}
    assert "2 of 3 images are deeper than their class folder ('vehicle/car/1.png'" in note


def test_folders_of_one_name_are_one_class_and_are_named(tmp_path: Path) -> None:
    ids = ("caf\u00e9/1.png", "cafe\u0301/2.png", "dog/1.png", "dog /2.png")
    found, notes = _read(_tree(tmp_path, *ids))
    assert sorted(found.values()) == ["caf\u00e9", "caf\u00e9", "dog", "dog"]
    assert any(r"'cafe\u0301', 'caf\xe9' are one class" in note for note in notes)
    assert any("'dog', 'dog ' are one class, 'dog'" in note for note in notes)


@pytest.mark.parametrize("name", [" ", "\u200b", "\u00a0"])
def test_a_class_folder_without_a_visible_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LabelError, match="has no visible name"):
        _read(_tree(tmp_path, f"{name}/1.png", "cat/1.png"))


def test_an_image_outside_of_class_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="no image"):
        _read(tmp_path)
    with pytest.raises(LabelError, match=r"'stray\.jpg' is not in a class folder"):
        _read(_tree(tmp_path, "cat/2.jpg", "stray.jpg"))
