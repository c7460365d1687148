from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.data.labeled_set import LabeledSet
from lloss.data.near_copies import Groups
from lloss.errors import LabelError
from lloss.pools import Item
from lloss.project.create import create_project
from lloss.project.project import Project
from lloss.simulation.image_variants import variant_of
from lloss.tasks import get_task
from lloss.training.holdout import AUTOMATIC_SHARE, draw_holdout, too_few_note

from ..data.test_near_copies import item_of, scene


def test_the_hold_out_names_the_classes_that_it_does_not_show(tmp_path: Path) -> None:
    """20 of one class, 1 each of three others: their one image is for training."""
    classes = ["common"] * 20 + ["rare", "odd", "lone"]
    (tmp_path / "pool").mkdir()
    rows = []
    for number, name in enumerate(classes):
        Image.new("RGB", (8, 8)).save(tmp_path / "pool" / f"{number:02d}.png")
        rows.append(f"{number:02d}.png,{name}")
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    values = {"pool": str(tmp_path / "pool"), "labels": str(tmp_path / "labels.csv"), "k": 2}
    project = create_project(tmp_path / "project", {**values, "holdout": 0.2}, {"batch_size": 4})
    problems = Problems()
    training, held = project.split(project.open_labels(), problems)
    assert held is not None and set(held.labels) == {"common"}
    assert len(training) + len(held) == 23
    assert problems.notes == [
        f"the {len(held)} held-out images show 1 of the 4 classes; not measured: lone, odd, rare"
    ]


def _project(folder: Path, count: int, **more: object) -> Project:
    """A project of some labels of two classes, each with an image of its own."""
    (folder / "pool").mkdir()
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "pool" / f"{number:02d}.png")
    write_rows(folder / "labels.csv", range(count), "ab")
    own = {} if "test_labels" in more else {"holdout": 0.1}
    values = {"pool": str(folder / "pool"), "labels": str(folder / "labels.csv"), "k": 2}
    values |= {**own, **more}
    return create_project(folder / "project", values, {"batch_size": 4})


def write_rows(path: Path, numbers: Iterable[int], classes: str) -> None:
    rows = [f"{number:02d}.png,{classes[number % len(classes)]}" for number in numbers]
    path.write_text("\n".join(["id,label", *rows]) + "\n")


def test_a_hold_out_that_is_drawn_late_is_reported(tmp_path: Path) -> None:
    project = _project(tmp_path, 12)
    problems = Problems()
    assert project.split(project.open_labels(), problems)[1] is None
    assert not (project.root / "holdout.csv").exists() and problems.notes == []
    done = project.cycles / "001" / "summary.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    write_rows(tmp_path / "labels.csv", range(30), "ab")
    _, held = project.split(project.open_labels(), problems)
    assert held is not None and len(held) == 3
    (note,) = problems.notes
    assert "drawn only now" in note and "not a fair sample" in note
    again = Problems()
    project.split(project.open_labels(), again)
    assert again.notes == []


def test_a_test_set_of_classes_that_nobody_trains_is_refused_before_training(
    tmp_path: Path,
) -> None:
    tested = tmp_path / "test.csv"
    write_rows(tested, range(30, 36), "z")
    with pytest.raises(LabelError, match=r"test\.csv: none of the 6 images shows .*classes: a, b"):
        _project(tmp_path, 12, test_labels=str(tested))
    assert not (tmp_path / "project").exists()


def test_persons_on_one_image_are_held_out_together(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(10):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    joints = [[8 + 2 * joint, 8 + joint] for joint in range(16)]
    persons = [
        {"image": f"{number // 3}.png", "center": [20 + number % 3, 20], "scale": 0.2,
         "joints": joints, "joints_vis": [1] * 16}
        for number in range(30)
    ]  # fmt: skip
    (tmp_path / "persons.json").write_text(json.dumps(persons))
    labels = str(tmp_path / "persons.json")
    train = {"task": "pose", "model": "hourglass1-narrow", "batch_size": 4}
    values = {"pool": labels, "labels": labels, "k": 1, "holdout": 0.2}
    project = create_project(tmp_path / "project", values, train)
    training, held = project.split(project.open_labels())
    assert held is not None and (len(training), len(held)) == (24, 6)
    images = [{item.id.partition("@")[0] for item in one.items} for one in (training, held)]
    assert (len(images[0]), len(images[1])) == (8, 2) and not images[0] & images[1]


@pytest.mark.parametrize(
    ("count", "held"), [(60, 0), (149, 0), (150, 50), (300, 50), (500, 50), (1000, 100)]
)
def test_fifty_images_or_a_tenth_are_held_out_of_enough_labels(count: int, held: int) -> None:
    items = [Item(f"{number:04d}.png", bytes) for number in range(count)]
    labeled = LabeledSet(items, ["abc"[number % 3] for number in range(count)], "made up")
    drawn = draw_holdout(get_task("classification"), labeled, AUTOMATIC_SHARE, 0)
    assert len(drawn) == held


def test_few_labels_are_all_trained_on_and_a_note_says_that_nothing_is_measured(
    tmp_path: Path,
) -> None:
    project = _project(tmp_path, 30, holdout=AUTOMATIC_SHARE)
    problems = Problems()
    training, held = project.split(project.open_labels(), problems)
    assert (len(training), held) == (30, None)
    (note,) = problems.notes
    assert note.startswith("30 labels are too few") and "from 150 labeled images on 50" in note


def _videos(folder: Path, videos: int, frames: int) -> Project:
    """A project of labeled videos, each of one class."""
    (folder / "pool").mkdir()
    rows = []
    for video in range(videos):
        for frame in range(frames):
            encoded = variant_of(item_of(scene(video)), frame, True).read()
            (folder / "pool" / f"{video:02d}-{frame}.jpg").write_bytes(bytes(encoded))
            rows.append(f"{video:02d}-{frame}.jpg,{'ab'[video % 2]}")
    (folder / "labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    values = {"pool": str(folder / "pool"), "labels": str(folder / "labels.csv"), "k": 2}
    return create_project(folder / "project", {**values, "holdout": 0.2}, {"batch_size": 4})


def test_near_duplicates_are_held_out_together(tmp_path: Path) -> None:
    project, problems = _videos(tmp_path, 20, 3), Problems()
    (project.root / "holdout.csv").unlink(missing_ok=True)
    training, held = project.split(project.open_labels(), problems)
    assert held is not None and (len(training), len(held)) == (48, 12)
    videos = [{item.id.partition("-")[0] for item in one.items} for one in (training, held)]
    assert (len(videos[0]), len(videos[1])) == (16, 4) and not videos[0] & videos[1]
    assert [line.partition(": ")[2] for line in problems.notes] == [
        "40 of 60 labeled images are near-duplicates of others: held out together with these"
    ]


def test_without_near_duplicates_the_draw_is_what_it_is_by_image() -> None:
    items = [Item(f"{number:04d}.png", bytes) for number in range(200)]
    labeled = LabeledSet(items, ["abc"[number % 3] for number in range(200)], "made up")
    task = get_task("classification")
    drawn = draw_holdout(task, labeled, 0.2, 3)
    alone = draw_holdout(task, labeled, 0.2, 3, lambda some: Groups(np.arange(len(some))))
    assert list(drawn.items()) == list(alone.items()) and len(drawn) == 40


@pytest.mark.parametrize(
    ("sizes", "least", "most"),
    [
        ([60] + [1] * 140, 50, 50),
        ([10] * 20, 50, 50),
        ([20] * 10, 60, 60),
        ([50, 40, 30, 20, 10, 10, 5, 5, 5, 5] + [1] * 20, 50, 75),
    ],
)
def test_as_many_images_are_held_out_where_groups_are_uneven(
    sizes: list[int], least: int, most: int
) -> None:
    first = np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    for seed in range(20):
        classes = np.repeat(np.random.default_rng(seed).integers(0, 3, len(sizes)), sizes)
        items = [Item(f"{number:04d}.png", bytes) for number in range(200)]
        labeled = LabeledSet(items, [str(name) for name in classes], "made up")
        task = get_task("classification")
        drawn = draw_holdout(task, labeled, AUTOMATIC_SHARE, seed, lambda _: Groups(first))
        held = np.array([item.id in drawn for item in items])
        assert least <= held.sum() <= most
        assert all(held[first == group].all() or not held[first == group].any() for group in first)
        assert set(classes) == set(classes[~held])  # each class keeps some to train on


def test_labels_of_too_few_groups_are_not_called_too_few() -> None:
    items = [Item(f"{number:04d}.png", bytes) for number in range(200)]
    labeled, groups = LabeledSet(items, ["a"] * 200, "made up"), Groups(np.arange(200) // 100 * 100)
    task = get_task("classification")
    assert draw_holdout(task, labeled, AUTOMATIC_SHARE, 0, lambda _: groups) == {}
    assert too_few_note(200).startswith("none of 200 labels are held out: too many of them show")
