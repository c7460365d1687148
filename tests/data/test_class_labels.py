from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text, read_labels
from lloss.data.class_labels import open_labeled
from lloss.data.labeled_set import LabeledSet, class_names
from lloss.errors import LabelError, LlossError, MissingExtraError, PoolError
from lloss.pools import Item
from lloss.tasks.classification import TASK


def _csv(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def _pool(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def _set(*rows: tuple[str, str]) -> LabeledSet:
    items = [Item(id, lambda: b"") for id, _ in rows]
    return LabeledSet(items, [label for _, label in rows], "rows")


def _opened(pool: Path, table: Path, problems: Problems | None = None) -> LabeledSet:
    return TASK.open(str(pool), table, Path("/nowhere"), problems or Problems())


def test_a_csv_labels_the_items_of_a_pool(tmp_path: Path) -> None:
    pool = _pool(tmp_path / "pool", "a.jpg", "b.jpg", "c/d.jpg")
    table = _csv(tmp_path / "l.csv", "who,id,label\nme,c/d.jpg, dog \nme,a.jpg,cat\n")
    data = _opened(pool, table)
    assert [item.id for item in data.items] == ["c/d.jpg", "a.jpg"]
    assert [item.read() for item in data.items] == [b"c/d.jpg", b"a.jpg"]
    assert list(data.labels) == ["dog", "cat"]
    assert len(data) == 2


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    table = _csv(tmp_path / "l.csv", "\ufeffid,label\r\na.jpg,cat\r\n")
    assert read_labels(table) == {"a.jpg": "cat"}


def test_an_id_may_hold_commas_and_quotes(tmp_path: Path) -> None:
    table = _csv(tmp_path / "l.csv", 'id,label\n"a, ""b"".jpg",cat\n')
    assert read_labels(table) == {'a, "b".jpg': "cat"}


def test_labels_are_not_written_where_they_could_not_be_read_again() -> None:
    assert labels_text({'a, "b"': "x"}) == 'id,label\n"a, ""b""",x\n'
    for id in ("a\nb", "a\rb", "a\0b"):
        with pytest.raises(LlossError, match="has a line break or a NUL in it"):
            labels_text({"c": "x", id: "x"})


def test_header_names_are_found_in_any_case_and_labels_are_stripped(tmp_path: Path) -> None:
    table = _csv(tmp_path / "l.csv", "\ufeffLABEL , Id\n cat\u200b ,a.jpg\ncafe\u0301,b.jpg\n")
    assert read_labels(table) == {"a.jpg": "cat", "b.jpg": "caf\u00e9"}


def test_a_label_of_an_unknown_id_is_named(tmp_path: Path) -> None:
    pool = _pool(tmp_path / "pool", "a.jpg")
    table = _csv(tmp_path / "l.csv", "id,label\na.jpg,cat\nz.jpg,dog\n")
    with pytest.raises(LabelError, match=r"l\.csv.*'z\.jpg'.*look like 'a\.jpg'"):
        _opened(pool, table)


def test_a_column_of_splits_is_noted_as_it_is_not_looked_at(tmp_path: Path) -> None:
    table = _csv(tmp_path / "l.csv", "id,label,Split\na,x,train\nb,y,test\nc,x,train\n")
    problems = Problems()
    assert read_labels(table, problems=problems) == {"a": "x", "b": "y", "c": "x"}
    (note,) = problems.notes
    assert "the column 'Split' ('train': 2, 'test': 1) is not looked at, all rows are" in note
    one = _csv(tmp_path / "m.csv", "id,label,split\na,x,train\nb,y,train\n")
    read_labels(one, problems=problems)
    assert len(problems.notes) == 1


def test_numbers_of_tasks_beside_names_of_images_are_noted(tmp_path: Path) -> None:
    """As ids of an array they would be rows, and every label of the image after its own."""
    tasks = _csv(tmp_path / "l.csv", "image,id,label\na.png,1,cat\nb.png,2,dog\n")
    problems = Problems()
    assert read_labels(tasks, problems=problems) == {"1": "cat", "2": "dog"}
    (note,) = problems.notes
    assert "the column 'image' is not looked at" in note and "call it 'id'" in note
    for text in ("image,id,label\nx,a.png,cat\n", "id,label\n1,cat\n", "id,note,label\n1,x,cat\n"):
        problems = Problems()
        read_labels(_csv(tmp_path / "l.csv", text), problems=problems)
        assert problems.notes == []


def test_a_doubled_id_names_both_lines(tmp_path: Path) -> None:
    table = _csv(tmp_path / "l.csv", "id,label\na.jpg,cat\nb.jpg,cat\na.jpg,cat\n")
    with pytest.raises(LabelError, match=r"'a\.jpg' stands in line 2 and in line 4"):
        read_labels(table)


@pytest.mark.parametrize("row", ["b.jpg,", "b.jpg,  ", ",cat", " ,cat", "b.jpg,\u200b", ","])
def test_an_empty_id_or_label_names_its_line(tmp_path: Path, row: str) -> None:
    with pytest.raises(LabelError, match="line 3: an empty id or label"):
        read_labels(_csv(tmp_path / "l.csv", f"id,label\na.jpg,cat\n{row}\n"))


@pytest.mark.parametrize(("text", "found"), [("id,class\na,b\n", "id, class"), ("", "an empty")])
def test_a_missing_column_names_those_found(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(LabelError, match=rf"'id' and 'label' \(found: {found}"):
        read_labels(_csv(tmp_path / "l.csv", text))


def test_a_table_that_cannot_be_read_is_a_label_error(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no such file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(LabelError, match="is a folder; give a CSV with .* 'id' and 'label'"):
        read_labels(tmp_path)
    with pytest.raises(LabelError, match="line 2: is not UTF-8 text"):
        read_labels(_csv(tmp_path / "l.csv", "id,label\né.jpg,cat\n", "latin-1"))


def test_a_table_without_rows_asks_for_labels(tmp_path: Path) -> None:
    pool = _pool(tmp_path / "pool", "a.jpg")
    with pytest.raises(LabelError, match="no label yet"):
        _opened(pool, _csv(tmp_path / "l.csv", "id,label\n"))


def test_class_folders_label_their_images(tmp_path: Path) -> None:
    _pool(tmp_path, "dog/deep/1.jpg", "cat/2.jpg", "cat/notes.txt")
    data = open_labeled(str(tmp_path))
    assert [item.id for item in data.items] == ["cat/2.jpg", "dog/deep/1.jpg"]
    assert list(data.labels) == ["cat", "dog"]


def test_an_image_outside_the_class_folders_is_named(tmp_path: Path) -> None:
    _pool(tmp_path, "cat/2.jpg", "stray.jpg")
    with pytest.raises(LabelError, match=r"'stray\.jpg' lies in no class folder"):
        open_labeled(str(tmp_path))


def test_class_folders_without_images_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(PoolError, match="no image"):
        open_labeled(str(tmp_path))


@pytest.mark.parametrize("labels", [[3, 10, 3], ["cat", "dog", "cat"]])
def test_an_npz_carries_its_labels(tmp_path: Path, labels: list[Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.array(labels))
    data = open_labeled(str(tmp_path / "d.npz"))
    assert list(data.labels) == [str(label) for label in labels]
    assert [item.id for item in data.items] == ["0", "1", "2"]
    assert np.array_equal([np.asarray(item.read()) for item in data.items], images)


def test_an_npz_with_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    for labels in (np.arange(2), np.zeros((3, 1), int), np.array(3)):
        np.savez(tmp_path / "d.npz", images=np.zeros((3, 4, 4, 3), np.uint8), labels=labels)
        with pytest.raises(LabelError, match="3 images, but labels of shape"):
            open_labeled(str(tmp_path / "d.npz"))


def test_an_npz_with_fractions_for_labels_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((1, 4, 4, 3), np.uint8), labels=np.array([0.5]))
    with pytest.raises(LabelError, match="float64"):
        open_labeled(str(tmp_path / "d.npz"))


def test_an_npz_with_an_empty_label_is_refused(tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "d.npz", images=images, labels=np.array(["cat", "", "dog"]))
    with pytest.raises(LabelError, match="empty"):
        open_labeled(str(tmp_path / "d.npz"))


def test_an_npz_without_labels_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(PoolError, match="no array 'labels'"):
        open_labeled(str(tmp_path / "d.npz"))


def test_data_without_labels_asks_for_a_table(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(LabelError, match=r"add --labels labels\.csv"):
        open_labeled(str(tmp_path / "d.npy"))
    with pytest.raises(PoolError, match="no such labeled data"):
        open_labeled(str(tmp_path / "none"))


def test_numbers_are_classes_in_the_order_of_numbers() -> None:
    assert class_names(["10", "9", "cat", "Ant", "0", "9"]) == ("0", "9", "10", "Ant", "cat")


def test_a_class_name_of_very_many_digits_is_a_class_name() -> None:
    assert set(class_names(["9" * 5000, "1"])) == {"1", "9" * 5000}


def test_the_digest_does_not_depend_on_the_order_but_on_ids_and_labels() -> None:
    one = _set(("a", "cat"), ("b", "dog"))
    assert one.sha256 == _set(("b", "dog"), ("a", "cat")).sha256
    others = [
        _set(("a", "dog"), ("b", "cat")),
        _set(("a", "cat"), ("c", "dog")),
        _set(("a", "cat")),
        _set(("a", "cat"), ("b", "dog"), ("b", "dog")),
        _set(("aca", "t"), ("b", "dog")),
    ]
    assert len({one.sha256, *(other.sha256 for other in others)}) == 6


def test_some_rows_of_a_set_keep_items_and_labels_together() -> None:
    part = _set(("a", "cat"), ("b", "dog"), ("c", "cow")).take([2, 0])
    assert [item.id for item in part.items] == ["c", "a"]
    assert list(part.labels) == ["cow", "cat"]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_torchvisions_sets_come_by_name_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[tuple[Path, bool]] = []
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)

    def fake(root: Path, train: bool, download: bool) -> Any:
        asked.append((root, train))
        fields = {"data": images, "targets": [1, 0, 1], "classes": ["plane", "car"]}
        return type("Fake", (), fields)()

    monkeypatch.setattr(torchvision.datasets, name.upper(), fake)
    for data, train in ((name, True), (f"{name}:train", True), (f"{name}:test", False)):
        found = open_labeled(data, data_root=tmp_path)
        assert asked.pop() == (tmp_path, train)
        assert list(found.labels) == ["car", "plane", "car"]
        assert np.array_equal([np.asarray(item.read()) for item in found.items], images)


def test_an_unknown_split_is_refused_without_a_download() -> None:
    with pytest.raises(PoolError, match="cifar10:train or cifar10:test"):
        open_labeled("cifar10:val")


def test_a_download_that_fails_is_a_pool_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(PoolError, match=r"cannot be downloaded.*no network"):
        open_labeled("cifar10", data_root=tmp_path)


def test_without_torchvision_the_extra_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "torchvision":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'lloss\[train\]'"):
        open_labeled("cifar10", data_root=tmp_path)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("a\0x\nb", "y")], [("a", "x"), ("b", "y")]),
        ([("a", "x\0y")], [("a\0x", "y")]),
        ([("a", "x\nb\0y")], [("a", "x"), ("b", "y")]),
        ([("1", "x")], [("1", "x "), ("", "")]),
    ],
)
def test_sets_of_any_characters_have_digests_of_their_own(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    assert _set(*one).sha256 != _set(*other).sha256


def test_ids_that_are_no_utf8_have_a_digest_too() -> None:
    assert _set(("\udcff", "x")).sha256 != _set(("\udcfe", "x")).sha256


def test_a_set_is_put_in_the_order_of_its_ids() -> None:
    ordered = _set(("b", "dog"), ("a\0", "cat"), ("a", "cow")).ordered()
    assert [item.id for item in ordered.items] == ["a", "a\0", "b"]
    assert list(ordered.labels) == ["cow", "cat", "dog"]
