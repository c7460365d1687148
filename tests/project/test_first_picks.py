"""The first images of a project without labels."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from lloss.annotations import Problems
from lloss.errors import PoolError, SelectionError
from lloss.modeling.classifiers import build_classifier
from lloss.project import first_picks
from lloss.project.create import create_project
from lloss.project.cycle import next_cycle
from lloss.project.picks_file import RANDOM, read_picks
from lloss.project.project import Project
from lloss.project.project_file import load_project
from lloss.scores.scores_folder import ScoresFolder
from lloss.selection.hashing import draw_ids
from lloss.tasks import get_task
from lloss.tasks.presets import resolve_settings

from .cycle_steps import TRAIN, add, selected


@pytest.fixture
def pool(photos: Path, tmp_path: Path) -> Path:
    pool = tmp_path / "pool"
    pool.mkdir()
    for path in photos.rglob("*.png"):
        shutil.copy(path, pool / path.relative_to(photos).as_posix().replace("/", "-"))
    (pool / "broken.png").write_bytes(b"")
    return pool


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "network.pt"
    torch.save(build_classifier(TRAIN["model"], 7).state_dict(), path)
    return path


def create(pool: Path, root: Path, weights: object = "none", **values: object) -> Project:
    train = {**TRAIN, "weights": str(weights)}
    return create_project(root, {"pool": str(pool), "k": 6, "holdout": 0, **values}, train)


def test_first_images_are_spread_over_the_pool_by_pretrained_embeddings(
    pool: Path, weights: Path, tmp_path: Path
) -> None:
    project = create(pool, tmp_path / "project", weights, formats=["coco"])
    said: list[str] = []
    outcome = next_cycle(project, said.append)
    assert outcome.fresh and outcome.folder.name == "000" and outcome.summary.selected == 6
    assert outcome.summary.skipped == 1 and "1 image cannot be read" in said
    scores = ScoresFolder(outcome.folder / "scores")
    assert list(scores.columns()) == ["id", "embedding"] and outcome.summary.scored == 60
    picks = selected(outcome.folder)
    assert {id.split("-")[0] for id in picks} == {"bright", "dark", "red"}
    with (outcome.folder / "selected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["score"] == "" and "coverage" in row["reason"] for row in rows)
    page = (outcome.folder / "report.html").read_text("utf-8")
    assert "Label these 6 images next" in page and "nan" not in page.lower()
    assert all(id in page for id in picks) and "No model is trained before" in page
    coco = json.loads((outcome.folder / "selected.coco.json").read_text())
    assert len(coco["images"]) == 6 and not coco["annotations"]
    again = next_cycle(project)
    assert not again.fresh and again.summary == outcome.summary


def test_labeling_goes_on_from_the_first_images(pool: Path, weights: Path, tmp_path: Path) -> None:
    project = create(pool, tmp_path / "project", weights)
    first = selected(next_cycle(project).folder)
    labels = project.root / "labels.csv"
    labels.write_text("id,label\n")
    assert not next_cycle(project).fresh  # still none
    add(labels, first)
    outcome = next_cycle(load_project(project.root))
    assert outcome.folder.name == "001" and outcome.summary.labeled == 6
    assert not set(selected(outcome.folder)) & set(first)


def test_without_trained_weights_the_first_images_are_drawn_at_random(
    pool: Path, tmp_path: Path
) -> None:
    project = create(pool, tmp_path / "project", seed=3)
    said: list[str] = []
    outcome = next_cycle(project, said.append)
    assert any("no trained weights" in line and "drawn at random" in line for line in said)
    names = [path.name for path in pool.iterdir() if path.name != "broken.png"]
    assert selected(outcome.folder) == draw_ids(names, 6, project.monitoring_seed)
    assert outcome.summary.notes and not (outcome.folder / "scores").exists()


def test_an_interrupted_embedding_goes_on_at_the_missing_part(
    pool: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_picks, "PART", 32)
    monkeypatch.setattr(first_picks, "STEP", 16)
    whole = next_cycle(create(pool, tmp_path / "whole", weights))
    project = create(pool, tmp_path / "project", weights)
    embed = first_picks.PretrainedBackbone.embed
    with monkeypatch.context() as patch:
        runs = iter([*[embed] * 3, lambda *_: 1 / 0])
        patch.setattr(first_picks.PretrainedBackbone, "embed", lambda *given: next(runs)(*given))
        with pytest.raises(ZeroDivisionError):
            next_cycle(project)
    part = project.cycles / "000/scores/part-00000.parquet"
    before = part.stat().st_mtime_ns
    outcome = next_cycle(project)
    assert part.stat().st_mtime_ns == before
    assert selected(outcome.folder) == selected(whole.folder)
    ours, theirs = (ScoresFolder(one.folder / "scores") for one in (outcome, whole))
    for a, b in zip(ours.scan(["embedding"]), theirs.scan(["embedding"]), strict=True):
        assert a.equals(b)


def test_other_weights_embed_again(pool: Path, weights: Path, tmp_path: Path) -> None:
    project = create(pool, tmp_path / "project", weights)
    folder = next_cycle(project).folder
    (folder / "summary.json").unlink()
    run = folder / "scores/run.json"
    run.write_text(run.read_text().replace('"size": 8', '"size": 16'))
    said: list[str] = []
    next_cycle(project, said.append)
    assert any("embed again" in line for line in said)


def test_some_first_images_may_be_drawn_to_monitor(
    pool: Path, weights: Path, tmp_path: Path
) -> None:
    for name, start in (("spread", weights), ("drawn", "none")):
        project = create(pool, tmp_path / name, start, monitor=0.34)
        picks = read_picks(next_cycle(project).folder)
        names = [path.name for path in pool.iterdir() if path.name != "broken.png"]
        assert picks.random == draw_ids(names, 2, project.monitoring_seed)
        assert len(picks.chosen) == 4 and not set(picks.chosen) & set(picks.random)
        assert RANDOM in (project.cycles / "000/selected.csv").read_text()


@pytest.mark.parametrize(("share", "said"), [(0.2, True), (0, True), (-1, False)])
def test_a_hold_out_that_monitoring_replaces_is_said(
    pool: Path, tmp_path: Path, share: float, said: bool
) -> None:
    problems, values = Problems(), {"pool": str(pool), "monitor": 0.2, "holdout": share, "k": 6}
    create_project(tmp_path / "project", values, {"model": "resnet10-cifar-narrow"}, problems)
    lines = [line for line in problems.lines() if "held out instead" in line]
    assert len(lines) == said and all(line.startswith(f"holdout = {share:g}") for line in lines)


def test_test_images_are_not_among_the_first(pool: Path, weights: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in pool.iterdir() if path.name != "broken.png")
    tested = tmp_path / "test.csv"
    tested.write_text("id,label\n")
    add(tested, names[:50])
    project = create(pool, tmp_path / "p", weights, k=10, holdout=-1, test_labels=str(tested))
    assert sorted(selected(next_cycle(project).folder)) == names[50:]


@pytest.mark.parametrize("content", [None, "", " \n", "id,label\n"])
def test_labels_that_are_not_there_yet_are_said(
    pool: Path, tmp_path: Path, content: str | None
) -> None:
    labels, problems = tmp_path / "my.csv", Problems()
    if content is not None:
        labels.write_text(content)
    values = {"pool": str(pool), "labels": str(labels)}
    project = create_project(tmp_path / "project", values, TRAIN, problems)
    assert (
        project.unlabeled() and project.k == 30 and project.path(project.labels).resolve() == labels
    )
    what = "does not exist yet" if content is None else "holds no label yet"
    assert any(what in line for line in problems.notes)


def test_a_pool_without_an_image_is_refused(tmp_path: Path, weights: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PoolError, match="no image"):
        create(empty, tmp_path / "project")
    assert not (tmp_path / "project").exists()
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("a", "b"):
        (broken / f"{name}.png").write_bytes(b"x")
    project = create(broken, tmp_path / "project", weights, k=1)
    with pytest.raises(PoolError, match="none of its 2 images can be read"):
        next_cycle(project)


def test_fewer_images_than_k(pool: Path, weights: Path, tmp_path: Path) -> None:
    project = create(pool, tmp_path / "project", weights, k=500)
    with pytest.raises(SelectionError, match="k = 500, but 60 images are left"):
        next_cycle(project)
    assert next_cycle(project, at_most=True).summary.selected == 60


@pytest.mark.parametrize(
    ("task", "model", "size"),
    [
        ("detection", "ssdlite320_mobilenet_v3_large", 96),
        ("pose", "hourglass1-narrow", 64),
        ("segmentation", "deeplabv3_mobilenet_v3_large", 64),
    ],
)
def test_other_tasks_begin_without_labels_too(
    pool: Path, tmp_path: Path, task: str, model: str, size: int
) -> None:
    for path in sorted(pool.glob("*.png"))[6:]:
        path.unlink()
    train = {"task": task, "model": model, "size": size}
    settings = resolve_settings("default", **train, weights="none")
    network = get_task(task).network(settings, ("one", "two", "three")).network
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    project = create_project(
        tmp_path / "project",
        {"pool": str(pool), "k": 3},
        {**train, "weights": str(tmp_path / "weights.pt")},
    )
    assert project.labels == ("masks" if task == "segmentation" else "labels.json")
    said: list[str] = []
    outcome = next_cycle(project, said.append)
    assert outcome.summary.selected == 3 and (outcome.folder / "scores").exists()
    assert any("layers taken over" in line for line in said)
