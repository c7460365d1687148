"""YOLO's data sets: what a file says, which images a split has, and how broken ones are named."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lloss.annotations import ObjectLabel
from lloss.annotations.problems import Problems
from lloss.data.label_formats import read_any_labels
from lloss.data.label_joining import labeled_pool
from lloss.data.labeled_set import LabeledSet, drop_empty
from lloss.data.object_labels import join_objects, open_objects, read_objects
from lloss.errors import LabelError, PoolError

from ..annotation_files import check_broken

ROWS = [(1, 0.5, 0.25, 0.3, 0.2), (0, 0.125, 0.5, 0.25, 1.0)]
CONFIG = {"path": ".", "train": "images/train", "val": "images/val", "names": ["cat", "dog"]}


def write_rows(path: Path, rows: Any = ROWS, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(" ".join(map(str, row)) + end for row in rows).encode())
    return path


def write_config(root: Path, **changed: Any) -> Path:
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changed}))
    return path


@pytest.fixture
def dataset(tmp_path: Path, picture: Any) -> Path:
    """Two images to train on, the second without an object, and one to measure on."""
    root = tmp_path / "set"
    for name in ("train/a", "train/b", "val/c"):
        picture(root / "images" / f"{name}.jpg", 40, 30)
        write_rows(root / "labels" / f"{name}.txt", [] if name == "train/b" else ROWS)
    write_config(root)
    return root


def opened(data: Path | str, problems: Problems | None = None) -> LabeledSet:
    return open_objects(str(data), problems or Problems())


def opened_ids(data: Path | str, problems: Problems) -> list[str]:
    return [item.id for item in opened(data, problems).items]


def expected_boxes(rows: Any, width: int, height: int) -> list[list[float]]:
    """Corners in pixels, as the documents of YOLO define a row."""
    corners = []
    for _, x, y, w, h in rows:
        left, top = x * width - w * width / 2, y * height - h * height / 2
        corners.append([left, top, left + w * width, top + h * height])
    return corners


def check_label(label: ObjectLabel) -> None:
    assert (label.names, label.size) == (("dog", "cat"), (30, 40))
    assert np.allclose(label.boxes, expected_boxes(ROWS, 40, 30), atol=1e-4)
    assert not (label.shares or label.difficult.any() or label.crowd.any())


def test_a_split_is_read_in_pixels(dataset: Path) -> None:
    found = opened(dataset)
    assert [item.id for item in found.items] == ["images/train/a.jpg", "images/train/b.jpg"]
    check_label(found.labels[0])
    assert found.labels[1].empty
    assert found.items[1].read() == (dataset / "images/train/b.jpg").read_bytes()
    assert opened(dataset / "data.yaml").sha256 == found.sha256
    assert opened_ids(f"{dataset}/data.yaml:val", Problems()) == ["images/val/c.jpg"]
    for absent in (None, ""):
        write_config(dataset, test=absent)
        with pytest.raises(PoolError, match="no such split as 'test'; it has train, val"):
            opened(f"{dataset}:test")


def test_random_rows_come_back(dataset: Path) -> None:
    """Boxes in pixels, written as shares with six decimals, are the same boxes again."""
    random = np.random.default_rng(0)
    low = random.uniform(0, 15, (50, 2))
    boxes = np.concatenate([low, low + random.uniform(1, 15, (50, 2))], 1)
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    shares = np.concatenate([center, size], 1) / [40, 30, 40, 30]
    rows = [(0, *(f"{share:.6f}" for share in row)) for row in shares]
    write_rows(dataset / "labels/train/a.txt", rows)
    assert np.allclose(opened(dataset).labels[0].boxes, boxes, atol=1e-4)


def test_layouts_that_exporters_write(dataset: Path) -> None:
    (dataset / "train").mkdir()  # Roboflow: the split first, and a path that leaves the folder
    (dataset / "images/train").rename(dataset / "train/images")
    (dataset / "labels/train").rename(dataset / "train/labels")
    config = write_config(dataset, train="../train/images", path="elsewhere", nc=2)
    assert opened_ids(config, Problems()) == ["train/images/a.jpg", "train/images/b.jpg"]
    listing = dataset / "some.txt"  # CVAT: a list of images
    listing.write_text("train/images/a.jpg\r\n\n.\\images\\val\\c.jpg\n")
    config = write_config(dataset, train="some.txt", names={0: "cat", 1: "dog"})
    found = opened(config)
    assert [item.id for item in found.items] == ["train/images/a.jpg", "images/val/c.jpg"]
    check_label(found.labels[1])
    several = write_config(dataset, train=["train/images", r"images\val"])
    assert len(opened(several)) == 3
    listing.write_text("train/images/a.jpg\nz.jpg\n")
    config = write_config(dataset, train="some.txt")
    what = f"some.txt, line 2: the file {dataset}/z.jpg is missing"
    check_broken(partial(opened_ids, config), what, ["train/images/a.jpg"])


@pytest.mark.parametrize("place", ["set/labels/train", "set/labels", "set", "set/data.yaml"])
def test_labels_beside_a_pool(dataset: Path, place: str) -> None:
    labels, problems = dataset.parent / place, Problems()
    if place in ("set/labels", "set"):  # the other split is not of this pool
        (dataset / "labels/val/c.txt").unlink()
    pool = labeled_pool(dataset / "images/train", [labels], problems)
    found = join_objects(pool, read_objects(labels, problems), str(labels), problems)
    assert [item.id for item in found.items] == ["a.jpg", "b.jpg"]
    check_label(found.labels[0])
    assert len(drop_empty(found, "unlabeled", problems)) == 1
    assert len(read_any_labels(labels, Problems())) == 2  # as --exclude reads them


def test_images_beside_their_labels_stay_in_the_pool(tmp_path: Path, picture: Any) -> None:
    folder = tmp_path / "obj_train_data"  # darknet: names of the classes in the folder above
    (tmp_path / "obj.names").write_text("cat\r\ndog\r\n")
    picture(folder / "a.jpg", 40, 30)
    picture(folder / "b.jpg", 40, 30)
    write_rows(folder / "a.txt", end="\r\n")
    (folder / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    problems = Problems()
    pool = labeled_pool(folder, [folder], problems)
    assert sorted(pool.ids()) == ["a.jpg", "b.jpg"]
    found = join_objects(pool, read_objects(folder, problems), str(folder), problems)
    assert [item.id for item in found.items] == ["a.jpg"]
    assert problems.notes == [f"{folder}: passed over 2 other files (2 .txt)"]  # of the pool
    check_label(found.labels[0])


def test_images_without_labels_and_labels_without_images(dataset: Path) -> None:
    (dataset / "labels/train/a.txt").unlink()
    problems = Problems()
    assert len(opened(dataset, problems)) == 2
    assert problems.notes == [
        f"{dataset}/data.yaml: 1 of 2 images has no label file (a.txt, for example): taken as "
        "showing no object"
    ]
    write_rows(dataset / "labels/train/z.txt")
    what = "labels/train/z.txt: no image of this name in"
    kept = ["images/train/a.jpg", "images/train/b.jpg"]
    check_broken(partial(opened_ids, dataset), what, kept)
    (dataset / "labels").rename(dataset / "marks")
    with pytest.raises(LabelError, match=r"none of the 2 images .* at .*/labels/train/a.txt"):
        opened(dataset)


def test_two_images_of_one_label_file_are_refused(dataset: Path, picture: Any) -> None:
    picture(dataset / "images/train/a.png")
    with pytest.raises(LabelError, match="a.txt: is of two images, .*a.jpg' and .*a.png'; rename"):
        opened(dataset)


def test_a_folder_of_empty_files_has_labels(dataset: Path) -> None:
    write_rows(dataset / "labels/train/a.txt", [])
    write_rows(dataset / "labels/val/c.txt", [])
    assert [label.empty for label in read_objects(dataset, Problems()).values()] == [True] * 3


BROKEN = {
    "prediction": ((0, 0.5, 0.5, 0.2, 0.2, 0.9), "6 numbers: the last looks like the confidence"),
    "short": ((0, 0.5, 0.5, 0.2), "4 numbers; a box takes 5"),
    "unknown": ((2, 0.5, 0.5, 0.2, 0.2), "the class 2 has no name in .*data.yaml, which has 2"),
    "negative": ((-1, 0.5, 0.5, 0.2, 0.2), "the class '-1' is not a whole number"),
    "half": ((0.5, 0.5, 0.5, 0.2, 0.2), "the class '0.5' is not a whole number"),
    "pixels": ((0, 20, 15, 8, 6), "20 is not a share of the image's width or height"),
    "word": ((0, 0.5, "x", 0.2, 0.2), "'x' is not a number"),
    "name": (("cat", 0.5, 0.5, 0.2, 0.2), "'cat' is not a number"),
    "nan": ((0, "nan", 0.5, 0.2, 0.2), "nan is far outside any image"),
    "no area": ((0, 0.5, 0.5, 0.2, 0), "the box 0.5, 0.5, 0.2, 0 has no area"),
    "polygon": ((0, 0.1, 0.1, 7, 0.1, 0.4, 0.4), "7 is not a share"),
}


@pytest.mark.parametrize(("row", "what"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_named_or_left_out(dataset: Path, row: Any, what: str) -> None:
    path = write_rows(dataset / "labels/train/a.txt", [ROWS[0], row])
    expected = f"^{re.escape(str(path))}, line 2: {what}"
    # The other object alone would teach that there is nothing where the broken one is.
    kept = ["images/train/a.jpg"] if what.endswith("no area") else []
    check_broken(partial(opened_ids, dataset), expected, [*kept, "images/train/b.jpg"])


def test_a_box_over_the_edge_and_a_file_that_is_no_text(dataset: Path) -> None:
    path = write_rows(dataset / "labels/train/a.txt", [(0, 0.1, 0.5, 0.4, 0.5)])
    what = r"object 1 \(cat\): the box -4, .* is outside the image of 40×30"
    check_broken(partial(opened_ids, dataset), what, ["images/train/b.jpg"])
    path.write_bytes(b"\xff\xfe0\x00")
    what = f"{path}: is not UTF-8 text"
    check_broken(partial(opened_ids, dataset), what, ["images/train/b.jpg"])


def test_a_broken_label_leaves_out_other_labels_of_its_image(dataset: Path) -> None:
    labels = dataset / "labels"
    write_rows(labels / "old/a.txt")
    write_rows(labels / "train/a.txt", [BROKEN["word"][0]])
    problems = Problems(skip=True)
    pool = labeled_pool(dataset / "images/train", [labels], problems)
    found = join_objects(pool, read_objects(labels, problems), str(labels), problems)
    assert [item.id for item in found.items] == ["b.jpg"]


def test_polygons_become_boxes_and_keypoints_are_left_out(dataset: Path) -> None:
    triangle = (0, 0.5, 0.2, 0.75, 0.4, 0.25, 0.6)
    write_rows(dataset / "labels/train/a.txt", [triangle])
    problems = Problems()
    (label, _) = opened(dataset, problems).labels
    assert np.allclose(label.boxes, [[10, 6, 30, 18]], atol=1e-4)
    assert problems.notes == [f"{dataset}/data.yaml: 1 polygons: the box around each is taken"]
    person = (*ROWS[1], 0.5, 0.5, 2, 0.1, 0.1, 1, 0, 0, 0)
    write_rows(dataset / "labels/train/a.txt", [person, ROWS[0]])
    config, problems = write_config(dataset, kpt_shape=[3, 3]), Problems()
    (label, _) = opened(config, problems).labels
    assert np.allclose(label.boxes, expected_boxes(ROWS[::-1], 40, 30), atol=1e-4)
    assert problems.notes == [f"{config}: keypoints of 1 object are left out"]


def test_classes_without_names_are_called_by_their_numbers(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.txt")
    problems = Problems()
    assert read_objects(tmp_path, problems)["a"].names == ("1", "0")
    assert "no data.yaml or classes.txt names the classes" in problems.notes[0]
    (tmp_path / "classes.txt").write_text("no\nyes\n")
    assert read_objects(tmp_path, Problems())["a"].names == ("yes", "no")


CONFIGS = {
    "not YAML": ("names: [a\nb: c", "line 2: is not YAML: "),
    "list": ("- a", "is not a data.yaml of YOLO"),
    "twice": ("names: [a, ' a']", "two classes are called 'a'; rename one"),
    "count": ("nc: 3\nnames: [a, b]", "nc is 3, but names has 2; correct one of them"),
    "nameless": ("names: {0: }", "names: 0: '' is not a number with a name"),
    "text": ("names: a", "names 'a': give a list, or a map of numbers to names"),
    "joints": ("names: [a]\nkpt_shape: 17", "kpt_shape 17: give "),
    "nested": ("names: [a]\nkpt_shape: [[17], 3]", "kpt_shape .*: give "),
}


@pytest.mark.parametrize(("text", "what"), CONFIGS.values(), ids=CONFIGS)
def test_a_broken_config_is_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(LabelError, match=f"data.yaml.*{what}"):
        opened(tmp_path)


def test_names_stay_the_text_that_is_written(dataset: Path) -> None:
    (dataset / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [no, 1.10]\n")
    assert opened(dataset).labels[0].names == ("1.10", "no")
    write_config(dataset, train="nowhere")
    with pytest.raises(PoolError, match=r"the folder .*/nowhere is missing; correct its path"):
        opened(dataset)


def test_a_folder_of_masks_with_a_note_stays_one_of_masks(tmp_path: Path, picture: Any) -> None:
    picture(tmp_path / "masks" / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "masks" / "README.txt").write_text("5 masks by 2 persons in 3 days\n")
    assert list(labeled_pool(tmp_path, [tmp_path / "masks"], Problems()).ids()) == ["b.png"]
    assert list(read_any_labels(tmp_path / "masks", Problems())) == ["a.png"]


def test_files_that_cannot_be_read_are_named(dataset: Path) -> None:
    with pytest.raises(LabelError, match=r"none.yaml: cannot be read: No such file"):
        read_objects(dataset / "none.yaml", Problems())
    (dataset / "list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(PoolError, match=r"list.txt: cannot be read"):
        opened(write_config(dataset, train="list.txt"))
    (dataset / "empty").mkdir()
    with pytest.raises(PoolError, match="train: empty holds no image"):
        opened(write_config(dataset, train="empty"))
    write_rows(dataset / "labels/train/a.TXT")
    with pytest.raises(LabelError, match="has its name in other letters; remove one"):
        read_objects(dataset / "labels", Problems())


def test_an_image_to_train_on_with_a_broken_label_has_none(dataset: Path) -> None:
    write_rows(dataset / "labels/train/a.txt", [BROKEN["word"][0]])
    problems, config = Problems(skip=True), dataset / "data.yaml"
    assert list(read_objects(config, problems)) == ["images/train/b.jpg"]
    assert problems.unusable == {str(config): {"images/train/a.jpg"}}
