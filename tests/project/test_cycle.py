"""Projects and their cycles."""

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
from lloss.annotations.label_csv import read_labels
from lloss.errors import (
    DivergedError,
    InterruptedRunError,
    LabelError,
    LlossError,
    ProjectError,
    SelectionError,
    SettingsError,
)
from lloss.manifest import read_manifest
from lloss.project import cycle as cycle_module
from lloss.project.create import create_project
from lloss.project.cycle import history, next_cycle
from lloss.project.project import Project, load_project
from lloss.scores.scores_folder import ScoresFolder
from lloss.statistics.loss_distribution import LossReference
from lloss.training.checkpoint import load_checkpoint
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


def names(photos: Path) -> list[str]:
    return [p.relative_to(photos).as_posix() for p in sorted(photos.rglob("*.png"))]


@pytest.fixture
def pool(photos: Path, tmp_path: Path) -> Path:
    return make_pool(photos, tmp_path / "pool")


def make_pool(photos: Path, flat: Path) -> Path:
    """The photos in one folder, their classes known by nobody but the file names' start."""
    flat.mkdir()
    for name in names(photos):
        shutil.copy(photos / name, flat / name.replace("/", "-"))
    (flat / "broken.png").write_bytes(b"")
    return flat


@pytest.fixture
def labels(pool: Path, tmp_path: Path) -> Path:
    return make_labels(pool, tmp_path / "labels.csv")


def make_labels(pool: Path, path: Path) -> Path:
    path.write_text("id,label\n")
    add(path, sorted(p.name for p in pool.iterdir() if p.name != "broken.png")[::2])
    return path


@pytest.fixture(scope="module")
def uninterrupted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the first cycle selects when nothing happens to it."""
    root = tmp_path_factory.mktemp("uninterrupted")
    pool = make_pool(photos, root / "pool")
    labels = make_labels(pool, root / "labels.csv")
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "holdout": 0.2}
    return selected(next_cycle(create_project(root / "project", values, TRAIN)).folder)


def add(labels: Path, ids: list[str]) -> None:
    with labels.open("a") as file:
        file.writelines(f"{id},{id.split('-')[0]}\n" for id in ids)


@pytest.fixture
def project(pool: Path, labels: Path, tmp_path: Path) -> Project:
    values = {"pool": str(pool), "labels": str(labels), "k": 5, "holdout": 0.2}
    return create_project(tmp_path / "project", values, TRAIN)


def selected(folder: Path) -> list[str]:
    with (folder / "selected.csv").open() as file:
        return [row["id"] for row in csv.DictReader(file)]


def test_selected_csv_calls_no_picks_ranked_that_are_not(
    project: Project, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for better, place in ((False, "number"), (True, "rank"), (None, "rank")):
        monkeypatch.setattr(cycle_module, "ranked", lambda figures, is_better=better: is_better)
        monkeypatch.setattr(cycle_module, "ties", lambda losses, selection: "")
        found = next_cycle(project)
        with (found.folder / "selected.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row[place] for row in rows] == ["1", "2", "3", "4", "5"]
        assert found.summary.ranked is better
        add(labels, [row["id"] for row in rows])


def test_images_that_could_not_be_selected_are_counted_in_the_summary(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, said = cycle_module.select, list[str]()
    monkeypatch.setattr(
        cycle_module, "select", lambda *given: dataclasses.replace(real(*given), infinite=2)
    )
    warnings = next_cycle(project, said.append).summary.warnings
    (line,) = [line for line in warnings if "could not be selected" in line]
    assert line.endswith("2 with an infinite score left out") and f"warning: {line}" in said


@pytest.mark.parametrize(
    "name", ["lloss.project.cycle.train", "lloss.export.export_model.export_artifact"]
)
def test_a_cycle_that_diverged_says_where_its_settings_are(
    project: Project, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*given: object, **named: object) -> None:
        raise DivergedError("training diverged: lower --lr")

    with monkeypatch.context() as patched:
        patched.setattr(name, diverging)
        with pytest.raises(DivergedError, match=r"lower --lr\. Change .* \[train\] ") as refused:
            next_cycle(project)
    assert str(project.root / "lloss.toml") in str(refused.value)
    assert str(refused.value).endswith("run the same command again")
    gone = project.cycles / "001"
    assert (f"remove {gone}" in str(refused.value)) == (gone / "checkpoint.pt").exists()


def test_two_cycles_give_two_times_k_images_that_nobody_labeled_before(
    project: Project, labels: Path
) -> None:
    first = next_cycle(project)
    picks = selected(first.folder)
    assert len(set(picks)) == 5 and not set(picks) & set(read_labels(labels))
    add(labels, picks)
    second = next_cycle(project)
    assert second.folder.name == "002"
    again = selected(second.folder)
    assert len(set(again)) == 5 and not set(again) & set(read_labels(labels))
    assert second.summary.labeled == first.summary.labeled + 5
    assert sorted(p.name for p in second.folder.iterdir()) == [
        "checkpoint.pt", "cycle.json", "evaluation.json", "labels.csv", "metrics.jsonl",
        "model.onnx", "report.html", "scores", "selected.csv", "summary.json",
    ]  # fmt: skip
    page = (second.folder / "report.html").read_text()
    assert all(id in page for id in again)
    assert [point.labeled for point in history(project)] == [24, 29]
    assert second.summary.skipped == 1


def test_the_model_knows_the_losses_of_unlabeled_images_where_there_are_enough(
    project: Project, pool: Path, labels: Path
) -> None:
    first = next_cycle(project)
    assert read_manifest(first.folder / "model.onnx").reference is None
    for number in range(4):
        for path in list(pool.glob("*-0*.png")):
            shutil.copy(path, pool / f"more{number}-{path.name}")
    add(labels, selected(first.folder))
    second = next_cycle(project)
    reference = read_manifest(second.folder / "model.onnx").reference
    losses = ScoresFolder(second.folder / "scores").column("loss")
    assert reference is not None and reference.images == len(losses) > 200
    wanted = LossReference.of(np.asarray(losses, np.float32), reference.pool)
    np.testing.assert_allclose(reference.quantiles, wanted.quantiles, atol=1e-4)


def test_without_new_labels_nothing_is_done(project: Project, labels: Path) -> None:
    first = next_cycle(project)
    before = {p: p.stat().st_mtime_ns for p in project.root.rglob("*") if p.name != ".lock"}
    labels.write_text(labels.read_text() + "\n")  # the same rows in other bytes
    again = next_cycle(project)
    assert not again.fresh and again.folder == first.folder
    assert before == {p: p.stat().st_mtime_ns for p in project.root.rglob("*") if p.name != ".lock"}


def test_a_corrected_label_is_a_new_label(project: Project, labels: Path) -> None:
    next_cycle(project)
    text = labels.read_text()
    labels.write_text(text.replace("bright-000.png,bright", "bright-000.png,red"))
    said: list[str] = []
    assert next_cycle(project, said.append).folder.name == "002"
    assert any("1 of the 30 images that were labeled in cycle 001 have another" in s for s in said)


STEPS = ["train", "evaluate_checkpoint", "select", "write_selection", "write_report", "write_json"]


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_at_any_step_the_cycle_goes_on_from_there(
    project: Project,
    labels: Path,
    uninterrupted: list[str],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise InterruptedRunError("stopped")

    with monkeypatch.context() as patch:
        if step == "write_json":  # the first one begins the cycle
            real, calls = cycle_module.write_json, iter([True, True])
            patch.setattr(
                cycle_module,
                step,
                lambda *a: real(*a) if next(calls, None) else interrupted(),
            )
        else:
            patch.setattr(cycle_module, step, interrupted)
        with pytest.raises(InterruptedRunError):
            next_cycle(project)
    if step != "train":  # once trained, the cycle is finished with the labels it was begun with
        add(labels, uninterrupted[:1])
    outcome = next_cycle(project)
    assert outcome.folder.name == "001" and outcome.summary.labeled == 24
    if step == "train":
        assert selected(outcome.folder) == uninterrupted
    else:  # and nobody is asked for a label that came in since
        assert uninterrupted[0] not in selected(outcome.folder)
        assert set(selected(outcome.folder)) & set(uninterrupted)


def change(project: Project, old: str, new: str) -> Project:
    path = project.root / "lloss.toml"
    path.write_text(path.read_text().replace(old, new))
    return load_project(project.root)


def test_a_setting_that_was_wrong_can_be_mended(project: Project) -> None:
    wrong = change(project, "batch_size = 8", "batch_size = 500")
    with pytest.raises(LabelError, match="fewer than a batch of 500"):
        next_cycle(wrong)
    mended = change(project, "batch_size = 500", "batch_size = 8")
    assert next_cycle(mended).summary.labeled == 24


def test_settings_changed_in_the_middle_of_training_train_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, steps = Trainer.advance, 0

    def interrupted(self: Trainer) -> dict[str, float] | None:
        nonlocal steps
        steps += 1
        if steps == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(InterruptedRunError):
            next_cycle(project)
    said: list[str] = []
    outcome = next_cycle(change(project, "epochs = 2", "epochs = 1"), said.append)
    assert "the settings changed: cycle 001 trains anew" in said
    assert load_checkpoint(outcome.folder).settings.epochs == 1


def test_a_cycle_begun_anew_measures_and_exports_its_own_checkpoint(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removed the checkpoint, so that the cycle trains again."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cycle_module._Walk, "_score", stop)
        with pytest.raises(KeyboardInterrupt):
            next_cycle(project)
    folder = project.cycles / "001"
    first = load_checkpoint(folder).sha256
    (folder / "checkpoint.pt").unlink()
    path = project.root / "lloss.toml"
    path.write_text(path.read_text() + "seed = 7\n")
    next_cycle(load_project(project.root))
    second = load_checkpoint(folder).sha256
    manifest = read_manifest(folder / "model.onnx")
    assert second != first and manifest.provenance["checkpoint_sha256"] == second


def test_settings_changed_after_training_wait_for_the_next_cycle(
    project: Project, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cycle_module, "select", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_cycle(project)
    said: list[str] = []
    changed = change(project, "epochs = 2", "epochs = 1")
    first = next_cycle(changed, said.append)
    assert any("count from the next one" in line for line in said)
    assert load_checkpoint(first.folder).settings.epochs == 2
    add(labels, selected(first.folder))
    assert load_checkpoint(next_cycle(changed).folder).settings.epochs == 1


def test_the_hold_out_is_drawn_once_and_never_trained_on(project: Project, labels: Path) -> None:
    first = next_cycle(project)
    held = read_labels(project.root / "holdout.csv")
    assert len(held) == 6 and set(held.values()) == {"bright", "dark", "red"}
    add(labels, selected(first.folder))
    training, aside = project.split(project.open_labels())
    assert aside is not None and {item.id for item in aside.items} == set(held)
    assert not {item.id for item in training.items} & set(held)


def test_a_test_set_in_the_pool_is_neither_trained_on_nor_selected(
    pool: Path, labels: Path, tmp_path: Path
) -> None:
    rest = sorted({p.name for p in pool.iterdir()} - set(read_labels(labels)) - {"broken.png"})
    tested = tmp_path / "test.csv"
    tested.write_text("id,label\n")
    add(tested, rest[:20])
    values = {"pool": str(pool), "labels": str(labels), "k": 10, "test_labels": str(tested)}
    project = create_project(tmp_path / "p", values, TRAIN)
    outcome = next_cycle(project)
    assert sorted(selected(outcome.folder)) == rest[20:]  # just ten are left
    assert outcome.summary.evaluation is not None
    assert outcome.summary.evaluation["images"] == 20
    assert outcome.summary.labeled == len(read_labels(labels))
    add(labels, rest[:1])
    with pytest.raises(LabelError, match="trained on or tested on, not both"):
        next_cycle(project)


def test_a_test_set_that_lies_in_the_pool_is_neither_scored_nor_trained_on(
    pool: Path, labels: Path, tmp_path: Path
) -> None:
    labeled, rest = list(read_labels(labels)), sorted(p.name for p in pool.iterdir())
    rest = [name for name in rest if name not in labeled and name != "broken.png"]
    for name in (*labeled[:3], *rest[:6]):
        copy = pool / "test" / name.split("-")[0] / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pool / name, copy)
    tested = {p.relative_to(pool).as_posix() for p in (pool / "test").rglob("*.png")}
    values = {"pool": str(pool), "labels": str(labels), "test": str(pool / "test"), "k": 2}
    problems = Problems()
    project = create_project(tmp_path / "project", values, TRAIN, problems)
    assert any("3 of 30 labeled images are in the test set too" in line for line in problems.notes)
    assert any("18 images of the pool are in the test set" in line for line in problems.notes)
    said: list[str] = []
    done = next_cycle(project, said.append)
    assert done.summary.labeled == len(labeled) - 3
    scored = set(ScoresFolder(done.folder / "scores").column("id").tolist())
    assert scored == set(rest[6:])
    assert not tested & set(selected(done.folder))
    assert len(said) == len(set(said))
    assert set(problems.notes[-1:]) <= set(said)


def test_a_k_larger_than_what_is_left_can_be_mended(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.root / "lloss.toml"
    path.write_text(path.read_text().replace("k = 5 ", "k = 500 "))
    with pytest.raises(SelectionError, match="k = 500, but 30 images are left"):
        next_cycle(load_project(project.root))
    assert not (project.cycles / "001" / "selected.csv").exists()
    outcome = next_cycle(load_project(project.root), at_most=True)
    assert outcome.summary.selected == 30


def test_a_pool_all_labeled_has_nothing_to_select(
    project: Project, pool: Path, labels: Path
) -> None:
    (pool / "broken.png").unlink()
    add(labels, sorted({p.name for p in pool.iterdir()} - set(read_labels(labels))))
    with pytest.raises(LabelError, match="every image is labeled"):
        next_cycle(project)


def test_a_warm_start_is_asked_for(
    project: Project, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    real = cycle_module.train
    monkeypatch.setattr(
        cycle_module, "train", lambda *a, **k: (seen.append(k["warm_start"]), real(*a, **k))[1]
    )
    add(labels, selected(next_cycle(project).folder))
    next_cycle(project)
    assert seen == [None, None]  # by default each cycle trains afresh
    path = project.root / "lloss.toml"
    path.write_text("warm_start = true\n" + path.read_text())
    warm = load_project(project.root)
    add(labels, selected(project.cycles / "002"))
    next_cycle(warm)
    assert seen[-1] == project.cycles / "002"


def test_two_at_once_are_kept_apart(project: Project) -> None:
    again = load_project(project.root).locked()
    with project.locked(), pytest.raises(ProjectError, match="another lloss next"), again:
        pass


def test_the_file_is_readable_and_says_where_things_are(project: Project, labels: Path) -> None:
    text = (project.root / "lloss.toml").read_text()
    assert 'labels = "../labels.csv"  # add what' in text and "[train]" in text
    again = load_project(project.root)
    assert again.train == project.train and again.k == 5
    assert again.path(again.labels).resolve() == labels.resolve()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("k = 5", "k = 0"), "k = 0: select at least 1"),
        (("k = 5", 'k = "5"'), "k = '5' is of the wrong kind"),
        (("k = 5", "kk = 5"), "unknown setting 'kk'"),
        (("k = 5", "k = = 5"), "cannot be read"),
        (("lr = 0.05", "rl = 0.05"), r"\[train\]: unknown setting 'rl'"),
        (("lr = 0.05", 'lr = "high"'), "lr = 'high'"),
        (("lr = 0.05", "head = false"), "predicts no loss"),
        (("holdout = 0.2", "holdout = 2"), "holdout = 2"),
        (("holdout = 0.2", 'strategy = "best"'), "strategy 'best'"),
        (("lr = 0.05", 'preset = "paper"'), "preset 'paper'"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    project: Project, change: tuple[str, str], expected: str
) -> None:
    path = project.root / "lloss.toml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises((SettingsError, ProjectError), match=expected):
        load_project(project.root)


def test_init_checks_the_labels_and_leaves_nothing_when_they_are_wrong(
    pool: Path, labels: Path, tmp_path: Path
) -> None:
    add(labels, ["nowhere-1.png"])
    values = {"pool": str(pool), "labels": str(labels), "k": 5}
    with pytest.raises(LabelError, match=r"nowhere-1\.png': is not in the pool"):
        create_project(tmp_path / "new", values, TRAIN)
    assert not (tmp_path / "new").exists()
    labels.write_text("id,label\ndark-001.png,dark\ndark-004.png,dark\n")
    with pytest.raises(LabelError, match="label a second class"):
        create_project(tmp_path / "new", values, TRAIN)
    assert not (tmp_path / "new").exists()


def test_init_does_not_overwrite(project: Project, pool: Path, labels: Path) -> None:
    with pytest.raises(ProjectError, match="is there already"):
        create_project(project.root, {"pool": str(pool), "labels": str(labels), "k": 1}, {})


def test_a_damaged_summary_is_one_line(project: Project) -> None:
    folder = next_cycle(project).folder
    (folder / "summary.json").write_text("{")
    with pytest.raises(ProjectError, match=r"summary\.json: is damaged"):
        next_cycle(project)


def test_a_cycle_missing_between_others_is_named(project: Project, labels: Path) -> None:
    next_cycle(project)
    (project.cycles / "003").mkdir()
    with pytest.raises(ProjectError, match="cycle 002 is not complete, but cycle 003 is there"):
        next_cycle(project)


def test_the_evaluation_is_of_the_very_checkpoint(project: Project) -> None:
    outcome = next_cycle(project)
    from lloss.training.evaluation import evaluate_checkpoint

    _, held = project.split(project.open_labels())
    assert held is not None
    figures = json.loads((outcome.folder / "evaluation.json").read_text())
    assert evaluate_checkpoint(load_checkpoint(outcome.folder), held).as_dict() == figures


def test_all_errors_are_of_the_house() -> None:
    assert issubclass(ProjectError, LlossError)


def test_a_class_that_only_the_test_set_has_counts_as_missed(
    pool: Path, labels: Path, tmp_path: Path
) -> None:
    rest = sorted({p.name for p in pool.iterdir()} - set(read_labels(labels)) - {"broken.png"})
    tested = tmp_path / "test.csv"
    tested.write_text("id,label\n")
    add(tested, rest[:8])
    tested.write_text(tested.read_text() + f"{rest[8]},unicorn\n{rest[9]},unicorn\n")
    values = {"pool": str(pool), "labels": str(labels), "k": 3, "test_labels": str(tested)}
    said: list[str] = []
    outcome = next_cycle(create_project(tmp_path / "p", values, TRAIN), said.append)
    figures = outcome.summary.evaluation
    assert figures is not None and (figures["images"], figures["unseen"]) == (10, 2)
    assert figures["accuracy"] <= 0.8
    assert any("(2 of unknown classes)" in line for line in said)


def test_few_labels_are_held_out_by_the_largest_remainder(
    pool: Path, labels: Path, tmp_path: Path
) -> None:
    values = {"pool": str(pool), "labels": str(labels), "k": 3, "holdout": 0.1}
    project = create_project(tmp_path / "p", values, TRAIN)  # ten a class: one of each
    held = read_labels(project.root / "holdout.csv")
    assert sorted(held.values()) == ["bright", "dark", "red"]
    few = labels.read_text().splitlines()[:9]
    labels.write_text("\n".join([*few, "red-002.png,red", "red-008.png,red"]) + "\n")
    none = create_project(tmp_path / "q", values | {"holdout": 0.05}, TRAIN)
    assert not (none.root / "holdout.csv").exists()
    assert none.split(none.open_labels())[1] is None


def test_a_change_of_the_test_set_waits_for_the_next_cycle(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cycle_module, "evaluate_checkpoint", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_cycle(project)
    outcome = next_cycle(change(project, "holdout = 0.2", "holdout = 0"))
    assert outcome.summary.labeled == 24 and outcome.summary.evaluation is not None


def test_ids_with_strange_characters_survive_the_way_through_csv(tmp_path: Path) -> None:
    from lloss.project.project import labels_text

    strange = {" c\u2028r.png": "a", 'q"uote.png': "b,c", "l\x0bf.png": "d", "ü😀.png": "e"}
    path = tmp_path / "labels.csv"
    path.write_text(labels_text(strange), newline="")
    assert read_labels(path) == strange


def test_an_image_that_no_csv_can_name_is_not_selected_and_said(
    project: Project, pool: Path, labels: Path
) -> None:
    shutil.copy(pool / "broken.png", pool / "damaged\n.png")
    for name in ("line\nfeed.png", "carriage\rreturn.png"):
        shutil.copy(next(pool.glob("dark-*.png")), pool / name)
    said: list[str] = []
    change(project, "k = 5", "k = 500")
    outcome = next_cycle(load_project(project.root), said.append, at_most=True)
    unlabeled = {path.name for path in pool.iterdir()} - set(read_labels(labels))
    picks = selected(outcome.folder)
    assert set(picks) == {name for name in unlabeled if name.isprintable()} - {"broken.png"}
    assert "2 images are not selected" in (line := next(l for l in said if "selected, as" in l))
    assert "'carriage\\rreturn.png'" in line and "\n" not in line


def test_doubts_of_the_network_stand_in_summary_and_report(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes later sees no terminal; the cycle may have been interrupted after training."""
    doubt = "its predictions are not to be relied on"
    monkeypatch.setattr("lloss.training.run.doubts", lambda *_: [doubt])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycle_module, "evaluate_checkpoint", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next_cycle(project)
    said: list[str] = []
    outcome = next_cycle(project, said.append)
    assert doubt in outcome.summary.warnings and f"note: {doubt}" in said
    assert doubt[1:] in (outcome.folder / "report.html").read_text()
