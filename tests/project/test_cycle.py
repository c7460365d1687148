"""Projects and their cycles; most tests start from copies of one project with one cycle."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from lloss.annotations import Problems
from lloss.annotations.label_csv import labels_text, read_labels
from lloss.errors import (
    DivergedError,
    InterruptedRunError,
    LabelError,
    ProjectError,
    SelectionError,
    SettingsError,
)
from lloss.manifest import read_manifest
from lloss.project import cycle as cycle_module
from lloss.project.create import create_project
from lloss.project.cycle import next_cycle
from lloss.project.project import Project, load_project
from lloss.scores.scores_folder import ScoresFolder
from lloss.statistics.loss_distribution import LossReference
from lloss.training.checkpoint import load_checkpoint
from lloss.training.evaluation import evaluate_checkpoint
from lloss.training.trainer import Trainer

TRAIN = {
    "model": "resnet10-cifar-narrow",
    "size": 8,
    "hidden": 8,
    "epochs": 2,
    "batch_size": 8,
    "lr": 0.05,
    "amp": "off",
}


@pytest.fixture(scope="module")
def templates(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``new``: a pool, ``labels.csv`` of every second image, a project; ``done``: one cycle on."""
    root = tmp_path_factory.mktemp("templates")
    pool = root / "new" / "pool"
    pool.mkdir(parents=True)
    for path in photos.rglob("*.png"):
        shutil.copy(path, pool / path.relative_to(photos).as_posix().replace("/", "-"))
    names = sorted(path.name for path in pool.iterdir())
    (pool / "broken.png").write_bytes(b"")
    labels = root / "new" / "labels.csv"
    labels.write_text("id,label\n")
    add(labels, names[::2])
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "holdout": 0.2}
    create_project(root / "new" / "project", values, TRAIN)
    shutil.copytree(root / "new", root / "done")
    next_cycle(load_project(root / "done" / "project"))
    return root


@pytest.fixture
def project(templates: Path, tmp_path: Path) -> Project:
    """A project without a cycle."""
    shutil.copytree(templates / "new", tmp_path / "copy")
    return load_project(tmp_path / "copy" / "project")


@pytest.fixture
def done(templates: Path, tmp_path: Path) -> Project:
    """A project with one finished cycle."""
    shutil.copytree(templates / "done", tmp_path / "copy")
    run = tmp_path / "copy/project/cycles/001/scores/run.json"  # contains the pool's path
    run.write_text(run.read_text().replace(str(templates / "done"), str(tmp_path / "copy")))
    return load_project(tmp_path / "copy" / "project")


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return tmp_path / "copy" / "pool"


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return tmp_path / "copy" / "labels.csv"


STEPS = {
    "evaluate_checkpoint": "evaluation.json",
    "export_artifact": "model.onnx",
    "score_pool": "scores",
    "select": "selected.csv",
    "write_report": "report.html",
    "asdict": "summary.json",
}
"""What each step of a cycle after training calls, and what it writes."""


def undo(project: Project, step: str) -> Path:
    """Remove what the first cycle wrote from a step on."""
    folder, names = project.cycles / "001", list(STEPS)
    for name in names[names.index(step) :]:
        path = folder / STEPS[name]
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return folder


def add(labels: Path, ids: list[str]) -> None:
    with labels.open("a") as file:
        file.writelines(f"{id},{id.split('-')[0]}\n" for id in ids)


def unlabeled(pool: Path, labels: Path) -> list[str]:
    names = {path.name for path in pool.iterdir()} - {"broken.png"}
    return sorted(names - set(read_labels(labels)))


def selected(folder: Path) -> list[str]:
    with (folder / "selected.csv").open() as file:
        return [row["id"] for row in csv.DictReader(file)]


def change(project: Project, old: str, new: str) -> Project:
    path = project.root / "lloss.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return load_project(project.root)


@pytest.mark.parametrize(("better", "column"), [(False, "number"), (True, "rank"), (None, "rank")])
def test_picks_are_called_ranked_only_if_they_are(
    done: Project, monkeypatch: pytest.MonkeyPatch, better: bool | None, column: str
) -> None:
    undo(done, "select")
    monkeypatch.setattr(cycle_module, "ranked", lambda _: better)
    monkeypatch.setattr(cycle_module, "ties", lambda *_: "")
    outcome = next_cycle(done)
    with (outcome.folder / "selected.csv").open() as file:
        assert [row[column] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]
    assert outcome.summary.ranked is better


def test_images_that_could_not_be_selected_are_counted_in_the_summary(
    done: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(done, "select")
    real, said = cycle_module.select, list[str]()
    monkeypatch.setattr(
        cycle_module, "select", lambda *given: dataclasses.replace(real(*given), infinite=2)
    )
    warnings = next_cycle(done, said.append).summary.warnings
    (line,) = [line for line in warnings if "could not be selected" in line]
    assert line.endswith("2 with an infinite score left out") and f"warning: {line}" in said


@pytest.mark.parametrize("step", ["train", "export_artifact"])
def test_a_diverged_cycle_names_the_settings_to_change(
    done: Project, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo(done, "export_artifact")

    def diverge(*_: object, **__: object) -> None:
        raise DivergedError("training diverged: lower --lr")

    monkeypatch.setattr(cycle_module, step, diverge)
    with pytest.raises(DivergedError, match=r"lower --lr\. Change .* \[train\] ") as refused:
        next_cycle(done)
    assert str(done.root / "lloss.toml") in str(refused.value)
    assert str(refused.value).endswith("run the same command again")
    remove = f"remove {done.cycles / '001'}"
    assert (remove in str(refused.value)) == (step == "export_artifact")


def test_a_second_cycle_selects_other_images_and_writes_every_file(
    done: Project, labels: Path
) -> None:
    first = selected(done.cycles / "001")
    add(labels, first)
    second = next_cycle(done)
    again = selected(second.folder)
    assert len({*first, *again}) == 10 and not set(again) & set(read_labels(labels))
    assert second.folder.name == "002" and second.summary.labeled == 24 + 5
    assert sorted(p.name for p in second.folder.iterdir()) == [
        "checkpoint.pt", "cycle.json", "evaluation.json", "labels.csv", "metrics.jsonl",
        "model.onnx", "report.html", "scores", "selected.csv", "summary.json",
    ]  # fmt: skip
    page = (second.folder / "report.html").read_text()
    assert all(id in page for id in again)
    assert second.summary.skipped == 1
    _, held_out = done.split(done.open_labels())
    assert held_out is not None
    figures = json.loads((second.folder / "evaluation.json").read_text())
    checkpoint = load_checkpoint(second.folder)
    assert evaluate_checkpoint(checkpoint, held_out).as_dict() == figures


def test_the_model_stores_the_losses_of_unlabeled_images_if_there_are_enough(
    done: Project, pool: Path, labels: Path
) -> None:
    model = undo(done, "export_artifact") / "model.onnx"
    next_cycle(done)
    assert read_manifest(model).reference is None
    undo(done, "export_artifact")
    for number in range(4):
        for path in list(pool.glob("*-0*.png")):
            shutil.copy(path, pool / f"more{number}-{path.name}")
    folder = next_cycle(done).folder
    reference = read_manifest(model).reference
    losses = ScoresFolder(folder / "scores").column("loss")
    assert reference is not None and reference.images == len(losses) > 200
    wanted = LossReference.of(np.asarray(losses, np.float32), reference.pool)
    np.testing.assert_allclose(reference.quantiles, wanted.quantiles, atol=1e-4)


def test_without_new_labels_nothing_is_done(done: Project, labels: Path) -> None:
    def files() -> dict[Path, int]:
        paths = [path for path in done.root.rglob("*") if path.name != ".lock"]
        return {path: path.stat().st_mtime_ns for path in paths}

    before = files()
    labels.write_text(labels.read_text() + "\n")  # the same rows in other bytes
    outcome = next_cycle(done)
    assert not outcome.fresh and outcome.folder.name == "001" and files() == before


def test_a_corrected_label_is_a_new_label(
    done: Project, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle_module, "train", lambda *_, **__: 1 / 0)
    labels.write_text(labels.read_text().replace("bright-000.png,bright", "bright-000.png,red"))
    said: list[str] = []
    with pytest.raises(ZeroDivisionError):
        next_cycle(done, said.append)
    assert (done.cycles / "002" / "cycle.json").exists()
    assert any("1 of the 30 images that were labeled in cycle 001 have another" in s for s in said)


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_cycle_resumes_at_that_step(
    done: Project, labels: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first = selected(done.cycles / "001")
    undo(done, step)
    with monkeypatch.context() as patch:
        patch.setattr(cycle_module, step, lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_cycle(done)
    add(labels, first[:1])  # the cycle keeps its labels, but does not select a new one again
    outcome = next_cycle(done)
    assert outcome.folder.name == "001" and outcome.summary.labeled == 24
    again = selected(outcome.folder)
    assert first[0] not in again and set(first[1:]) & set(again)


def test_an_interrupted_training_gives_the_same_selection(
    project: Project, templates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, steps = Trainer.advance, iter(range(99))

    def interrupt(self: Trainer) -> dict[str, float] | None:
        if next(steps) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupt)
        with pytest.raises(InterruptedRunError, match="cycle 001 was stopped in training"):
            next_cycle(project)
    copy = shutil.copytree(project.root, project.root.parent / "changed")
    assert selected(next_cycle(project).folder) == selected(
        templates / "done" / "project" / "cycles" / "001"
    )
    said: list[str] = []
    changed = next_cycle(change(load_project(copy), "epochs = 2", "epochs = 1"), said.append)
    assert "the settings changed: train cycle 001 from the start" in said
    assert load_checkpoint(changed.folder).settings.epochs == 1


def test_an_invalid_setting_can_be_corrected(project: Project) -> None:
    wrong = change(project, "batch_size = 8", "batch_size = 500")
    with pytest.raises(LabelError, match="fewer than a batch of 500"):
        next_cycle(wrong)
    corrected = change(project, "batch_size = 500", "batch_size = 8")
    assert next_cycle(corrected).summary.labeled == 24


def test_a_removed_checkpoint_is_trained_measured_and_exported_again(done: Project) -> None:
    folder = undo(done, "select")
    first = load_checkpoint(folder).sha256
    (folder / "checkpoint.pt").unlink()
    shutil.rmtree(folder / "scores")
    next_cycle(change(done, "[train]", "[train]\nseed = 7"))
    second = load_checkpoint(folder).sha256
    manifest = read_manifest(folder / "model.onnx")
    assert second != first and manifest.provenance["checkpoint_sha256"] == second


def test_settings_changed_after_training_apply_from_the_next_cycle(
    done: Project, labels: Path
) -> None:
    undo(done, "select")
    said: list[str] = []
    changed = change(change(done, "epochs = 2", "epochs = 1"), "holdout = 0.2", "holdout = 0")
    first = next_cycle(changed, said.append)
    assert any("apply from the next cycle on" in line for line in said)
    assert load_checkpoint(first.folder).settings.epochs == 2
    assert first.summary.labeled == 24 and first.summary.evaluation is not None
    add(labels, selected(first.folder))
    second = next_cycle(changed, said.append)
    assert load_checkpoint(second.folder).settings.epochs == 1
    assert second.summary.labeled == 35 and second.summary.evaluation is None


def test_the_hold_out_is_drawn_once_and_never_trained_on(done: Project, labels: Path) -> None:
    held = read_labels(done.root / "holdout.csv")
    assert len(held) == 6 and set(held.values()) == {"bright", "dark", "red"}
    add(labels, selected(done.cycles / "001"))
    training, aside = done.split(done.open_labels())
    assert aside is not None and {item.id for item in aside.items} == set(held)
    assert not {item.id for item in training.items} & set(held)


def test_test_labels_of_the_pool_are_neither_trained_on_nor_selected(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    rest = unlabeled(pool, labels)
    tested = tmp_path / "test.csv"
    tested.write_text("id,label\n")
    add(tested, rest[:18])
    tested.write_text(tested.read_text() + f"{rest[18]},unicorn\n{rest[19]},unicorn\n")
    values = {"pool": str(pool), "labels": str(labels), "k": 10, "test_labels": str(tested)}
    said: list[str] = []
    project = create_project(tmp_path / "p", values, TRAIN)
    outcome = next_cycle(project, said.append)
    assert sorted(selected(outcome.folder)) == rest[20:]  # the ten that are left
    assert outcome.summary.labeled == len(read_labels(labels))
    figures = outcome.summary.evaluation  # a class that only the test set has counts as wrong
    assert figures is not None and (figures["images"], figures["unseen"]) == (20, 2)
    assert figures["accuracy"] <= 0.9
    assert any("(2 of unknown classes)" in line for line in said)
    add(labels, rest[:1])
    with pytest.raises(LabelError, match="trained on or tested on, not both"):
        next_cycle(project)


def test_a_test_folder_inside_the_pool_is_neither_scored_nor_trained_on(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    labeled, rest = list(read_labels(labels)), unlabeled(pool, labels)
    for name in (*labeled[:3], *rest[:6]):
        copy = pool / "test" / name.split("-")[0] / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pool / name, copy)
    values = {"pool": str(pool), "labels": str(labels), "test": str(pool / "test"), "k": 2}
    problems = Problems()
    created = create_project(tmp_path / "p", values, TRAIN, problems)
    assert any("3 of 30 labeled images are in the test set too" in line for line in problems.notes)
    assert any("18 images of the pool are in the test set" in line for line in problems.notes)
    said: list[str] = []
    outcome = next_cycle(created, said.append)
    assert outcome.summary.labeled == len(labeled) - 3
    scored = set(ScoresFolder(outcome.folder / "scores").column("id").tolist())
    assert scored == set(rest[6:]) and set(selected(outcome.folder)) <= scored
    assert len(said) == len(set(said)) and set(problems.notes) & set(said)


def test_a_k_larger_than_what_is_left_can_be_corrected(done: Project) -> None:
    folder = undo(done, "select")
    too_many = change(done, "k = 5 ", "k = 500 ")
    with pytest.raises(SelectionError, match="k = 500, but 30 images are left"):
        next_cycle(too_many)
    assert not (folder / "selected.csv").exists()
    assert next_cycle(too_many, at_most=True).summary.selected == 30


def test_a_pool_all_labeled_has_nothing_to_select(done: Project, pool: Path, labels: Path) -> None:
    undo(done, "score_pool")
    for name in ["broken.png", *unlabeled(pool, labels)]:
        (pool / name).unlink()
    with pytest.raises(LabelError, match="every image is labeled"):
        next_cycle(done)


@pytest.mark.parametrize("warm", [False, True])
def test_a_warm_start_is_opt_in(
    done: Project, labels: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    starts: list[object] = []

    def stop(*_: object, warm_start: object, **__: object) -> None:
        starts.append(warm_start)
        raise InterruptedRunError("stopped")

    monkeypatch.setattr(cycle_module, "train", stop)
    add(labels, selected(done.cycles / "001"))
    with pytest.raises(InterruptedRunError):
        next_cycle(change(done, "k = 5 ", f"warm_start = {str(warm).lower()}\nk = 5 "))
    assert starts == [done.cycles / "001" if warm else None]


def test_two_at_once_are_kept_apart(project: Project) -> None:
    again = load_project(project.root).locked()
    with project.locked(), pytest.raises(ProjectError, match="another lloss next"), again:
        pass


def test_the_file_is_readable_and_has_relative_paths(project: Project, labels: Path) -> None:
    text = (project.root / "lloss.toml").read_text()
    assert 'labels = "../labels.csv"  # add what' in text and "[train]" in text
    assert project.train.epochs == 2 and project.k == 5
    assert project.path(project.labels).resolve() == labels.resolve()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("k = 5", "k = 0", "k = 0: select at least 1"),
        ("k = 5", 'k = "5"', "k = '5' has the wrong type; give a value of type int"),
        ("k = 5", "k = true", "k = True has the wrong type"),
        ("k = 5", "kk = 5", "unknown setting 'kk'"),
        ("k = 5", "k = = 5", "cannot be read"),
        ("lr = 0.05", "rl = 0.05", r"\[train\]: unknown setting 'rl'"),
        ("lr = 0.05", 'lr = "high"', "lr = 'high'"),
        ("lr = 0.05", "head = false", "predicts no loss"),
        ("holdout = 0.2", "holdout = 2", "holdout = 2"),
        ("holdout = 0.2", 'strategy = "best"', "strategy 'best'"),
        ("lr = 0.05", 'preset = "paper"', "preset 'paper'"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    project: Project, old: str, new: str, expected: str
) -> None:
    with pytest.raises((SettingsError, ProjectError), match=expected):
        change(project, old, new)


def test_init_checks_the_labels_and_leaves_nothing_behind(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    values = {"pool": str(pool), "labels": str(labels), "k": 5}
    with pytest.raises(ProjectError, match="already exists"):
        create_project(project.root, values, {})
    add(labels, ["nowhere-1.png"])
    with pytest.raises(LabelError, match=r"nowhere-1\.png': is not in the pool"):
        create_project(tmp_path / "new", values, TRAIN)
    labels.write_text("id,label\ndark-001.png,dark\ndark-004.png,dark\n")
    with pytest.raises(LabelError, match="label a second class"):
        create_project(tmp_path / "new", values, TRAIN)
    assert not (tmp_path / "new").exists()


def test_damaged_and_missing_cycles_are_named(done: Project) -> None:
    (done.cycles / "003").mkdir()
    with pytest.raises(ProjectError, match="cycle 002 is not complete, but cycle 003 exists"):
        next_cycle(done)
    (done.cycles / "001" / "summary.json").write_text("{")
    with pytest.raises(ProjectError, match=r"summary\.json: is damaged"):
        next_cycle(done)


def test_few_labels_are_held_out_by_the_largest_remainder(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    values = {"pool": str(pool), "labels": str(labels), "k": 3, "holdout": 0.1}
    tenth = create_project(tmp_path / "p", values, TRAIN)  # ten per class: one of each
    held = read_labels(tenth.root / "holdout.csv")
    assert sorted(held.values()) == ["bright", "dark", "red"]
    few = labels.read_text().splitlines()[:9]
    labels.write_text("\n".join([*few, "red-002.png,red", "red-008.png,red"]) + "\n")
    none = create_project(tmp_path / "q", values | {"holdout": 0.05}, TRAIN)
    assert not (none.root / "holdout.csv").exists()
    assert none.split(none.open_labels())[1] is None


def test_ids_with_unusual_characters_survive_csv(tmp_path: Path) -> None:
    unusual = {" c\u2028r.png": "a", 'q"uote.png': "b,c", "l\x0bf.png": "d", "ü😀.png": "e"}
    path = tmp_path / "labels.csv"
    path.write_text(labels_text(unusual), newline="")
    assert read_labels(path) == unusual


def test_an_image_that_csv_cannot_name_is_not_selected(
    done: Project, pool: Path, labels: Path
) -> None:
    undo(done, "score_pool")
    shutil.copy(pool / "broken.png", pool / "damaged\n.png")
    for name in ("line\nfeed.png", "carriage\rreturn.png"):
        shutil.copy(next(pool.glob("dark-*.png")), pool / name)
    said: list[str] = []
    outcome = next_cycle(change(done, "k = 5", "k = 500"), said.append, at_most=True)
    printable = {name for name in unlabeled(pool, labels) if name.isprintable()}
    assert set(selected(outcome.folder)) == printable
    (line,) = [line for line in said if "2 images are not selected" in line]
    assert "'carriage\\rreturn.png'" in line and "\n" not in line


def test_doubts_about_the_network_reach_summary_and_report(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the cycle was interrupted after the training that raised them."""
    doubt = "its predictions are not to be relied on"
    monkeypatch.setattr("lloss.training.run.doubts", lambda *_: [doubt])
    with monkeypatch.context() as patch:
        patch.setattr(cycle_module, "evaluate_checkpoint", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_cycle(project)
    said: list[str] = []
    outcome = next_cycle(project, said.append)
    assert doubt in outcome.summary.warnings and f"note: {doubt}" in said
    assert doubt[1:] in (outcome.folder / "report.html").read_text()
