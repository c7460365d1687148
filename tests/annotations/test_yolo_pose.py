"""YOLO's persons: boxes and keypoints in pixels, the names of the keypoints, and broken rows."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lloss.annotations.joint_names import COCO
from lloss.annotations.problems import Problems
from lloss.data.label_joining import labeled_pool
from lloss.data.pose_labels import join_persons, open_persons, read_persons
from lloss.errors import LabelError
from lloss.pools.person_crop_pool import CropItem

from ..annotation_files import check_broken

NAMES = {0: ["nose", "left_eye", "right_eye"]}
PERSON = (0, 0.5, 0.5, 0.25, 0.4, 0.5, 0.4, 2, 0.55, 0.35, 1, 0, 0, 0)


@pytest.fixture
def dataset(tmp_path: Path, picture: Any) -> Path:
    """Three images to train on: of a person, without a person, and without a label file."""
    root = tmp_path / "set"
    for name in ("a", "b", "c"):
        picture(root / "images" / f"{name}.jpg", 80, 60)
    write_rows(root)
    (root / "labels/b.txt").write_text("")
    write_config(root)
    return root


def write_rows(root: Path, *rows: Any) -> Path:
    path = root / "labels/a.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows or [PERSON]))
    return path


def write_config(root: Path, **changed: Any) -> Path:
    fields = {"train": "images", "names": ["person"], "kpt_shape": [3, 3], "kpt_names": NAMES}
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({**fields, **changed}))
    return path


def opened_ids(data: Path, problems: Problems) -> list[str]:
    return [item.id for item in open_persons(str(data), problems).items]


def test_persons_are_squares_of_their_images(dataset: Path) -> None:
    for data in (dataset, f"{dataset}/data.yaml:train"):
        found = open_persons(str(data), Problems())
        (item,), (label,) = found.items, found.labels
        assert item.id == "images/a.jpg@30,18,20,24" and isinstance(item, CropItem)
        assert label.image == "images/a.jpg" and label.names == tuple(NAMES[0])
        assert np.allclose(label.joints[:2], [[0.5 * 80, 0.4 * 60], [0.55 * 80, 0.35 * 60]])
        assert label.annotated.tolist() == [True, True, False]
        assert label.region is not None and label.region.side == 30  # 1.25 of the longer side
        assert (label.region.left, label.region.top) == (25, 15)
        assert item.read().shape == (30, 30, 3)


def test_labels_of_whole_images_of_a_pool(dataset: Path) -> None:
    labels, problems = dataset / "data.yaml", Problems()
    pool = labeled_pool(dataset / "images", [labels], problems)
    found = join_persons(pool, read_persons(labels, problems), str(labels), problems)
    assert [item.id for item in found.items] == ["a.jpg"]
    assert found.labels[0].region is None


def test_keypoints_without_visibility(dataset: Path) -> None:
    write_rows(dataset, (0, 0.5, 0.5, 0.25, 0.4, 0.5, 0.4, 0, 0, 0.25, 0))
    write_config(dataset, kpt_shape=[3, 2])
    (label,) = open_persons(str(dataset), Problems()).labels
    assert label.annotated.tolist() == [True, False, True]


def test_names_of_the_keypoints(dataset: Path) -> None:
    person = (*PERSON[:5], *(0.5, 0.5, 2) * 17)
    write_rows(dataset, person, (0, 0.25, *PERSON[2:5]))
    config, problems = write_config(dataset, kpt_shape=[17, 3], kpt_names=None), Problems()
    (label,) = open_persons(str(config), problems).labels
    assert label.names == COCO
    assert problems.notes[0].startswith("1 of 2 persons has no annotated joint")
    what = "needs the names of its 17 keypoints"
    for wrong in ({0: ["nose"]}, {0: list(COCO), 1: ["x"]}, "nose"):
        with pytest.raises(LabelError, match=what):
            open_persons(str(write_config(dataset, kpt_shape=[17, 3], kpt_names=wrong)), Problems())
    write_rows(dataset)
    with pytest.raises(LabelError, match="needs the names of its 3 keypoints"):
        open_persons(str(write_config(dataset, kpt_names=None)), Problems())
    with pytest.raises(LabelError, match="lacks kpt_shape"):
        open_persons(str(write_config(dataset, kpt_shape=None)), Problems())


BROKEN = {
    "short": ((0, 0.5, 0.5, 0.25, 0.4, 0.5), "6 numbers; a person takes 14"),
    "box": ((0, 40, *PERSON[2:]), "40 is not a share"),
    "joint": ((0, 0.25, *PERSON[2:5], 40, *PERSON[6:]), "40 is not a share"),
    "word": ((*PERSON[:5], "x", *PERSON[6:]), "'x' is not a number"),
    "no area": ((0, 0.5, 0.5, 0.25, 0, *PERSON[5:]), "the box 30, 30, 20, 0 has no area"),
}


@pytest.mark.parametrize(("row", "what"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_or_left_out(dataset: Path, row: Any, what: str) -> None:
    path = write_rows(dataset, PERSON, row)
    expected = f"^{re.escape(str(path))}, line 2: {what}"
    check_broken(partial(opened_ids, dataset), expected, ["images/a.jpg@30,18,20,24"])


def test_a_person_that_comes_twice_is_named_or_left_out(dataset: Path) -> None:
    other = (0, 0.25, *PERSON[2:])
    write_rows(dataset, PERSON, other, PERSON)
    what = r"a.txt, line 3: 'images/a.jpg@30,18,20,24' is at .*line 1 too"
    check_broken(partial(opened_ids, dataset), what, ["images/a.jpg@10,18,20,24"])


def test_an_unreadable_image_is_named(dataset: Path) -> None:
    (dataset / "images/a.jpg").write_bytes(b"no image")
    with pytest.raises(LabelError, match=r"a.txt: it or its image not an image"):
        open_persons(str(dataset), Problems())
