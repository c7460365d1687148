"""Labels as lloss writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import ObjectLabel
from lloss.annotations.lloss_json import parse_archive, write_labels
from lloss.annotations.problems import Problems
from lloss.data.object_labels import open_objects, read_objects
from lloss.data.pose_labels import join_persons, read_persons
from lloss.errors import LabelError
from lloss.pools import open_pool


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
    with pytest.raises(LabelError, match="holds labels of objects, not of persons"):
        read_persons(path, Problems())
    with pytest.raises(LabelError, match="holds labels without images"):
        open_objects(str(path), Problems())


def test_persons_come_back_and_join_their_pool(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    picture(tmp_path / "ü.jpg")
    pool = as_json(tmp_path / "a.json", [person("ü.jpg"), person("ü.jpg", center=[3.3, 9])])
    labels = read_persons(pool, Problems())
    path = tmp_path / "labels.json"
    write_labels(labels, path)
    assert same(read_persons(path, Problems()), labels)
    found = join_persons(open_pool(pool), read_persons(path, Problems()), "labels", Problems())
    assert [item.id for item in found.items] == list(labels)
    with pytest.raises(LabelError, match="holds labels of persons, not of objects"):
        read_objects(path, Problems())
    objects = ObjectLabel((), np.zeros((0, 4), np.float32), np.zeros(0, bool), np.zeros(0, bool))
    with pytest.raises(LabelError, match="of objects and of persons"):
        write_labels({**labels, "b": objects}, tmp_path / "mixed.json")
    assert not (tmp_path / "mixed.json").exists()


def test_none_at_all_and_files_of_another_kind(tmp_path: Path) -> None:
    write_labels({}, tmp_path / "labels.json")
    for read in (read_objects, read_persons):
        assert read(tmp_path / "labels.json", Problems()) == {}
    assert parse_archive({"images": []}, "a.json") is None
    assert parse_archive([], "a.json") is None
    with pytest.raises(LabelError, match="holds labels of no known kind"):
        parse_archive({"lloss": "labels", "kind": "masks", "labels": {}}, "a.json")


OBJECTS = {
    "names": ["cat", "dog"],
    "boxes": [[0, 0, 9, 9], [1, 2, 3, 4.5]],
    "difficult": [False, True],
    "crowd": [False, False],
    "size": [30, 40],
}
DAMAGED_OBJECTS: list[tuple[dict[str, Any], str]] = [
    ({"boxes": [[0, 0, 9, 9], [1, math.nan, 3, 4]]}, r"boxes\[1\]\[1\]: nan: expected float"),
    ({"boxes": [[0, 0, 99, 9]] * 2}, r"boxes\[0\]: .* outside the image of 40×30"),
    ({"boxes": [[0, 0, 9, 9]]}, "boxes: 1 values, but 2 names"),
    ({"size": [30, 0]}, r"size\[1\]: 0: expected int >= 1"),
    ({"size": ...}, "lacks the key 'size'"),
]
PERSON = {
    "image": "a.jpg",
    "region": [-3, 4, 50],
    "names": ["nose", "l-hip"],
    "joints": [[1, 2], [3.5, 4]],
    "annotated": [True, False],
    "head": 12.5,
}
DAMAGED_PERSONS: list[tuple[dict[str, Any], str]] = [
    ({"joints": [[1, math.inf], [3, 4]]}, r"joints\[0\]\[1\]: inf: expected float"),
    ({"names": ["nose", "nose"]}, "names: two joints have one name"),
    ({"region": [1, 2, 0]}, r"region\[2\]: 0: expected int >= 1"),
    ({"head": 0}, "head: 0: expected float > 0"),
]


@pytest.mark.parametrize(
    ("kind", "changed", "what"),
    [("objects", *case) for case in DAMAGED_OBJECTS]
    + [("persons", *case) for case in DAMAGED_PERSONS],
)
def test_a_damaged_label_is_named_with_its_file_and_key(
    tmp_path: Path, as_json: Any, kind: str, changed: dict[str, Any], what: str
) -> None:
    plain = OBJECTS if kind == "objects" else PERSON
    read: Any = read_objects if kind == "objects" else read_persons
    head = {"lloss": "labels", "kind": kind}
    path = as_json(tmp_path / "labels.json", {**head, "labels": {"é.jpg": plain}})
    assert json.loads(str(read(path, Problems())["é.jpg"])) == plain
    fields = {key: value for key, value in {**plain, **changed}.items() if value is not ...}
    as_json(path, {**head, "labels": {"é.jpg": fields}})
    with pytest.raises(LabelError, match=f"labels.json: the label of 'é.jpg' is damaged: {what}"):
        read(path, Problems())
