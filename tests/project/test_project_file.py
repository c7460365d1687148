"""``lloss.toml``: what init writes and load refuses."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lloss.annotations.label_csv import read_labels
from lloss.errors import LabelError, ProjectError, SettingsError
from lloss.project.choice_settings import check_choice, check_class_weight, usual_class_weight
from lloss.project.create import create_project
from lloss.project.project import Project
from lloss.project.project_file import load_project
from lloss.tasks import get_task

from .cycle_steps import TRAIN, add, change


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
        ("k = 5", 'k = "5"', "k = '5': must be int"),
        ("k = 5", "kk = 5", "unknown setting 'kk'"),
        ("k = 5", "k = = 5", "cannot be read"),
        ("lr = 0.05", "rl = 0.05", r"\[train\]: unknown setting 'rl'"),
        ("lr = 0.05", "head = false", "predicts no loss"),
        ("holdout = 0.2", "holdout = 2", "holdout = 2"),
        ("holdout = 0.2", 'strategy = "best"', "strategy 'best': choose one of top, diverse"),
        ("holdout = 0.2", 'by = "speed"', "by = 'speed': choose one of auto, loss, entropy"),
        ("holdout = 0.2", 'by = "bald"', "by = 'bald': only lloss simulate measures it"),
        ("holdout = 0.2", 'strategy = "badge"', "'badge': needs the column probabilities"),
        ("holdout = 0.2", 'strategy = "random"\nby = "entropy"', "random chooses by no scores"),
        ("holdout = 0.2", 'balance = "camera"', "'camera': give metadata, a CSV or Parquet"),
        ("holdout = 0.2", 'metadata = "a.csv"', "metadata = 'a.csv' with no balance: name one"),
        (
            "holdout = 0.2",
            'balance = "predicted"\nmetadata = "a.csv"',
            "'a.csv' with balance = 'predicted'",
        ),
        ("holdout = 0.2", "monitor = 0.9", "monitor = 0.9: give a share of k from 0 to 0.5"),
        ("holdout = 0.2", "monitor = -1", "monitor = -1: give a share"),
        ("holdout = 0.2", 'precision = "int8"', "precision = 'int8': choose one of fp32, auto"),
        ("lr = 0.05", 'preset = "paper"', "preset 'paper'"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    project: Project, old: str, new: str, expected: str
) -> None:
    with pytest.raises((SettingsError, ProjectError), match=expected):
        change(project, old, new)


def test_only_classifiers_balance_by_what_they_predict() -> None:
    check_choice(get_task("classification"), "herding", "auto", "predicted", "")
    with pytest.raises(SettingsError, match="'predicted': pose predicts no class of a whole"):
        check_choice(get_task("pose"), "herding", "auto", "predicted", "")


@pytest.mark.parametrize(
    ("task", "strategy", "balance", "weight"),
    [
        ("classification", "herding", "", "balanced"),
        ("classification", "coverage", "camera", "balanced"),
        ("classification", "herding", "predicted", ""),
        ("classification", "top", "", ""),
        ("pose", "herding", "", ""),
    ],
)
def test_new_projects_weigh_classes_where_that_can_be_served(
    task: str, strategy: str, balance: str, weight: str
) -> None:
    assert usual_class_weight(get_task(task), strategy, balance) == weight
    check_class_weight(get_task(task), weight)


def test_what_a_task_of_another_package_predicts_is_not_guessed() -> None:
    tags = copy.copy(get_task("classification"))
    tags.name, tags.predicts_class = "tags", None
    assert usual_class_weight(tags, "herding", "") == ""
    check_class_weight(tags, "balanced")
    check_choice(tags, "herding", "auto", "predicted", "")


def test_tasks_without_a_class_weigh_none() -> None:
    with pytest.raises(SettingsError, match="'balanced': segmentation predicts no class of a"):
        check_class_weight(get_task("segmentation"), "balanced")


def test_files_of_earlier_versions_choose_as_they_did(project: Project) -> None:
    text = (project.root / "lloss.toml").read_text()
    assert "strategy" not in text and "by =" not in text
    settings = project.selection(3)
    assert (settings.strategy, settings.by, settings.seed) == ("diverse", "loss", 3)
    assert (project.by, project.monitored, project.class_weight) == ("loss", 0, "")


def test_a_share_of_k_is_monitored_but_never_all(project: Project) -> None:
    for k, share, expected in ((5, 0.1, 1), (5, 0.5, 2), (1, 0.5, 0), (40, 0.1, 4)):
        changed = change(project, "k = 5 ", f"monitor = {share}\nk = {k} ")
        assert changed.monitored == expected
        drawn = changed.selection(2)
        if expected:
            assert changed.monitoring(drawn).seed == changed.monitoring_seed != drawn.seed
            # Images drawn by two seeds would not be a random sample together.
            assert replace(changed, seed=7).monitoring_seed == changed.monitoring_seed
        (project.root / "lloss.toml").write_text(
            (project.root / "lloss.toml")
            .read_text()
            .replace(f"monitor = {share}\nk = {k} ", "k = 5 ")
        )


def test_a_frozen_network_has_no_warm_start(project: Project) -> None:
    change(project, "k = 5", "k = 5\nwarm_start = true")
    with pytest.raises(SettingsError, match="warm_start and freeze: .*leave one of the two out"):
        change(project, "lr = 0.05", "freeze = true")


def test_a_warm_start_is_not_cross_validated(project: Project) -> None:
    change(project, "k = 5", "k = 5\nwarm_start = true")
    with pytest.raises(SettingsError, match="warm_start and folds = 5: .*leave one of them out"):
        change(project, "folds = 0", "folds = 5")


def test_init_checks_the_labels_and_leaves_nothing_behind(
    project: Project, pool: Path, labels: Path, tmp_path: Path
) -> None:
    values = {"pool": str(pool), "labels": str(labels), "k": 5}
    with pytest.raises(ProjectError, match="already exists"):
        create_project(project.root, values, {})
    add(labels, ["nowhere-1.png"])
    with pytest.raises(LabelError, match=r"nowhere-1\.png': is not in the pool"):
        create_project(tmp_path / "new", values, TRAIN)
    both = {"test_labels": str(labels), "holdout": 0.0}
    labels.write_text("id,label\ndark-001.png,dark\nred-002.png,red\n")
    with pytest.raises(LabelError, match=r"all 2 labeled images are in .*\.csv too \('dark-0"):
        create_project(tmp_path / "new", values | both, TRAIN)
    labels.write_text("id,label\ndark-001.png,dark\ndark-004.png,dark\n")
    with pytest.raises(LabelError, match="label a second class"):
        create_project(tmp_path / "new", values, TRAIN)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("project")
def test_an_export_of_label_studio_grows_from_cycle_to_cycle(pool: Path, tmp_path: Path) -> None:
    def export(*ids: str) -> None:
        tasks = [
            {"data": {"image": f"/data/upload/1/0a1b2c3d-{id}"}, "annotations": [
                {"result": [_choice("kind", id.partition("-")[0]), _choice("light", "low")]}
            ]}
            for id in ids
        ]  # fmt: skip
        path.write_text(json.dumps(tasks))

    path = tmp_path / "export.json"
    first = ["dark-001.png", "dark-004.png", "red-002.png", "red-005.png"]
    export(*first)
    values = {"pool": str(pool), "labels": f"{path}?control=kind", "k": 3, "holdout": 0.0}
    project = create_project(tmp_path / "new", values, TRAIN | {"batch_size": 4})
    assert 'labels = "../export.json?control=kind"' in (project.root / "lloss.toml").read_text()
    export(*first, "bright-000.png")
    labeled = load_project(project.root).open_labels()
    found = dict(zip((item.id for item in labeled.items), labeled.labels))
    assert found == {id: id.partition("-")[0] for id in [*first, "bright-000.png"]}


def _choice(control: str, name: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": control, "value": {"choices": [name]}}


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
