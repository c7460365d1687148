"""MPII's JSON, and how a broken entry is named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import PersonLabel
from lloss.annotations.joint_names import MPII
from lloss.annotations.problems import Problems
from lloss.data.pose_labels import read_persons
from lloss.errors import LabelError

from ..annotation_files import check_broken

Write = Callable[[Path, Any], Path]


@pytest.fixture
def read(tmp_path: Path, as_json: Write, person: Any) -> Callable[..., tuple[str, PersonLabel]]:
    """The id and the label of an entry with some fields changed."""

    def read(**changed: Any) -> tuple[str, PersonLabel]:
        path = as_json(tmp_path / "train.json", [person(**changed)])
        ((id, label),) = read_persons(path, Problems()).items()
        return id, label

    return read


@pytest.mark.parametrize(
    ("center", "region"),
    [
        # Scale .5: the centre moves down by 15 * .5 = 7.5 to 57.5, the scale grows to .625, so the
        # side is 125. From 1-based pixels to edges: 99.5, 57. Hence the left edge is 99.5 - 62.5 =
        # 37, and the upper one 57 - 62.5 = -5.5, to the even number of pixels.
        ([100, 50], (37, -6, 125)),
        # A centre of -1 stays: 200 * .5 = 100; -1.5 - 50 = -51.5 and 49.5 - 50 = -.5, both to even.
        ([-1, 50], (-52, 0, 100)),
    ],
)
def test_a_hand_worked_region(read: Any, center: list[int], region: tuple[int, ...]) -> None:
    id, label = read(center=center)
    assert id == f"a.jpg@{center[0]},50,0.5" and label.image == "a.jpg"
    assert label.region.as_tuple() == region


def test_joints_are_centres_from_half(read: Any) -> None:
    joints = [[1, 1], *([10.0 + n, 20.0 + n / 2] for n in range(1, 15)), [-1, -1]]
    _, label = read(joints=joints, joints_vis=[1] * 15 + [0])
    assert label.names == MPII and label.joints.dtype == np.float32
    assert label.joints[:2].tolist() == [[0.5, 0.5], [10.5, 20.0]]
    assert label.annotated.tolist() == [True] * 15 + [False]


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"head_box": [10, 10, 40, 50]}, 30),
        ({}, math.hypot(1, 0.5)),  # from the upper neck to the head's top
        ({"joints_vis": [1] * 9 + [0] * 7}, math.nan),
        ({"joints": [[5, 5]] * 16}, math.nan),
    ],
)
def test_the_head_is_an_entrys_own_or_estimated(read: Any, fields: Any, size: float) -> None:
    assert read(**fields)[1].head == pytest.approx(size, nan_ok=True)


def test_ids_do_not_depend_on_how_numbers_are_written(read: Any) -> None:
    assert read(center=[100.0, 50.0])[0] == "a.jpg@100,50,0.5"
    assert read(center=[1 / 3, -0.0], scale=0.1 + 0.2)[0] == "a.jpg@0.3333333333,0,0.3"


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "null joint": ({"joints": [[9, 9]] * 3 + [None] * 13}, "[1].joints[3]", "expected array"),
    "shares": ({"joints": [[n / 16, 0.5] for n in range(16)]}, "[1].joints", "give pixels"),
    "few": ({"joints": [[1, 2]] * 14}, "[1].joints", "array of length >= 16"),
    "no flags": ({"joints_vis": ...}, "[1]", "lacks the key 'joints_vis'"),
    "no image": ({"image": ...}, "[1]", "lacks the key 'image'"),
    "no centre": ({"center": ...}, "[1]", "lacks the key 'center'; write center and scale (or"),
    "scale": ({"scale": 0}, "[1].scale", "a region of 0 pixels a side"),
    "large": ({"scale": 1e6}, "[1].scale", "over 13377"),
    "twice": ({"center": [100, 50.0]}, "[1]", "'a.jpg@100,50,0.5' is at [0] too"),
    "turned head": ({"head_box": [9, 2, 3, 7]}, "[1].head_box", "9, 2, 3, 7 (edges) has no area"),
    "other keys": ({"objpos": [1, 2], "joint_self": []}, "[1]", "the key 'joint_self' is not read"),
    "head size": ({"head_size": 12}, "[1]", "the key 'head_size' is not read; write image, center "
                  "and scale (or box), joints, joints_vis, head_box"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "where", "what"), BROKEN.values(), ids=BROKEN)
def test_a_broken_person_is_named_or_left_out(
    tmp_path: Path, as_json: Write, person: Any, changed: dict[str, Any], where: str, what: str
) -> None:
    document = [person(), person(**{"center": [7, 7], **changed})]
    path = as_json(tmp_path / "train.json", document)
    expected = f"^{re.escape(f'{path}: {where}: ')}.*{re.escape(what)}"
    # Nobody knows which of two is right.
    kept = [] if "is at" in what else ["a.jpg@100,50,0.5"]
    check_broken(partial(read_persons, path), expected, kept)


def test_what_is_no_file_of_persons(tmp_path: Path, as_json: Write) -> None:
    with pytest.raises(LabelError, match="a.json: holds no persons"):
        read_persons(as_json(tmp_path / "a.json", {"people": []}), Problems())
    with pytest.raises(LabelError, match=r"b.json: \[0\]: 3: expected object"):
        read_persons(as_json(tmp_path / "b.json", [3]), Problems())
    assert read_persons(as_json(tmp_path / "c.json", []), Problems()) == {}
