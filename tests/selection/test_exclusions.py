"""Files of --exclude leave out what training on them uses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.errors import LabelError
from lloss.scores.scores_folder import ScoresFolder, scores_table
from lloss.selection.exclusions import find_excluded, read_excluded

BOX = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
KEYPOINTS = {"keypoints": [3, 3, 2], "num_keypoints": 1}
COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a/1.jpg", "width": 9, "height": 9},
        {"id": 2, "file_name": "2.jpg", "width": 9, "height": 9},
    ],
    "categories": [{"id": 1, "name": "dog", "keypoints": ["nose"], "skeleton": []}],
    "annotations": [{"id": 1, **BOX}],
}
MPII = {
    "image": "p.jpg",
    "center": [20.0, 20.0],
    "scale": 0.1,
    "joints": [[5.0, 5.0]] * 16,
    "joints_vis": [1] * 16,
}


def _written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def _named(path: Path) -> set[tuple[str, ...]]:
    (file,) = read_excluded([path], Problems(skip=True))
    return set(file.names.values())


def _write(folder: Path, kind: str) -> Path:
    """Labels of every kind that names images."""
    path = folder / "labels.json"
    documents = {
        "objects": COCO,
        "keypoints": {**COCO, "annotations": [{"id": 1, **BOX, **KEYPOINTS}]},
        "persons": [MPII, {**MPII, "image": "q.jpg", "joints_vis": [0] * 16}],
        "cycle's masks": {"z.jpg": {"path": "/m/z.png", "sha256": "ab", "names": {"0": "sky"}}},
    }
    if kind == "voc":
        path.with_suffix("").mkdir()
        text = "<annotation><filename>1.jpg</filename></annotation>"
        (path.with_suffix("") / "one.xml").write_text(text)
        return path.with_suffix("")
    elif kind == "masks":
        (folder / "masks" / "in").mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "masks" / "in" / "1.png")
        return folder / "masks"
    else:
        _written(path, documents[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("objects", {("a/1.jpg",), ("2.jpg",)}),
        ("keypoints", {("a/1.jpg@1,1,5,5", "a/1.jpg")}),
        ("persons", {("p.jpg@20,20,0.1", "p.jpg")}),
        ("cycle's masks", {("z.jpg",)}),
        ("voc", {("one",)}),
        ("masks", {("in/1.png",)}),
    ],
)
def test_labels_of_every_kind_name_images(
    tmp_path: Path, kind: str, names: set[tuple[str, ...]]
) -> None:
    assert _named(_write(tmp_path, kind)) == names


def test_images_of_broken_annotations_are_named_too(tmp_path: Path) -> None:
    wide = {**COCO["annotations"][0], "bbox": [1, 1, 500, 5]}
    problems = Problems(skip=True)
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "one.xml").write_text("<annotation><filename>1.jpg</filename><object/>"
                                              "</annotation>")  # fmt: skip
    (tmp_path / "xml" / "two.xml").write_text("<annotation>")
    coco = _written(tmp_path / "o.json", {**COCO, "annotations": [wide]})
    files = read_excluded([coco, tmp_path / "xml"], problems)
    assert [set(file.names.values()) for file in files] == [
        {("a/1.jpg",), ("2.jpg",)},
        {("one",), ("two",)},
    ]
    assert len(problems.broken) == 3 and "are excluded all the same" in problems.notes[-1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelError, match="holds neither VOC XML, YOLO text nor masks"):
        read_excluded([tmp_path / "empty"], Problems())


@pytest.mark.parametrize(
    "document", [[], {}, 3, {"a": "b" * 5000}, ["x" * 5000] * 9, {"images": [], "annotations": []}]
)
def test_a_json_without_ids_is_one_short_line(document: Any, tmp_path: Path) -> None:
    path = _written(tmp_path / "odd.json", document)
    with pytest.raises(LabelError) as reported:
        read_excluded([path], Problems(skip=True))
    assert len(str(reported.value)) < 200 + len(str(path)) and "\n" not in str(reported.value)


def _found(ids: list[str], *files: Path, problems: Problems | None = None) -> set[str]:
    problems = problems or Problems(skip=True)
    return find_excluded(read_excluded(files, problems), partial(iter, ids), "the pool", problems)


def test_names_of_several_files_are_looked_up_together(tmp_path: Path) -> None:
    (tmp_path / "done.csv").write_text("id,label\nu.jpg,\nw.jpg,\n")
    path, problems = _written(tmp_path / "O.JSON", COCO), Problems()
    ids = ["u.jpg", "x/2.jpg", "x/9.jpg", "b/1.jpg"]
    found = _found(ids, tmp_path / "done.csv", path, problems=problems)
    assert found == {"u.jpg", "x/2.jpg"}
    assert problems.notes[-2:] == [
        "2 of 4 ids to exclude match nothing in the pool (the first: 'w.jpg')",
        "1 excluded by name (the first: '2.jpg' is 'x/2.jpg')",
    ]


def test_an_id_that_is_nearly_there_is_said_to_be(tmp_path: Path) -> None:
    path, problems = tmp_path / "done.csv", Problems()
    path.write_text("id\ncafe\u0301.jpg\na/b.jpg\n", encoding="utf-8")
    _found(["caf\u00e9.jpg", "c/b.jpg"], path, problems=problems)
    path.write_text("id\nx.jpg\na/b.jpg\n")
    _found(["x.jpg", "c/b.jpg"], path, problems=problems)
    near, other = problems.notes
    assert near.startswith("none of the 2 ids to exclude is in the pool (the first: 'caf")
    assert "the nearest is 'caf" in near and "Unicode form" in near
    assert "(the first: 'a/b.jpg'; the nearest is 'c/b.jpg': compare folder" in other


def test_a_name_in_doubt_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "o.json", COCO)
    with pytest.raises(LabelError, match=r"o\.json: '2\.jpg': may be 'x/2\.jpg' or 'y/2\.jpg'"):
        _found(["x/2.jpg", "y/2.jpg"], path)
    assert _found(["x/2.jpg", "2.jpg"], path) == {"2.jpg"}


def test_a_person_is_left_out_of_persons_and_its_image_of_images(tmp_path: Path) -> None:
    path = _written(tmp_path / "m.json", [MPII])
    assert _found(["in/p.jpg@20,20,0.1", "in/p.jpg@2,2,0.1"], path) == {"in/p.jpg@20,20,0.1"}
    assert _found(["in/p.jpg", "q.jpg"], path) == {"in/p.jpg"}


def test_the_suffix_of_a_mask_is_not_its_images(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "masks" / "1.png")
    assert _found(["x/1.jpg", "x/2.png"], tmp_path / "masks") == {"x/1.jpg"}
    with pytest.raises(LabelError, match=r"may be 'x/1\.jpg' or 'y/1\.png'"):
        _found(["x/1.jpg", "y/1.png"], tmp_path / "masks")


def test_an_image_that_could_not_be_scored_may_be_named(tmp_path: Path) -> None:
    folder, path, problems = ScoresFolder(tmp_path), tmp_path / "done.csv", Problems()
    table = scores_table(["in/1.png", "in/2.png"], {"loss": np.zeros(2, np.float32)})
    folder.write_part(0, table, [("in/bad.png", "no image")])
    path.write_text("id\n2.png\nin/bad.png\nno.png\n")
    found = find_excluded(read_excluded([path], problems), folder.ids, "the scores", problems)
    assert found == {"in/2.png", "in/bad.png"}
    assert problems.notes == [
        "1 of 3 ids to exclude matches nothing in the scores (the first: 'no.png')",
        "1 excluded by name (the first: '2.png' is 'in/2.png')",
    ]


def test_a_file_that_names_no_image_is_noted(tmp_path: Path) -> None:
    path, problems = tmp_path / "labels.csv", Problems(skip=True)
    path.write_text("id,label\n")
    files = read_excluded([path], problems)
    assert find_excluded(files, partial(iter, ["1.png"]), "the scores", problems) == set()
    assert problems.notes == [f"{path}: names no image to exclude"]


@pytest.mark.parametrize("kind", ["objects", "masks"])
@pytest.mark.parametrize("empty", ["", "background", "unlabeled"])
def test_labels_that_show_nothing_are_left_out_or_not(
    tmp_path: Path, kind: str, empty: str
) -> None:
    if kind == "objects":
        path = _written(tmp_path / "labels.json", COCO)
    else:
        path = tmp_path / "masks"
        (path / "a").mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path / "a" / "1.png")
        Image.fromarray(np.full((4, 4), 255, np.uint8)).save(path / "2.png")
    problems = Problems(skip=True)
    files = read_excluded([path], problems, empty)
    ids = partial(iter, ["a/1.jpg", "2.jpg", "3.jpg"])
    left_out = find_excluded(files, ids, "the pool", problems)
    assert left_out == ({"a/1.jpg"} if empty == "unlabeled" else {"a/1.jpg", "2.jpg"})
    what = "pixel of a class" if kind == "masks" else "object"
    notes = [note for note in problems.notes if f"1 of 2 labeled images show no {what}" in note]
    # Masks are not read where nothing in them matters.
    assert len(notes) == (kind != "masks" or empty == "unlabeled")
