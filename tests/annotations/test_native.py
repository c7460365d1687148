"""Labels as lloss writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lloss.annotations.native import read_native, write_labels
from lloss.annotations.objects import open_objects, read_objects
from lloss.annotations.persons import open_persons, read_persons
from lloss.annotations.problems import Problems
from lloss.errors import LabelError


def same(one: Any, other: Any) -> bool:
    return {id: str(label) for id, label in one.items()} == {
        id: str(label) for id, label in other.items()
    }


def test_objects_come_back(tmp_path: Path, as_json: Any, coco: Any) -> None:
    labels = read_objects(as_json(tmp_path / "coco.json", coco()), Problems())
    path = tmp_path / "out" / "labels.json"
    write_labels(labels, path)
    assert json.loads(path.read_text())["kind"] == "objects"
    assert len(path.read_text().splitlines()) == len(labels) + 2  # a diff shows what is new
    assert same(read_objects(path, Problems()), labels)
    assert same(read_native(path) or {}, labels)
    with pytest.raises(LabelError, match="holds labels of objects, not of persons"):
        read_persons(path, Problems())
    with pytest.raises(LabelError, match="holds labels without images"):
        open_objects(str(path), None, tmp_path, Problems())


def test_persons_come_back_and_join_their_pool(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    picture(tmp_path / "ü.jpg")
    pool = as_json(tmp_path / "a.json", [person("ü.jpg"), person("ü.jpg", center=[3.3, 9])])
    labels = read_persons(pool, Problems())
    path = tmp_path / "labels.json"
    write_labels(labels, path)
    assert same(read_persons(path, Problems()), labels)
    found = open_persons(str(pool), path, tmp_path, Problems())
    assert [item.id for item in found.items] == list(labels)
    with pytest.raises(LabelError, match="holds labels of persons, not of objects"):
        read_objects(path, Problems())
    with pytest.raises(LabelError, match="of two kinds|of objects and of persons"):
        write_labels({**labels, "b": object_label(tmp_path, as_json)}, tmp_path / "mixed.json")
    assert not (tmp_path / "mixed.json").exists()


def object_label(folder: Path, as_json: Any) -> Any:
    document = {"images": [{"id": 1, "file_name": "b"}], "annotations": [], "categories": []}
    return read_objects(as_json(folder / "o.json", document), Problems())["b"]


def test_none_at_all(tmp_path: Path) -> None:
    write_labels({}, tmp_path / "labels.json")
    assert read_objects(tmp_path / "labels.json", Problems()) == {}
    assert read_persons(tmp_path / "labels.json", Problems()) == {}


def test_files_of_another_kind_and_damaged_ones(tmp_path: Path, as_json: Any) -> None:
    assert read_native(as_json(tmp_path / "a.json", {"images": []})) is None
    assert read_native(as_json(tmp_path / "a.json", [])) is None
    head = {"lloss": "labels", "kind": "objects"}
    for labels in ({"a": {}}, {"a": 3}, {"a": {"names": ["x"], "boxes": [[1, 2]]}}):
        path = as_json(tmp_path / "a.json", {**head, "labels": labels})
        with pytest.raises(LabelError, match="the label of 'a' is damaged"):
            read_native(path)
    with pytest.raises(LabelError, match="holds labels of no known kind"):
        read_native(as_json(tmp_path / "a.json", {**head, "kind": "masks", "labels": {}}))
