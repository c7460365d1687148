"""How a project names its pool, and which of its images are labels, held out, or neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.errors import LabelError, PoolError, SettingsError
from lloss.project import Project, create_project, load_project


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
    both = problems.notes[-1]
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
