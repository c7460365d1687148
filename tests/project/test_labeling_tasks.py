from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lloss
from lloss.annotations import Problems
from lloss.data.class_labels import read_class_labels
from lloss.errors import LlossError, PoolError, ScoresError, SettingsError
from lloss.images.decode import decode_whole
from lloss.pools import open_pool
from lloss.project.cycle import next_cycle
from lloss.project.project import Project
from lloss.project.project_file import load_project
from lloss.selection import Selection, SelectionSettings
from tests.command_line import call

from .cycle_steps import change


def tasks_in(path: Path) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return tasks


def picks_of(*ids: str) -> Selection:
    scores = np.arange(len(ids), 0, -1, dtype=np.float64)
    count = len(ids)
    return Selection([*ids], scores, count, 0, 0, count, SelectionSettings(k=count))


def test_classes_come_from_the_scores_alone(
    done: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cycle = done.cycles / "001"
    (cycle / "checkpoint.pt").unlink()
    words = ["select", cycle / "scores", "-k", 4, "--format"]
    call(capsys, *words, "cvat", "-o", tmp_path / "tasks.xml", code=0)
    found = read_class_labels(tmp_path / "tasks.xml", Problems())
    scores = lloss.ScoresFolder(cycle / "scores")
    classes = lloss.read_manifest(cycle / "model.onnx").classes
    expected = {
        row["id"]: classes[int(row["prediction"])]
        for batch in scores.scan(["id", "prediction"], list(found))
        for row in batch.to_pylist()
    }
    assert found == expected and len(found) == 4
    result = call(capsys, *words, "label-studio", "-o", tmp_path / "tasks.json", code=0)
    assert "tasks.interface.xml: the labeling interface" in result.err
    tasks = tasks_in(tmp_path / "tasks.json")
    assert [task["data"]["lloss_id"] for task in tasks] == list(found)
    for task in tasks:
        path = Path("/") / task["data"]["image"].partition("?d=")[2]
        assert path == Path(str(done.path(done.pool))).resolve() / task["data"]["lloss_id"]
        choices = task["predictions"][0]["result"][0]["value"]["choices"]
        assert choices == [found[task["data"]["lloss_id"]]]


def test_the_list_has_images_alone_where_no_predictions_are(
    done: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cycle, out = done.cycles / "001", tmp_path / "tasks.json"
    words = ["select", cycle / "scores", "-k", 2, "--format", "coco", "-o", out]
    result = call(capsys, *words, "--no-predictions", code=0)
    assert "without predictions" not in result.err
    document = json.loads(out.read_text())
    assert document["annotations"] == [] and len(document["categories"]) == 3
    for more in ([], ["--no-predictions"]):
        result = call(capsys, *words, *more, "--min-score", 0.5, code=2)
        assert "min_score: is of the objects and joints of predictions" in result.err
    (cycle / "model.onnx").rename(cycle / "moved.onnx")
    result = call(capsys, *words, code=0)
    assert re.search(
        "images alone, without predictions: the model that made .*scores was", result.err
    )
    assert json.loads(out.read_text())["annotations"] == []
    call(capsys, *words, "--run", cycle / "moved.onnx", code=0)
    assert len(json.loads(out.read_text())["annotations"]) == 2
    result = call(capsys, *words, "--run", cycle, code=0)  # by the network
    assert "not checked that" in result.err
    assert len(json.loads(out.read_text())["annotations"]) == 2


def test_another_model_or_run_is_refused(done: Project, tmp_path: Path, onnx_file: Path) -> None:
    cycle, out = done.cycles / "001", tmp_path / "tasks.json"
    picks = lloss.select(cycle / "scores", k=2)

    def write(model: Path) -> None:
        lloss.write_tasks(picks, out, format="coco", scores=cycle / "scores", model=model)

    with pytest.raises(ScoresError, match=r"onnx: is not the model that made .*scores; give that"):
        write(onnx_file)
    shutil.copytree(cycle, tmp_path / "other")
    with (tmp_path / "other" / "checkpoint.pt").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ScoresError, match="is not the run whose model made"):
        write(tmp_path / "other")
    with pytest.raises(SettingsError, match="a int: give a run's folder, a model.onnx or a model"):
        write(3)  # type: ignore[arg-type]
    assert not out.exists()


def test_images_within_larger_files_are_copied(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "pool.npy", images)
    lines = lloss.write_tasks(
        picks_of("3", "0"), tmp_path / "tasks.json", format="coco", pool=tmp_path / "pool.npy"
    )
    assert any("tasks_images: copies of the images" in line for line in lines)
    document = json.loads((tmp_path / "tasks.json").read_text())
    assert [one["file_name"] for one in document["images"]] == ["3.png", "0.png"]
    copied = open_pool(tmp_path / "tasks_images")
    assert [(item.id, (decode_whole(item.read()) == images[int(item.id[0])]).all()) for item in
            copied] == [("0.png", True), ("3.png", True)]  # fmt: skip
    # They are never mixed with others.
    with pytest.raises(LlossError, match="tasks_images: exists already"):
        lloss.write_tasks(
            picks_of("1"), tmp_path / "tasks.json", format="coco", pool=tmp_path / "pool.npy"
        )
    assert len(json.loads((tmp_path / "tasks.json").read_text())["images"]) == 2


def test_files_are_copied_if_asked_for(tmp_path: Path, picture: Any) -> None:
    picture(tmp_path / "pool" / "a" / "1.png", 8, 6)
    (tmp_path / "pool" / "raw").write_bytes((tmp_path / "pool/a/1.png").read_bytes())
    lloss.write_tasks(
        picks_of("a/1.png"), tmp_path / "tasks", format="yolo", pool=tmp_path / "pool",
        copy_images=True,
    )  # fmt: skip
    copy = tmp_path / "tasks/images/train/a/1.png"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (tmp_path / "pool/a/1.png").read_bytes()
    # A list of paths may name files without a suffix.
    (tmp_path / "list.txt").write_text("pool/raw\n")
    lloss.write_tasks(
        picks_of("pool/raw"), tmp_path / "t.xml", format="cvat", pool=tmp_path / "list.txt",
        copy_images=True,
    )  # fmt: skip
    with Image.open(tmp_path / "t_images/pool/raw.png") as image:
        assert image.size == (8, 6)


def test_images_that_are_gone_are_counted(tmp_path: Path, picture: Any) -> None:
    for name in "abc":
        picture(tmp_path / "pool" / f"{name}.png", 8, 6)
    pool = open_pool(tmp_path / "pool")
    (tmp_path / "pool" / "b.png").write_bytes(b"")
    lines = lloss.write_tasks(
        picks_of("a.png", "b.png", "c.png"), tmp_path / "t.json", format="coco", pool=pool
    )
    gone = "1 selected image cannot be read any more: left out ('b.png', for example)"
    assert gone in lines
    listed = json.loads((tmp_path / "t.json").read_text())["images"]
    assert [one["file_name"] for one in listed] == ["a.png", "c.png"]
    with pytest.raises(PoolError, match="none of the 1 selected images can be read"):
        lloss.write_tasks(picks_of("b.png"), tmp_path / "u.json", format="coco", pool=pool)
    assert not (tmp_path / "u.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "voc"}, "format 'voc': choose one of coco, yolo, cvat, label-studio"),
        ({"format": "coco", "scores_of": 1}, "scores_of: unknown; known are copy_images, format"),
        ({"format": "coco", "min_score": 40}, "min_score = 40: give a score from 0 to 1"),
        ({"format": "coco", "image_url": "x"}, "image_url: the format coco has no URLs"),
        ({"format": "label-studio", "image_url": "{name}"}, "only {path} and {id} are known"),
        ({"format": "label-studio", "image_url": "http://x/"}, "is the same for all images"),
    ],
)
def test_settings_that_mean_nothing(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        lloss.write_tasks(picks_of("a"), tmp_path / "t", pool="nowhere", **settings)


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio"])
def test_a_folder_is_no_list(tmp_path: Path, picture: Any, format: Any) -> None:
    picture(tmp_path / "pool" / "a.png", 8, 6)
    for path in (tmp_path, Path(), Path("/")):
        with pytest.raises(SettingsError, match="is a folder; name a file in it"):
            lloss.write_tasks(picks_of("a.png"), path, format=format, pool=tmp_path / "pool")
    assert [path.name for path in tmp_path.iterdir()] == ["pool"]
    assert not list(tmp_path.parent.glob(f"{tmp_path.name}*.xml"))


def test_without_scores_the_pool_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match="without scores it is not known; give the images"):
        lloss.write_tasks(picks_of("a"), tmp_path / "t.json", format="coco")


def test_yolo_has_no_classes_of_images(done: Project, tmp_path: Path) -> None:
    scores = done.cycles / "001" / "scores"
    picks = lloss.select(scores, k=2)
    with pytest.raises(SettingsError, match="no place for what a model of classification finds"):
        lloss.write_tasks(picks, tmp_path / "t", format="yolo", scores=scores)
    lloss.write_tasks(picks, tmp_path / "t", format="yolo", scores=scores, predictions=False)
    assert len([path for path in (tmp_path / "t").rglob("*") if path.is_symlink()]) == 2
    with pytest.raises(SettingsError, match="no place for what a model of classification finds"):
        change(done, "pool =", 'formats = ["yolo"]\npool =')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "coco"], "--format coco writes a file or a folder: give -o"),
        (["--run", "x", "-o", "ids.csv"], "--run: for a task list; give --format coco"),
        (["--no-predictions", "-o", "i.txt"], "--no-predictions: for a task list"),
    ],
)
def test_options_that_do_not_fit(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call(capsys, "select", "nowhere", "-k", 1, *words, code=2)
    assert message in " ".join(result.err.split())


def test_a_cycle_writes_the_lists_that_its_project_asks_for(done: Project) -> None:
    project = change(done, "pool =", 'formats = ["label-studio"]\npool =')
    cycle = project.cycles / "001"
    (cycle / "summary.json").unlink()
    said: list[str] = []
    next_cycle(load_project(project.root), said.append)
    tasks = tasks_in(cycle / "selected.label-studio.json")
    with (cycle / "selected.csv").open() as file:
        ids = [line.partition(",")[0] for line in file][1:]
    assert [task["data"]["lloss_id"] for task in tasks] == ids
    assert all(task["predictions"][0]["result"] for task in tasks)
    assert any("selected.label-studio.json: task list of 5 images" in line for line in said)
    with pytest.raises(SettingsError, match="formats = 'voc': choose one of coco, yolo"):
        change(project, '["label-studio"]', '["voc"]')
