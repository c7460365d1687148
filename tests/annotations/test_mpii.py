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

from lloss.annotations.joint_names import MPII
from lloss.annotations.problems import Problems
from lloss.data.pose_labels import read_persons
from lloss.errors import LabelError

from ..annotation_files import check_broken

Write = Callable[[Path, Any], Path]


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
def test_a_hand_worked_region(
    tmp_path: Path, as_json: Write, person: Any, center: list[int], region: tuple[int, ...]
) -> None:
    path = as_json(tmp_path / "train.json", [person(center=center)])
    ((id, label),) = read_persons(path, Problems()).items()
    assert id == f"a.jpg@{center[0]},50,0.5" and label.image == "a.jpg"
    assert label.region is not None and label.region.as_tuple() == region


def test_joints_are_centres_from_half(tmp_path: Path, as_json: Write, person: Any) -> None:
    entry = person(joints_vis=[1] * 15 + [0])
    entry["joints"][0] = [1, 1]
    entry["joints"][15] = [-1, -1]
    (label,) = read_persons(as_json(tmp_path / "a.json", [entry]), Problems()).values()
    assert label.names == MPII
    assert label.joints.dtype == np.float32
    assert label.joints[:2].tolist() == [[0.5, 0.5], [10.5, 20.0]]
    assert label.annotated.tolist() == [True] * 15 + [False]
    assert label.head == pytest.approx(math.hypot(1, 0.5))  # from the upper neck to the head's top


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"head_box": [10, 10, 40, 50]}, 30),
        ({"joints_vis": [1] * 9 + [0] * 7}, math.nan),
        ({"joints": [[5, 5]] * 16}, math.nan),
    ],
)
def test_the_head_is_an_entrys_own(
    tmp_path: Path, as_json: Write, person: Any, fields: Any, size: float
) -> None:
    path = as_json(tmp_path / "a.json", [person(**fields)])
    (label,) = read_persons(path, Problems()).values()
    assert label.head == pytest.approx(size, nan_ok=True)


def test_ids_do_not_depend_on_how_numbers_are_written(
    tmp_path: Path, as_json: Write, person: Any
) -> None:
    for centre, scale, id in (
        ([100, 50], 0.5, "a.jpg@100,50,0.5"),
        ([100.0, 50.0], 0.5, "a.jpg@100,50,0.5"),
        ([1 / 3, -0.0], 0.1 + 0.2, "a.jpg@0.3333333333,0,0.3"),
    ):
        path = as_json(tmp_path / "a.json", [person(center=centre, scale=scale)])
        assert list(read_persons(path, Problems())) == [id]


def joint(number: int, value: Any) -> list[Any]:
    joints: list[Any] = [[10.0 + n, 20.0] for n in range(16)]
    joints[number] = value
    return joints


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "null joint": ({"joints": joint(3, None)}, "[1].joints[3]", "expected array"),
    "shares": ({"joints": [[n / 16, 0.5] for n in range(16)]}, "[1].joints", "give pixels"),
    "few": ({"joints": [[1, 2]] * 14}, "[1].joints", "array of length >= 16"),
    "no flags": ({"joints_vis": ...}, "[1]", "lacks the key 'joints_vis'"),
    "no image": ({"image": ...}, "[1]", "lacks the key 'image'"),
    "no centre": ({"center": ...}, "[1]", "lacks the key 'center'"),
    "scale": ({"scale": 0}, "[1].scale", "a region of 0 pixels a side"),
    "large": ({"scale": 1e6}, "[1].scale", "over 13377"),
    "twice": ({"center": [100, 50.0]}, "[1]", "'a.jpg@100,50,0.5' is at [0] too"),
    "turned head": ({"head_box": [9, 2, 3, 7]}, "[1].head_box", "9, 2, 3, 7 (edges) has no area"),
    "other keys": ({"objpos": [1, 2], "joint_self": []}, "[1]", "the key 'joint_self' is not read"),
    "head size": ({"head_size": 12}, "[1]", "the key 'head_size' is not read"),
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
