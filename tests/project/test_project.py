"""Pool, labels, hold-out and test set of a project, as ``lloss.toml`` names them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.errors import LabelError, LlossError, ProjectError, SettingsError
from lloss.files import write_text
from lloss.project import create
from lloss.project.create import create_project
from lloss.project.picks_file import RANDOM
from lloss.project.project import Project
from lloss.project.project_file import load_project
from lloss.selection.hashing import draw_ids

from .cycle_steps import change

NAMES = [f"n{number}" for number in range(12)]
SMALL = {"batch_size": 4}
DETECTION = {"task": "detection", "batch_size": 2}


def write_labels(path: Path, ids: list[str], classes: tuple[str, ...] = ("0", "1")) -> Path:
    rows = "".join(f"{id},{classes[n % len(classes)]}\n" for n, id in enumerate(ids))
    path.write_text(f"id,label\n{rows}")
    return path


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """Settings of a project of twelve labeled rows of a table."""
    table = pa.table({"name": NAMES, "jpg": [b"x"] * 12, "png": [b"y"] * 12})
    pq.write_table(table, tmp_path / "data.parquet")
    labels = write_labels(tmp_path / "labels.csv", NAMES)
    return {"pool": f"{tmp_path}/data.parquet?id=name&image=png", "labels": str(labels), "k": 2}


def images(folder: Path, names: list[str]) -> list[str]:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    return names


def test_a_pool_with_options_is_kept_relative_to_the_project(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = {"pool": "data.parquet?id=name&image=png", "labels": "labels.csv"}
    create_project(tmp_path / "project", values | relative, SMALL)
    monkeypatch.chdir("/")
    project = load_project(tmp_path / "project")
    assert project.pool == "../data.parquet?id=name&image=png"
    assert list(project.open_pool().ids()) == NAMES
    assert project.open_labels().items[3].read() == b"y"


def test_credentials_are_not_written_into_the_projects_file(
    values: dict[str, Any], tmp_path: Path
) -> None:
    uri = "s3://me:hush@bucket/pool"
    with pytest.raises(SettingsError, match="leave them to the environment") as caught:
        create_project(tmp_path / "p", values | {"pool": uri}, {})
    assert "hush" not in str(caught.value)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("wrong", "train"), [({"k": 0}, 4), ({"pool": "none"}, 4), ({}, 1), ({"subset": "x"}, 4)]
)
def test_a_creation_that_fails_leaves_everything_as_it_was(
    values: dict[str, Any], tmp_path: Path, wrong: dict[str, Any], train: int
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    for root in (tmp_path / "a", tmp_path / "new" / "p"):
        with pytest.raises(LlossError):
            create_project(root, values | {"holdout": 0.2} | wrong, {"batch_size": train})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["notes.txt"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("left", ["holdout.csv", "cycles"])
def test_a_folder_of_an_earlier_project_is_refused(
    values: dict[str, Any], tmp_path: Path, left: str
) -> None:
    (tmp_path / "p" / left).mkdir(parents=True)
    with pytest.raises(ProjectError, match=f"p/{left}: is of an earlier project; remove it, or"):
        create_project(tmp_path / "p", values, SMALL)


@pytest.fixture
def export(tmp_path: Path, picture: Any, coco: Any, as_json: Any) -> dict[str, Any]:
    """A COCO export of six images of which two have an object, to train and to measure on."""
    names = [f"n{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        picture(tmp_path / "pool" / name, seed=number)
        picture(tmp_path / "test" / name, seed=100 + number)
    boxes = [{"image_id": n, "category_id": 1, "bbox": [5, 5, 20, 20]} for n in range(2)]
    images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
    path = str(as_json(tmp_path / "export.json", coco(images=images, annotations=boxes)))
    pool, test = str(tmp_path / "pool"), str(tmp_path / "test")
    return {"pool": pool, "labels": path, "test": test, "test_labels": path, "k": 1}


@pytest.mark.parametrize(("empty", "labeled"), [("", 6), ("background", 6), ("unlabeled", 2)])
def test_images_without_an_annotation_are_background_or_unlabeled(
    tmp_path: Path, export: dict[str, Any], empty: str, labeled: int
) -> None:
    values, problems = export | ({"empty": empty} if empty else {}), Problems()
    create_project(tmp_path / "p", values, DETECTION, problems)
    project = load_project(tmp_path / "p")
    assert project.empty == empty and len(project.open_labels()) == labeled
    test = project.open_test(Problems())
    assert test is not None and len(test) == labeled
    assert [note.partition(":")[0] for note in problems.notes[:2]] == [
        "4 of 6 labeled images show no object", "4 of 6 test images show no object",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("empty", "train", "message"),
    [
        ("maybe", DETECTION, "empty = 'maybe': choose one of background, unlabeled"),
        ("unlabeled", {"task": "pose", "batch_size": 2}, "pose has no labels that show nothing"),
    ],
)
def test_an_impossible_meaning_of_empty_labels_is_refused(
    tmp_path: Path, export: dict[str, Any], empty: str, train: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        create_project(tmp_path / "p", export | {"empty": empty}, train)


def test_folders_of_masks_are_not_part_of_the_pool(tmp_path: Path, picture: Any) -> None:
    data = tmp_path / "data"
    for number in range(6):
        picture(data / "images" / f"{number}.jpg", 8, 8, seed=number)
        mask = data / ("test" if number > 3 else "masks") / f"{number}.png"
        mask.parent.mkdir(exist_ok=True)
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(mask)
    train = {"task": "segmentation", "batch_size": 2}
    values = {"pool": data, "labels": data / "masks", "test_labels": data / "test"}
    project = create_project(
        tmp_path / "p", {n: str(v) for n, v in values.items()} | {"k": 1}, train
    )
    assert list(project.open_pool().ids()) == [f"images/{number}.jpg" for number in range(6)]
    training, test = project.split(project.open_labels())
    assert [item.id for item in training.items] == [f"images/{number}.jpg" for number in range(4)]
    assert test and [item.id for item in test.items] == ["images/4.jpg", "images/5.jpg"]
    values = {"pool": str(data / "masks"), "labels": str(data / "masks")}
    with pytest.raises(LabelError, match="is its own mask; put masks into a folder of their own"):
        create_project(tmp_path / "q", values | {"k": 1}, train)


@pytest.fixture
def held_out(tmp_path: Path) -> tuple[Project, set[str]]:
    """A project of ``0.png`` …, and the images that it holds out."""
    names = images(tmp_path / "pool", [f"{number}.png" for number in range(12)])
    labels = write_labels(tmp_path / "labels.csv", names)
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": 1, "holdout": 0.3}
    project = create_project(tmp_path / "p", values, SMALL)
    _, held = project.split(project.open_labels())
    assert held and len(held) == 4
    return project, {item.id for item in held.items}


def test_held_out_images_stay_so_when_the_pool_moves_into_a_folder(
    held_out: tuple[Project, set[str]], tmp_path: Path
) -> None:
    project, names = held_out
    (tmp_path / "pool").rename(tmp_path / "inner")
    (tmp_path / "pool").mkdir()
    (tmp_path / "inner").rename(tmp_path / "pool" / "b1")
    training, held = project.split(project.open_labels())
    assert held and {item.id for item in held.items} == {f"b1/{name}" for name in names}
    assert len(training) == 8
    first = min(names)
    images(tmp_path / "pool" / "b2", [first])
    write_labels(tmp_path / "labels.csv", [f"b1/{number}.png" for number in range(12)])
    with pytest.raises(LabelError, match=f"holdout.csv: '{first}' may be 'b1/{first}' or 'b2/"):
        project.split(project.open_labels())


def test_missing_held_out_images_are_counted(
    held_out: tuple[Project, set[str]], tmp_path: Path
) -> None:
    project, names = held_out
    first, *others = sorted(names)
    (tmp_path / "pool" / first).unlink()
    write_labels(tmp_path / "labels.csv", [f"{n}.png" for n in range(12) if f"{n}.png" != first])
    problems = Problems()
    _, held = project.split(project.open_labels(), problems)
    assert held and {item.id for item in held.items} == set(others)
    (note,) = problems.notes
    assert note.endswith("holdout.csv: 1 of 4 images is not in the pool any more")


def test_a_project_can_be_inside_its_pool(tmp_path: Path) -> None:
    names = images(tmp_path / "pool", [f"{number:02d}.png" for number in range(20)])
    labels = write_labels(tmp_path / "labels.csv", names[:12])
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": 2}
    project = create_project(tmp_path / "pool" / "project", values, SMALL)
    scores = project.cycles / "001" / "scores"
    scores.mkdir(parents=True)
    pq.write_table(pa.table({"id": names}), scores / "part-00000.parquet")
    Image.new("RGB", (4, 4)).save(project.cycles / "001" / "evaluation.png")
    assert list(project.open_pool().ids()) == names


@pytest.mark.parametrize(
    ("labeled", "pool", "k", "why"),
    [
        (8, 200, 10, "a quarter of the 8 labels, at least 10"),
        (60, 200, 15, "a quarter of the 60 labels"),
        (30, 40, 5, "half of the 10 images that are not labeled"),
        (30, 31, 1, "one image is not labeled"),
        (40, 40, 10, "a quarter of the 40 labels"),
    ],
)
def test_k_is_chosen_by_the_number_of_labels(
    tmp_path: Path, labeled: int, pool: int, k: int, why: str
) -> None:
    names = images(tmp_path / "pool", [f"{number:03d}.png" for number in range(pool)])
    labels = write_labels(tmp_path / "labels.csv", names[:labeled])
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels)}
    problems = Problems()
    project = create_project(tmp_path / "project", values, {}, problems)
    assert project.k == k and load_project(project.root).k == k
    assert any(line.startswith(f"k = {k} ") and why in line for line in problems.notes)


def test_a_k_above_what_is_left_to_label_is_said(tmp_path: Path) -> None:
    names = images(tmp_path / "pool", [f"{number:03d}.png" for number in range(40)])
    for number, name in enumerate(names):
        Image.new("RGB", (4, 4), (5 * number, 0, 0)).save(tmp_path / "pool" / name)
    labels = write_labels(tmp_path / "labels.csv", names[:20])
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": 12}

    def said(name: str, **changes: Any) -> list[str]:
        problems = Problems()
        create_project(tmp_path / name, {**values, **changes}, {}, problems)
        return [line for line in problems.notes if "left to label" in line]

    assert said("enough") == []
    (line,) = said("many", k=21)
    assert line.startswith("k = 21: only 20 left to label in ") and "--at-most" in line
    tested = write_labels(tmp_path / "test.csv", names[28:])  # of the pool, so not to be labeled
    (line,) = said("tested", test_labels=str(tested))
    assert line.startswith("k = 12: only 8 left to label in ")
    (tmp_path / "test").mkdir()
    for name in names[20:29]:  # copies elsewhere
        shutil.copy(tmp_path / "pool" / name, tmp_path / "test" / f"test {name}")
    tested = write_labels(tmp_path / "copies.csv", [f"test {name}" for name in names[20:29]])
    (line,) = said("copies", test=str(tmp_path / "test"), test_labels=str(tested))
    assert line.startswith("k = 12: only 11 left to label in ")


def test_a_table_to_balance_by_is_read_at_once(tmp_path: Path, values: dict[str, Any]) -> None:
    table = tmp_path / "cameras.csv"
    given = {**values, "balance": "camera", "metadata": str(table)}
    with pytest.raises(SettingsError, match="cameras.csv: cannot be read as a table"):
        create_project(tmp_path / "project", given, SMALL)
    table.write_text("id,site\na.png,1\n")
    with pytest.raises(SettingsError, match="camera"):
        create_project(tmp_path / "project", given, SMALL)
    assert not (tmp_path / "project").exists()
    table.write_text("id,camera\na.png,1\n")
    assert create_project(tmp_path / "project", given, SMALL).balance == "camera"


def test_k_has_an_upper_end(
    tmp_path: Path, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lloss.project.create.MOST", 2)
    monkeypatch.setattr("lloss.project.create.LEAST", 1)
    names = images(tmp_path / "many", [f"{number:03d}.png" for number in range(40)])
    labels = write_labels(tmp_path / "labels.csv", names[:20])
    given = {"pool": str(tmp_path / "many"), "labels": str(labels)}
    assert create_project(tmp_path / "project", given, {}).k == 2


def test_a_killed_init_leaves_no_project_of_settings_that_nobody_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = images(tmp_path / "many", [f"{number:03d}.png" for number in range(40)])
    labels = write_labels(tmp_path / "labels.csv", names[:20])
    root, written = tmp_path / "project", list[str]()
    root.mkdir()
    (root / ".lloss.toml.0123abcd.part").write_text("k = 1")
    (root / ".mine.part").touch()

    def write(path: Path, text: str) -> None:
        written.append(path.name)
        write_text(path, text)

    monkeypatch.setattr(create, "write_text", write)
    project = create_project(root, {"pool": str(tmp_path / "many"), "labels": str(labels)}, {})
    assert written == ["lloss.toml"] and project.k == 10
    assert sorted(path.name for path in root.iterdir()) == [".mine.part", "lloss.toml"]


def test_labels_that_are_a_random_sample_are_held_out_if_there_is_no_test_set(
    project: Project,
) -> None:
    (project.root / "holdout.csv").unlink()
    monitoring = change(project, "holdout = 0.2", "holdout = -1\nmonitor = 0.5")
    labeled = monitoring.open_labels()
    assert monitoring.split(labeled)[1] is None
    order = draw_ids([item.id for item in labeled.items], len(labeled), monitoring.monitoring_seed)
    for cycle, drawn in (("000", order[:3]), ("001", order[5:7])):  # others were picked before
        folder = monitoring.cycles / cycle
        folder.mkdir(parents=True)
        rows = [f"{id},,{n},{RANDOM}" for n, id in enumerate(drawn, 1)]
        (folder / "selected.csv").write_text("\n".join(["id,score,rank,reason", *rows, "x,,9,y"]))
        (folder / "summary.json").touch()
    training, held_out = monitoring.split(labeled)
    assert held_out is not None and {item.id for item in held_out.items} == set(order[:7])
    assert {item.id for item in training.items} == set(order[7:])
    assert not (project.root / "holdout.csv").exists()
    rows = [row for row, item in enumerate(labeled.items) if item.id not in order[5:7]]
    problems, partly = Problems(), labeled.take(rows)
    training, held_out = monitoring.split(partly, problems)
    assert held_out is not None and {item.id for item in held_out.items} == set(order[:5])
    assert len(training) == len(partly) - 5 and "2 of the 2 images drawn" in problems.notes[0]
    for share in (0.2, 0):
        asked, problems = change(monitoring, "holdout = -1", f"holdout = {share}"), Problems()
        assert asked.split(labeled, problems)[1] is not None
        (line,) = (line for line in problems.lines() if line.startswith("holdout"))
        assert line.startswith(f"holdout = {share:g}: not drawn, since the images that are drawn")
        monitoring = change(asked, f"holdout = {share}", "holdout = -1")
    tested = change(monitoring, "monitor = 0.5", f'test_labels = "{monitoring.labels}"')
    with pytest.raises(LabelError, match="are in"):  # the test set decides, if there is one
        tested.split(labeled)
