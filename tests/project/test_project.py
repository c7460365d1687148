"""How a project names its pool, and which of its images are labels, held out, or neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.errors import LabelError, LlossError, PoolError, SettingsError
from lloss.project.create import create_project
from lloss.project.project import Project, load_project


def _labels(path: Path, ids: list[str]) -> Path:
    rows = "".join(f"{id},{number % 2}\n" for number, id in enumerate(ids))
    path.write_text(f"id,label\n{rows}")
    return path


def _table(path: Path) -> list[str]:
    names = [f"n{number}" for number in range(12)]
    pq.write_table(pa.table({"name": names, "jpg": [b"x"] * 12, "png": [b"y"] * 12}), path)
    return names


def test_a_pool_with_options_is_kept_relative_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = _table(tmp_path / "data.parquet")
    _labels(tmp_path / "labels.csv", names)
    monkeypatch.chdir(tmp_path)
    values = {"pool": "data.parquet?id=name&image=png", "labels": "labels.csv", "k": 2}
    create_project(tmp_path / "project", values, {"batch_size": 4})
    monkeypatch.chdir("/")
    project = load_project(tmp_path / "project")
    assert project.pool == "../data.parquet?id=name&image=png"
    assert list(project.open_pool().ids()) == names
    assert project.open_labels().items[3].read() == b"y"


def test_a_pool_by_url_is_kept_as_it_is(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    names = [f"{number:02d}.jpg" for number in range(12)]
    for name in names:
        fsspec.filesystem("memory").pipe(f"/project-pool/{name}", b"x")
    labels = _labels(tmp_path / "labels.csv", names)
    values = {"pool": "memory://project-pool", "labels": str(labels), "k": 2}
    project = create_project(tmp_path / "project", values, {"batch_size": 4})
    assert project.pool == project.pool_uri == "memory://project-pool"
    assert load_project(tmp_path / "project").open_pool().count() == 12


def test_similar_class_names_are_noted_within_labels_and_beside_a_test_set(tmp_path: Path) -> None:
    names = _table(tmp_path / "data.parquet")
    rows = [f"{id},{['cat', 'dog', 'Cat'][number % 3]}\n" for number, id in enumerate(names)]
    (tmp_path / "l.csv").write_text("id,label\n" + "".join(rows))
    pq.write_table(pa.table({"id": ["t0", "t1"], "png": [b"1", b"2"]}), tmp_path / "test.parquet")
    (tmp_path / "t.csv").write_text("id,label\nt0,DOG\nt1,cat\n")
    values = {
        "pool": f"{tmp_path}/data.parquet?id=name&image=png",
        "labels": str(tmp_path / "l.csv"),
        "test": str(tmp_path / "test.parquet"),
        "test_labels": str(tmp_path / "t.csv"),
        "k": 2,
    }
    project = create_project(tmp_path / "project", values, {"batch_size": 4})
    problems = Problems()
    labeled = project.open_labels(problems=problems)
    project.note_classes(labeled, problems)
    (own,) = problems.notes
    assert "the classes 'Cat' (4) and 'cat' (4) differ only in case" in own
    project.split(labeled, problems)
    (both,) = [note for note in problems.notes if "to measure on" in note]
    assert "the classes to train and to measure on 'DOG' (1) and 'dog' (4)" in both
    assert "cat" not in both


@pytest.mark.parametrize(
    "uri", ["s3://me:hush@bucket/pool", "https://h/p.npy?X-Amz-Signature=hush"]
)
def test_credentials_do_not_get_into_the_projects_file(tmp_path: Path, uri: str) -> None:
    labels = _labels(tmp_path / "labels.csv", ["a", "b"])
    with pytest.raises(SettingsError, match="leave them to the environment") as caught:
        create_project(tmp_path / "p", {"pool": uri, "labels": str(labels), "k": 2}, {})
    assert "hush" not in str(caught.value)
    assert not (tmp_path / "p").exists()


def _tree(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("before", [{}, {"a/p/holdout.csv": "id,label\nn1,1\nn2,0\n"},
                                    {"a/p/notes.txt": "mine"}, {"a/p/cycles/x": "mine"},
                                    {"a/other": "mine"}])  # fmt: skip
@pytest.mark.parametrize("wrong", [{"k": 0}, {"labels": "none.csv"}, {"holdout": 2},
                                   {"batch_size": 64}])  # fmt: skip
def test_a_creation_that_fails_leaves_everything_as_it_was(
    tmp_path: Path, before: dict[str, str], wrong: dict[str, Any]
) -> None:
    _labels(tmp_path / "labels.csv", _table(tmp_path / "data.parquet"))
    for name, text in before.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    there = _tree(tmp_path)
    train = {"batch_size": wrong.get("batch_size", 4)}
    values = {
        "pool": f"{tmp_path}/data.parquet?id=name&image=png",
        "labels": str(tmp_path / "labels.csv"),
        "k": 2,
        "holdout": 0.2,
        **{name: value for name, value in wrong.items() if name != "batch_size"},
    }
    with pytest.raises(LlossError):
        create_project(tmp_path / "a" / "p", values, train)
    assert _tree(tmp_path) == there


def test_an_interrupted_creation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _labels(tmp_path / "labels.csv", _table(tmp_path / "data.parquet"))
    there = _tree(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lloss.project.create.load_project", stop)
    values = {
        "pool": str(tmp_path / "data.parquet"),
        "labels": str(tmp_path / "labels.csv"),
        "k": 2,
    }
    with pytest.raises(KeyboardInterrupt):
        create_project(tmp_path / "p", values, {})
    assert _tree(tmp_path) == there


def test_what_an_earlier_project_left_is_told(tmp_path: Path) -> None:
    _labels(tmp_path / "labels.csv", _table(tmp_path / "data.parquet")[:10])
    (tmp_path / "p" / "cycles" / "003").mkdir(parents=True)
    (tmp_path / "p" / "cycles" / "003" / "summary.json").write_text("{}")
    (tmp_path / "p" / "holdout.csv").write_text("id,label\nn1,1\nn2,0\n")
    values = {
        "pool": f"{tmp_path}/data.parquet?id=name&image=png",
        "labels": str(tmp_path / "labels.csv"),
        "k": 2,
    }
    problems = Problems()
    create_project(tmp_path / "p", values, {"batch_size": 4}, problems)
    assert [note.partition(": ")[2] for note in problems.notes] == [
        "is there already; its images are held out",
        "1 cycles are there already; lloss next goes on after 003",
    ]


@pytest.fixture
def export(tmp_path: Path) -> Callable[[int], dict[str, Any]]:
    """A COCO export of six images of which the first few have an object."""

    def write(shown: int) -> dict[str, Any]:
        names = [f"n{number}.png" for number in range(6)]
        for number, name in enumerate(names):
            for folder, value in (("pool", number), ("test", 100 + number)):
                (tmp_path / folder).mkdir(exist_ok=True)
                pixels = np.full((48, 64, 3), value, np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name)
        Image.new("RGB", (64, 48)).save(tmp_path / "pool" / "unlabeled.png")
        images = [
            {"id": n, "file_name": name, "width": 64, "height": 48} for n, name in enumerate(names)
        ]
        boxes = [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [5, 5, 20, 20]} for n in range(shown)
        ]
        document = {
            "images": images,
            "annotations": boxes,
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / "export.json").write_text(json.dumps(document))
        return {
            "pool": str(tmp_path / "pool"),
            "labels": str(tmp_path / "export.json"),
            "k": 1,
            "holdout": 0.0,
        }

    return write


_DETECTION = {"task": "detection", "batch_size": 2}


@pytest.mark.parametrize(
    ("empty", "labeled", "told"),
    [
        ("", 6, "4 of 6 labeled images show no object: taken as background; if"),
        ("background", 6, "pass --empty unlabeled"),
        ("unlabeled", 2, "4 of 6 labeled images show no object: taken as not labeled yet"),
    ],
)
def test_images_without_an_annotation_are_what_the_project_says(
    tmp_path: Path, export: Any, empty: str, labeled: int, told: str
) -> None:
    problems = Problems()
    values = export(2) | ({"empty": empty} if empty else {})
    create_project(tmp_path / "p", values, _DETECTION, problems)
    assert len(problems.notes) == 1 and told in problems.notes[0]
    project = load_project(tmp_path / "p")
    assert project.empty == empty
    assert len(project.open_labels()) == len(project.labeled_ids()) == labeled
    assert project.labeled_ids() >= {"n0.png", "n1.png"}


def test_a_project_of_full_images_tells_nothing_of_empty_ones(tmp_path: Path, export: Any) -> None:
    problems = Problems()
    create_project(tmp_path / "p", export(6) | {"empty": "unlabeled"}, _DETECTION, problems)
    assert problems.lines() == []


def test_test_images_without_an_annotation_are_told_and_may_be_left_out(
    tmp_path: Path, export: Any
) -> None:
    values = export(2)
    del values["holdout"]
    values |= {
        "test": str(tmp_path / "test"),
        "test_labels": values["labels"],
        "empty": "unlabeled",
    }
    problems = Problems()
    project = create_project(tmp_path / "p", values, _DETECTION)
    test = project.open_test(problems)
    assert test is not None and len(test) == 2
    assert problems.notes == [
        "4 of 6 test images show no object: taken as not labeled yet, they can be selected"
    ]


@pytest.mark.parametrize(
    ("shown", "empty", "train", "told"),
    [
        (0, "unlabeled", _DETECTION, "all 6 labeled images show nothing"),
        (2, "maybe", _DETECTION, "empty = 'maybe': choose one of background, unlabeled"),
        (2, "unlabeled", {"task": "pose", "batch_size": 2}, "is for detection and segmentation"),
    ],
)
def test_a_meaning_that_cannot_be_is_refused(
    tmp_path: Path, export: Any, shown: int, empty: str, train: dict[str, Any], told: str
) -> None:
    with pytest.raises((LabelError, SettingsError), match=told):
        create_project(tmp_path / "p", export(shown) | {"empty": empty}, train)
    assert not (tmp_path / "p").exists()


def test_an_id_of_two_rows_is_refused_before_the_project_is_there(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", "c", "a"], "image": [b"x"] * 4})
    pq.write_table(table, tmp_path / "data.parquet")
    labels = _labels(tmp_path / "labels.csv", ["b", "c"])
    values = {"pool": str(tmp_path / "data.parquet"), "labels": str(labels), "k": 1}
    with pytest.raises(PoolError, match="the id 'a' is that of image 1 and of image 4"):
        create_project(tmp_path / "p", values, {"batch_size": 2})
    assert not (tmp_path / "p").exists()


def test_folders_of_masks_are_not_of_the_pool(tmp_path: Path) -> None:
    for folder in ("images", "masks", "test"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(6):
        image = Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8))
        image.save(tmp_path / "data" / "images" / f"{number}.jpg")
        mask = Image.fromarray(np.eye(8, dtype=np.uint8))
        mask.save(tmp_path / "data" / ("test" if number > 3 else "masks") / f"{number}.png")
    data = str(tmp_path / "data")
    values = {"pool": data, "labels": f"{data}/masks", "test_labels": f"{data}/test", "k": 1}
    project = create_project(tmp_path / "p", values, {"task": "segmentation", "batch_size": 2})
    problems = Problems()
    assert list(project.open_pool().ids()) == [f"images/{number}.jpg" for number in range(6)]
    training, test = project.split(project.open_labels(problems=problems), problems)
    assert [item.id for item in training.items] == [f"images/{number}.jpg" for number in range(4)]
    assert test and [item.id for item in test.items] == ["images/4.jpg", "images/5.jpg"]
    assert any("left out 6 images in the folder of labels" in note for note in problems.notes)
    with pytest.raises(LabelError, match="is its own mask; put masks into a folder of their own"):
        create_project(
            tmp_path / "q",
            {"pool": f"{data}/masks", "labels": f"{data}/masks", "k": 1},
            {"task": "segmentation", "batch_size": 2},
        )


@pytest.fixture
def held_out(tmp_path: Path) -> tuple[Project, set[str]]:
    """A project of ``0.png`` …, and what it set aside."""
    names = [f"{number}.png" for number in range(12)]
    (tmp_path / "pool").mkdir()
    for name in names:
        (tmp_path / "pool" / name).write_bytes(b"x")
    labels = _labels(tmp_path / "labels.csv", names)
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": 1, "holdout": 0.3}
    project = create_project(tmp_path / "p", values, {"batch_size": 4})
    _, held = project.split(project.open_labels())
    assert held and len(held) == 4
    return project, {item.id for item in held.items}


def test_what_is_held_out_stays_so_when_the_pool_moves_into_a_folder(
    held_out: tuple[Project, set[str]], tmp_path: Path
) -> None:
    project, names = held_out
    (tmp_path / "pool").rename(tmp_path / "inner")
    (tmp_path / "pool").mkdir()
    (tmp_path / "inner").rename(tmp_path / "pool" / "b1")
    training, held = project.split(project.open_labels())
    assert held and {item.id for item in held.items} == {f"b1/{name}" for name in names}
    assert len(training) == 8
    (tmp_path / "pool" / "b2").mkdir()
    first = sorted(names)[0]
    (tmp_path / "pool" / "b2" / first).write_bytes(b"x")
    labels = _labels(tmp_path / "labels.csv", [f"b1/{number}.png" for number in range(12)])
    assert labels.exists()
    with pytest.raises(LabelError, match=f"holdout.csv: '{first}' may be 'b1/{first}' or 'b2/"):
        project.split(project.open_labels())


def test_held_out_images_that_are_gone_are_counted(
    held_out: tuple[Project, set[str]], tmp_path: Path
) -> None:
    project, names = held_out
    first, *others = sorted(names)
    (tmp_path / "pool" / first).unlink()
    _labels(tmp_path / "labels.csv", [f"{n}.png" for n in range(12) if f"{n}.png" != first])
    problems = Problems()
    _, held = project.split(project.open_labels(), problems)
    assert held and {item.id for item in held.items} == set(others)
    (note,) = problems.notes
    assert note.endswith("holdout.csv: 1 of 4 images are not in the pool any more")


def test_a_new_class_of_one_image_is_noted(tmp_path: Path) -> None:
    names = _table(tmp_path / "data.parquet")
    labels = _labels(tmp_path / "labels.csv", names)
    labels.write_text(labels.read_text().replace("n3,1", "n3,11"))
    pool = f"{tmp_path}/data.parquet?id=name&image=png"
    values = {"pool": pool, "labels": str(labels), "k": 2}
    project = create_project(tmp_path / "project", values, {"batch_size": 4})
    problems = Problems()
    project.note_classes(project.open_labels(), problems)
    (line,) = problems.lines()
    assert line.startswith("the new class '11' ('1'?) has one image")
    problems = Problems()
    project.note_classes(project.open_labels(), problems, {"0": 6, "1": 5, "11": 1})
    assert problems.lines() == [], "it was told before"


@pytest.mark.parametrize(("k", "told"), [(8, False), (9, True)])
def test_a_k_of_more_than_is_left_is_told_before_training(
    tmp_path: Path, k: int, told: bool
) -> None:
    (tmp_path / "pool").mkdir()
    names = [f"{number:02d}.png" for number in range(20)]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / "pool" / name)
    labels = _labels(tmp_path / "labels.csv", names[:12])
    problems = Problems()
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": k}
    create_project(tmp_path / "project", values, {"batch_size": 4}, problems)
    assert any("k = 9, but 8 images of" in line for line in problems.notes) == told


@pytest.mark.parametrize("where", ["pool", "pool/project"])
def test_a_project_may_lie_in_its_pool(tmp_path: Path, where: str) -> None:
    (tmp_path / "pool").mkdir()
    names = [f"{number:02d}.png" for number in range(20)]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / "pool" / name)
    labels = _labels(tmp_path / "labels.csv", names[:12])
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": 2}
    project = create_project(tmp_path / where, values, {"batch_size": 4})
    scores = project.cycles / "001" / "scores"
    scores.mkdir(parents=True)
    pq.write_table(pa.table({"id": names}), scores / "part-00000.parquet")
    Image.new("RGB", (4, 4)).save(project.cycles / "001" / "evaluation.png")
    assert list(load_project(tmp_path / where).open_pool().ids()) == names
