"""Labeled sets of persons: files of their own, and labels beside a pool."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations.problems import Problems
from lloss.data.label_joining import labeled_pool
from lloss.data.pose_labels import join_persons, open_persons, read_persons
from lloss.errors import LabelError, PoolError
from lloss.images.decode import decode_whole
from lloss.pools import open_pool
from lloss.pools.person_crop_pool import CropItem

from ..annotation_files import check_broken


def opened(data: Path | str, problems: Problems | None = None, labels: Path | None = None) -> Any:
    problems = problems or Problems()
    if labels is None:
        return open_persons(str(data), problems)
    pool = labeled_pool(data, [labels], problems)
    return join_persons(pool, read_persons(labels, problems), str(labels), problems)


def opened_ids(data: Path | str, labels: Path | None, problems: Problems) -> list[str]:
    return [item.id for item in opened(data, problems, labels).items]


@pytest.mark.parametrize("folder", ["images", "../photos"])
def test_a_file_of_persons_is_pool_and_labels(
    tmp_path: Path, folder: str, picture: Any, as_json: Any, person: Any
) -> None:
    people = [
        person("a.jpg", center=[20, 9], scale=0.1),
        person("in/b.jpg", center=[9, 9], scale=0.05, joints=..., joints_vis=...),
        person("a.jpg", center=[1, 2], scale=0.1),
    ]
    path = as_json(tmp_path / "annot" / "train.json", people)
    picture(path.parent / folder / "a.jpg")
    data = f"{path}?image={folder}" if "photos" in folder else str(path)
    found = opened(data)
    assert [item.id for item in found.items] == ["a.jpg@20,9,0.1", "a.jpg@1,2,0.1"]
    item, label = found.items[0], found.labels[0]
    assert isinstance(item, CropItem)
    assert item.region == label.region
    whole = decode_whole((path.parent / folder / "a.jpg").read_bytes())
    assert np.array_equal(item.read(), item.region.cut(whole))
    picture(path.parent / folder / "in" / "b.jpg")
    pool = open_pool(data)
    assert list(pool.ids()) == ["a.jpg@20,9,0.1", "a.jpg@1,2,0.1", "in/b.jpg@9,9,0.05"]
    joined = join_persons(pool, read_persons(path, Problems()), "labels", Problems())
    assert [item.id for item in joined.items] == [item.id for item in found.items]
    assert [str(label) for label in joined.labels] == [str(label) for label in found.labels]


def test_a_missing_image_is_named_or_left_out(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    picture(tmp_path / "a.jpg")
    path = as_json(tmp_path / "train.json", [person("a.jpg"), person("b.jpg")])
    expected = r"train.json: \[1\].image: no image 'b.jpg' in"
    check_broken(partial(opened_ids, path, None), expected, ["a.jpg@100,50,0.5"])


def test_labels_join_persons_with_another_folder_before_the_name(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    picture(tmp_path / "a.jpg")
    pool = as_json(tmp_path / "pool.json", [person(joints=...), person(center=[1, 1])])
    labels = as_json(tmp_path / "labels" / "l.json", [person("photos/a.jpg")])
    found = opened(pool, labels=labels)
    assert [item.id for item in found.items] == ["a.jpg@100,50,0.5"]
    assert found.labels[0].region == found.items[0].region
    as_json(labels, [person("photos/a.jpg"), person("photos/a.jpg", center=[100, 51])])
    expected = "'photos/a.jpg@100,51,0.5': is not in the pool"
    check_broken(partial(opened_ids, pool, labels), expected, ["a.jpg@100,50,0.5"])


def test_of_a_pool_of_images_a_label_is_of_the_whole(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    for name in ("x/a.jpg", "b.png", "c.jpg"):
        picture(tmp_path / "pool" / name)
    labels = as_json(tmp_path / "l.json", [person("a.jpg"), person("b.jpg")])
    found = opened(tmp_path / "pool", labels=labels)
    assert [item.id for item in found.items] == ["x/a.jpg", "b.png"]
    assert [label.region for label in found.labels] == [None, None]
    assert found.labels[0].joints[0].tolist() == [9.5, 19.5]
    as_json(labels, [person("a.jpg"), person("b.jpg"), person("a.jpg", center=[1, 1])])
    what = (
        "'a.jpg@100,50,0.5': is a label of the image 'x/a.jpg', as 'a.jpg@1,1,0.5' is; "
        "give the pool as a JSON of persons"
    )
    check_broken(partial(opened_ids, tmp_path / "pool", labels), what, ["b.png"])


def test_joints_far_outside_of_the_image_are_named_or_left_out(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    """The file does not contain its size; the image does."""
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    far = person("b.jpg", center=[20, 9])
    far["joints"][3] = [90000, 90000]
    slip = person("b.jpg", center=[21, 9])
    slip["joints"][3] = [20, -70]
    path = as_json(tmp_path / "train.json", [person(), far, slip])
    what = (
        r"train.json: 'b.jpg@20,9,0.5': the joint 'l-hip' at 89999.5, 89999.5.* outside .* of 40×30"
    )
    for labels in (None, path):
        check_broken(partial(opened_ids, path, labels), what, ["a.jpg@100,50,0.5"], 2)
    labels = as_json(tmp_path / "l.json", [person("a.jpg"), far])
    with pytest.raises(LabelError, match=r"l.json: 'b.jpg': the joint 'l-hip' at .* far outside"):
        opened(tmp_path, labels=labels)


def test_an_image_that_cannot_be_read_is_reported_when_it_is_decoded(
    tmp_path: Path, as_json: Any, person: Any
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert len(opened(as_json(tmp_path / "train.json", [person(center=[900, 9])]))) == 1


def test_data_that_is_not_there(tmp_path: Path, picture: Any, as_json: Any, person: Any) -> None:
    with pytest.raises(PoolError, match="no such labeled data"):
        opened(tmp_path / "none.json")
    with pytest.raises(PoolError, match="no such option 'split'"):
        opened(f"{as_json(tmp_path / 'a.json', [person()])}?split=train")
    picture(tmp_path / "pool" / "a.jpg")
    with pytest.raises(LabelError, match="add --labels"):
        opened(tmp_path / "pool")
    with pytest.raises(LabelError, match="l.json: holds no label yet"):
        opened(tmp_path / "pool", labels=as_json(tmp_path / "l.json", []))
    with pytest.raises(LabelError, match="pool: is a folder; give a JSON of persons or a data"):
        opened(tmp_path / "pool", labels=tmp_path / "pool")
    unlabeled = as_json(tmp_path / "u.json", [person(joints=...)])
    with pytest.raises(LabelError, match="u.json: holds no labeled person"):
        opened(unlabeled)


def test_persons_without_an_annotated_joint_are_reported(
    tmp_path: Path, picture: Any, as_json: Any, person: Any
) -> None:
    picture(tmp_path / "a.jpg")
    people = [
        person("a.jpg"),
        person("a.jpg", center=[3, 9], joints_vis=[0] * 16),
        person("a.jpg", center=[4, 9], joints=..., joints_vis=...),
    ]
    path = as_json(tmp_path / "train.json", people)
    note = "2 of 3 persons have no annotated joint: taken as not labeled yet, to be selected"
    for read in (read_persons, opened):
        problems = Problems()
        assert len(read(path, problems)) == 1 and problems.notes == [note]
