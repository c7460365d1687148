"""How a project names its pool."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lloss.annotations import Problems
from lloss.errors import SettingsError
from lloss.project import create_project, load_project


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


def test_a_hold_out_of_all_classes_has_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    names = [f"{number:02d}.png" for number in range(20)]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / "pool" / name)
    labels = _labels(tmp_path / "labels.csv", names)
    values = {"pool": str(tmp_path / "pool"), "labels": str(labels), "k": 2, "holdout": 0.2}
    project = create_project(tmp_path / "project", values, {"batch_size": 4})
    problems = Problems()
    assert project.split(project.open_labels(), problems)[1] is not None
    assert problems.notes == []


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
