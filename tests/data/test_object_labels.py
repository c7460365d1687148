"""Labeled sets of objects: devkits, COCO files, and labels beside a pool."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lloss.annotations import ObjectLabel
from lloss.annotations.problems import Problems
from lloss.data.label_joining import labeled_pool
from lloss.data.object_labels import join_objects, open_objects, read_objects
from lloss.errors import LabelError, PoolError
from lloss.images.decode import size_of
from lloss.pools import open_pool

from ..annotation_files import check_broken

CAT = ("cat", 0, (11, 6, 30, 15))
DOG = ("dog", 0, (1, 1, 20, 20))


@pytest.fixture
def devkit(tmp_path: Path, picture: Any, voc_xml: Any) -> Path:
    """Two years; 2012 has no test split, and a name that 2007 has too."""
    kit = tmp_path / "VOCdevkit"
    for listed, names in {
        "VOC2007/trainval": ["000005", "000007"],
        "VOC2007/train": ["000007"],
        "VOC2007/test": ["000001"],
        "VOC2012/trainval": ["2008_1", "000005"],
        "VOC2012/train": ["2008_1"],
    }.items():
        year, split = kit / listed.partition("/")[0], listed.partition("/")[2]
        (year / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        path = year / "ImageSets" / "Main" / f"{split}.txt"
        path.write_text("".join(f"{name} \n" for name in names))
        for name in names:
            picture(year / "JPEGImages" / f"{name}.jpg")
            objects = [CAT] if year.name == "VOC2007" else [DOG, DOG]
            voc_xml(year / "Annotations" / f"{name}.xml", objects, "elsewhere.jpg")
    return kit


def opened(data: Path | str, problems: Problems | None = None, labels: Path | None = None) -> Any:
    problems = problems or Problems()
    if labels is None:
        return open_objects(str(data), problems)
    pool = labeled_pool(data, [labels], problems)
    return join_objects(pool, read_objects(labels, problems), str(labels), problems)


def opened_ids(data: Path | str, labels: Path | None, problems: Problems) -> list[str]:
    return [item.id for item in opened(data, problems, labels).items]


def test_years_of_a_devkit_are_joined(devkit: Path) -> None:
    problems = Problems()
    found = opened(devkit, problems)
    assert problems.notes == [
        f"{devkit / year}: 2 annotation files have a <filename> that is not their own name, which "
        f"counts ('{name}.xml' with 'elsewhere.jpg', for example)"
        for year, name in (("VOC2007", "000005"), ("VOC2012", "2008_1"))
    ]
    ids = [item.id for item in found.items]
    assert ids == [
        "VOC2007/000005.jpg", "VOC2007/000007.jpg", "VOC2012/2008_1.jpg", "VOC2012/000005.jpg",
    ]  # fmt: skip
    assert [label.names for label in found.labels] == [("cat",)] * 2 + [("dog", "dog")] * 2
    assert size_of(found.items[3].read()) == (30, 40)
    assert [item.id for item in opened(devkit.parent).items] == ids  # what holds VOCdevkit
    assert [item.id for item in opened(f"{devkit}:train").items] == [ids[1], ids[2]]
    # 2007 alone has it: ids are those of its images.
    assert [item.id for item in opened(f"{devkit}:test").items] == ["000001.jpg"]


def test_splits_are_those_that_torchvision_finds(devkit: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    theirs = datasets.VOCDetection(devkit.parent, "2007", "trainval")
    ours = opened(devkit / "VOC2007")
    assert [Path(image).name for image in theirs.images] == [item.id for item in ours.items]


@pytest.mark.parametrize("folder", ["JPEGImages", "Annotations"])
def test_a_missing_file_is_named_or_left_out(devkit: Path, folder: str) -> None:
    (path,) = (devkit / "VOC2007" / folder).glob("000007.*")
    path.unlink()
    expected = f"trainval.txt, line 2: the file {path} is missing"
    kept = ["VOC2007/000005.jpg", "VOC2012/2008_1.jpg", "VOC2012/000005.jpg"]
    check_broken(partial(opened_ids, devkit, None), expected, kept)


def test_an_image_that_a_split_lists_twice(devkit: Path) -> None:
    year = devkit / "VOC2007"
    (year / "ImageSets" / "Main" / "trainval.txt").write_text("000005\n\n000005\n")
    what = "trainval.txt, line 3: the image '000005' is listed twice"
    check_broken(partial(opened_ids, year, None), what, ["000005.jpg"])


def test_splits_and_data_that_are_not_there(devkit: Path, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="val.txt: no such split"):
        opened(f"{devkit}:val")
    with pytest.raises(PoolError, match="no such labeled data"):
        opened(tmp_path / "nowhere")
    with pytest.raises(LabelError, match="add --labels"):
        opened(devkit / "VOC2007" / "JPEGImages")


@pytest.mark.parametrize("folder", ["", "images", "photos"])
def test_the_images_of_a_coco_file_are_found(
    tmp_path: Path, folder: str, picture: Any, as_json: Any, coco: Any
) -> None:
    path = as_json(tmp_path / "annotations" / "train.json", coco())
    for number, name in enumerate(("a.jpg", "b.jpg")):
        picture(path.parent / folder / name, seed=number)
    found = opened(f"{path}?image={folder}" if folder == "photos" else path)
    assert [item.id for item in found.items] == ["a.jpg", "b.jpg"]
    assert [len(label.names) for label in found.labels] == [2, 0]
    assert found.items[1].read() == (path.parent / folder / "b.jpg").read_bytes()


def test_a_missing_image_of_a_coco_file(
    tmp_path: Path, picture: Any, as_json: Any, coco: Any
) -> None:
    picture(tmp_path / "a.jpg")
    path = as_json(tmp_path / "train.json", coco())
    expected = r"train.json: images\[1\]: no image 'b.jpg' in"
    check_broken(partial(opened_ids, path, None), expected, ["a.jpg"])


def labeled(*keys: str) -> dict[str, ObjectLabel]:
    """Labels of no objects by their keys."""
    none = np.zeros(0, np.bool_)
    return dict.fromkeys(keys, ObjectLabel((), np.zeros((0, 4), np.float32), none, none, (30, 40)))


@pytest.fixture
def pool(tmp_path: Path, picture: Any) -> Any:
    """Three of four images have a name that another one has."""
    for name in ("x/a.png", "y/a.png", "b.png", "c.png"):
        picture(tmp_path / "pool" / name)
    return open_pool(tmp_path / "pool")


def test_a_label_that_means_no_one_image_is_named_or_left_out(pool: Any) -> None:
    def join(problems: Problems) -> list[str]:
        labels = labeled("c.png", "a.png")
        return [item.id for item in join_objects(pool, labels, "origin", problems).items]

    what = "^origin: 'a.png': may be 'x/a.png' or 'y/a.png'; write which"
    check_broken(join, what, ["c.png"])


def test_a_label_beside_a_broken_one_of_its_image_is_left_out(
    tmp_path: Path, picture: Any, voc_xml: Any, coco: Any, as_json: Any
) -> None:
    for name in "ab":
        picture(tmp_path / "pool" / f"{name}.jpg")
    xml = tmp_path / "xml"
    for name in ("old/a", "b"):
        voc_xml(xml / f"{name}.xml", [CAT])
    voc_xml(xml / "new" / "a.xml", [("cat", 0, (1, 1, 900, 9))])
    names = ["new/a.jpg", "old/a.jpg", "b.jpg"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    boxes = [{"image_id": n, "category_id": 1, "bbox": [1, 1, 9 if n else -9, 9]} for n in range(3)]
    document = coco(images=images, annotations=boxes)
    for labels in (xml, as_json(tmp_path / "labels.json", document)):
        problems = Problems(skip=True)
        found = opened(tmp_path / "pool", problems, labels)
        assert [item.id for item in found.items] == ["b.jpg"]
        assert len(problems.broken) == 2
        assert "of the image 'a.jpg', as 'new/a" in problems.broken[1]


def test_labels_found_by_other_folders_or_suffixes_are_counted(pool: Any) -> None:
    problems = Problems()
    join_objects(pool, labeled("data/x/a.png", "b.jpg", "./c.png"), "origin", problems)
    assert problems.notes == [
        "origin: 2 labels were matched by name; the first: 'data/x/a.png' is 'x/a.png' of the pool"
    ]


def test_boxes_without_a_size_are_checked_with_the_image(
    tmp_path: Path, picture: Any, voc_xml: Any
) -> None:
    picture(tmp_path / "pool" / "a.jpg", 20, 16)
    (tmp_path / "pool" / "b.jpg").write_bytes(b"no image")
    labels = tmp_path / "labels"
    voc_xml(labels / "a.xml", [DOG, ("cat", 1, (1, 1, 21, 16))], "a.jpg", None)
    where = r"labels: 'a.jpg', object 1 \(dog\): the box 0, 0, 20, 20 \(edges\) is outside"
    with pytest.raises(LabelError, match=where):
        opened(tmp_path / "pool", labels=labels)
    with pytest.raises(LabelError, match="holds no labeled image that can be used"):
        opened(tmp_path / "pool", Problems(skip=True), labels)
    line = ("dog", 0, (20.9999, 3, 21, 9))  # of it nothing is left in the image
    voc_xml(labels / "a.xml", [line, ("cat", 1, (1, 1, 21, 16))], "a.jpg", None)
    voc_xml(labels / "b.xml", [], "b.jpg", None)
    problems = Problems(skip=True)
    found = opened(tmp_path / "pool", problems, labels)
    assert [item.id for item in found.items] == ["a.jpg"]
    (label,) = found.labels
    assert (label.names, label.size) == (("cat",), (16, 20))
    assert label.boxes.tolist() == [[0, 0, 20, 16]]
    assert label.difficult.tolist() == [True]
    assert "'b.jpg': the image not an image of a known format" in problems.broken[1]
